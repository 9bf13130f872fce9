"""What the tasks of the certificates do, as lists of named steps; each can be killed anywhere and run again."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

from bundle import authority, expiring, install, operate, pki, reload, sitecert, takeover
from bundle.authority import current, generations
from bundle.certificates import now
from bundle.console import confirm, table
from bundle.errors import ConfigError, PreconditionError
from bundle.host import Host
from bundle.plan import Plan
from bundle.run import log, step
from bundle.words import say
from bundle.workflows.closed import open_plan

OVERLAP_D = 30
"""So long clients should have both roots before the old one goes."""


def open_exact(here: Path) -> tuple[Host, Plan]:
    """The installation, and its plan exactly as the last install rendered it.

    Raises PreconditionError when site.toml says something that is not installed yet.
    """
    host, plan = open_plan(here)
    api = host.engine.api.version()["ApiVersion"]
    quick = tuple(int(part) for part in api.split(".")) >= (1, 44)
    plan = dataclasses.replace(plan, quick_probes=quick)
    if changed := install.unapplied(plan, host):
        raise PreconditionError(
            say(
                f"what is installed is not what site.toml and this release say ({changed[0]})",
                f"설치된 상태가 site.toml이나 이 릴리스와 다릅니다 ({changed[0]})",
            ),
            where=str(host.path("site.toml")),
            hint=say(
                "Run invoke install first, then this again.",
                "먼저 invoke install을 실행한 뒤 다시 실행하십시오.",
            ),
        )
    return host, plan


def serve(plan: Plan, host: Host) -> None:
    """Have everything that runs present and trust what lies on disk: reloads first, then restarts one by one."""
    reload.reload_changed(plan, host)
    restart(plan, host)


def restart(plan: Plan, host: Host) -> None:
    """New containers, one after the other, for the servers that cannot reload and run with something older."""
    install.write_rendered(plan, host)
    running = {
        name for name, one in host.engine.containers(plan.project).items() if one.state == "running"
    }
    slow = [one for one in plan.services if not one.reloads and one.name in running]
    for service in (one for one in slow if takeover.outdated(plan, host, one.name)):
        with takeover.second(plan, host, service):
            install.up(plan, host, (service.name,))
            install.wait_healthy(plan, host, (service.name,))
    for name in (extra.slug for extra in plan.extras if extra.slug in running):
        install.up(plan, host, (name,))
        install.wait_healthy(plan, host, (name,))


def status(here: Path, *, form: str) -> str:
    """What expires when.

    Raises ConfigError for another form than text or json.
    """
    if form not in ("text", "json"):
        raise ConfigError(f"{form!r} is not text or json", where="--format", hint="Choose one.")
    host, plan = open_plan(here)
    entries = expiring.entries(host, plan)
    older = [folder.name for folder in generations(host) if folder != current(host)]
    if form == "json":
        found = {
            "generation": current(host).name,
            "older": older,
            "root_key_away": authority.root_key_is_away(host),
            "site_certificate": authority.site_folder(host) is not None,
            "certificates": [entry.as_dict() for entry in entries],
        }
        return json.dumps(found, ensure_ascii=False, indent=2)
    head = (
        say("what", "항목"),
        say("left", "남은 기간"),
        say("until", "만료"),
        say("by", "발급자"),
    )
    rows = [
        (e.name, f"{'✓' if e.good else '✗'} {e.days} d", f"{e.until:%Y-%m-%d}", e.issuer)
        for e in entries
    ]
    line = operate.root_key_line(host)
    rows.append((line.name, line.mark, "", line.detail))
    return "\n".join([table(head, rows), *_notes(older)])


def _notes(older: list[str]) -> list[str]:
    if not older:
        return []
    return [
        say(
            f"{', '.join(older)} is still trusted; when all clients have the new CA file: invoke pki.rotate --finish",
            f"{', '.join(older)}도 아직 신뢰합니다. 모든 클라이언트가 새 CA 파일을 받은 뒤: invoke pki.rotate --finish",
        )
    ]


def renew(here: Path, *, everything: bool) -> str:
    """Issue anew what is due (or everything), and have it served."""
    host, plan = open_exact(here)
    with host.lock("pki.renew"):
        with step(say("certificates", "인증서")):
            renewed = pki.issue(host, plan, anew=everything)
            log.info("  %s", ", ".join(renewed) or say("none is due", "갱신할 것이 없습니다"))
        with step(say("have them served", "서버에 적용")):
            serve(plan, host)
        pki.write_lists(host)
    return ", ".join(renewed)


def rotate(here: Path, *, finish: bool, yes: bool) -> str:
    """A new root, trusted beside the old one, and everything issued under it; `finish` removes the old one."""
    host, plan = open_exact(here)
    return finish_rotation(plan, host, yes=yes) if finish else start_rotation(plan, host)


def start_rotation(plan: Plan, host: Host) -> str:
    """Each step is so when it has been done: the next run goes on with the first that is not."""
    with host.lock("pki.rotate"):
        with step(say("a new root, trusted beside the old one", "새 루트를 기존 루트와 함께 신뢰")):
            count = pki.begin_rotation(host, plan)
            reload.reload_changed(plan, host)
        pki.switch(host)
        slow = tuple(service.name for service in plan.services if not service.reloads)
        with step(say("certificates of servers that restart", "재시작하는 서버의 인증서")):
            pki.issue(host, plan, only=slow)
            restart(plan, host)
        with step(say("certificates of servers that reload", "다시 읽는 서버의 인증서")):
            pki.issue(host, plan)
            serve(plan, host)
        pki.write_lists(host)
    log.info("  %s", _notes([f"g{count - 1}"])[0])
    return str(host.path("pki", "clients.crt"))


def finish_rotation(plan: Plan, host: Host, *, yes: bool) -> str:
    """Trust the newest root only."""
    newest = generations(host)[0]
    if newest != current(host):
        raise PreconditionError(
            say("the rotation has not been carried through", "교체가 아직 끝나지 않았습니다"),
            hint=say("Run invoke pki.rotate first.", "먼저 invoke pki.rotate를 실행하십시오."),
        )
    age = (now() - _since(newest)).days
    if len(generations(host)) > 1 and age < OVERLAP_D:
        question = say(
            f"the new root is {age} days old; clients that only have the old one will be refused; go on",
            f"새 루트는 {age}일 되었습니다. 이전 루트만 가진 클라이언트는 거부됩니다. 계속할까요",
        )
        confirm(f"{question}?", yes=yes)
    with host.lock("pki.rotate"), step(say("trust the new root only", "새 루트만 신뢰")):
        dropped = pki.drop_older(host)
        pki.issue(host, plan)
        serve(plan, host)
        pki.write_lists(host)
        pki.remove_dropped(host)
    return ", ".join(dropped) or say("nothing to finish", "마칠 교체가 없습니다")


def _since(folder: Path) -> datetime.datetime:
    changed = (folder / "root.crt").stat().st_mtime
    return datetime.datetime.fromtimestamp(changed, datetime.timezone.utc)


def request(here: Path, *, out: str) -> Path:
    """A request for the gateway's names, for the site's CA; its key stays here."""
    host, plan = open_plan(here)
    with host.lock("pki.csr"):
        return sitecert.request(host, plan, Path(out))


def take_in(here: Path, *, chain: str, key: str, root: str, passphrase: str) -> str:
    """Use the site's own certificate at the gateway; what clients need from now on."""
    host, plan = open_exact(here)
    with host.lock("pki.import"):
        with step(say("look at it, changing nothing", "확인 (변경 없음)")):
            files = sitecert.read_files(host, chain, key, root, passphrase)
            sitecert.take_in(host, plan, files)
        return _serve_gateway(plan, host)


def give_up(here: Path) -> str:
    """Use a certificate of our own at the gateway again; what clients need from now on."""
    host, plan = open_exact(here)
    with host.lock("pki.import"):
        sitecert.give_up(host)
        return _serve_gateway(plan, host)


def _serve_gateway(plan: Plan, host: Host) -> str:
    with step(say("have it served", "게이트웨이에 적용")):
        pki.issue(host, plan)
        serve(plan, host)
    needed = say("clients need this CA file now", "이제 클라이언트에 필요한 CA 파일")
    log.info("  %s: %s", needed, host.path("pki", "clients.crt"))
    return str(host.path("pki", "clients.crt"))
