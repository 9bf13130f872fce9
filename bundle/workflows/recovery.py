"""What the tasks of the recovery kit do, as lists of named steps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bundle import access, kit, recovery, rotation
from bundle.certificates import now
from bundle.errors import ConfigError
from bundle.run import log, step
from bundle.words import say
from bundle.workflows.closed import open_plan


def create_kit(
    here: Path, *, to: Iterable[str], out: str, test_with: str, passphrase: str, root_from: str
) -> str:
    """One file with everything that opens this site, for the operators named; its path."""
    who = recovery.recipients(list(to))
    if root_from and not test_with:
        hint = say(
            "Add --test-with KEY, which opens it.", "그것을 여는 --test-with 키를 더하십시오."
        )
        raise ConfigError(
            say("needs an operator's key", "운영자 키가 필요합니다"), where="--root-from", hint=hint
        )
    recovery.check_openssl()
    host, plan = open_plan(here)
    with host.lock("recovery.create"):
        if names := rotation.under_way(host):
            hint = say(
                "Run invoke secrets.rotate first.", "먼저 invoke secrets.rotate를 실행하십시오."
            )
            message = say("a rotation is under way", "비밀 교체가 진행 중입니다")
            raise ConfigError(f"{message}: {', '.join(names)}", hint=hint)
        with step(say("recovery kit, for operators", "운영자용 복구 키트")):
            target = Path(out).absolute() if out else recovery.default_out(host, plan)
            access.check_target(target)
            root = dict[str, bytes]()
            if root_from:
                older = recovery.open_kit(Path(root_from), Path(test_with), passphrase)
                root = recovery.root_key_of(host, older)
            made = recovery.create(host, plan, who, target, root)
            for one in who:
                log.info("  %s  %s", one.fingerprint[:16], one.name)
    if test_with:
        test_kit(here, file=str(target), key=test_with, passphrase=passphrase, put_away=False)
    advise(made, kit.where_root_key_is(host))
    return f"{made.sha256}  {target}"


def advise(made: kit.Made, where: str) -> None:
    """What a kit that was just made is short of; `where`: the root's key, in words."""
    if len(made.recipients) == 1:
        log.info(
            "  %s",
            say(
                "with one key lost it is lost: name two",
                "수신자 한 명의 키를 잃으면 끝입니다. 두 명을 지정하십시오",
            ),
        )
    if not made.root_key:
        log.warning(
            "  %s",
            say(
                f"INCOMPLETE: this kit lacks the root's key, {where}; add --root-from THAT_KIT --test-with KEY",
                f"불완전: 이 키트에는 루트 키가 없습니다, {where}. --root-from 그_키트 --test-with 키를 더하십시오",
            ),
        )


def test_kit(here: Path, *, file: str, key: str, passphrase: str, put_away: bool) -> str:
    """Open a kit and see that it is enough; `put_away` then takes the root's key off this host."""
    recovery.check_openssl()
    host, _ = open_plan(here)
    with host.lock("recovery.test"):
        with step(say("open the kit, compare with this host", "키트를 열어 이 호스트와 비교")):
            opened = recovery.open_kit(Path(file), Path(key), passphrase)
            held = recovery.prove(host, opened, now().isoformat(timespec="seconds"))
            log.info(
                "  %s", say(f"{len(held)} files, as they are here", f"파일 {len(held)}개 일치")
            )
        if put_away:
            gone = recovery.put_root_key_away(host, opened)
            log.info("  %s: %s", say("put away", "옮김"), ", ".join(gone) or say("nothing", "없음"))
    return f"{opened.sha256}  {file}"
