"""What the tasks of the secrets do, as lists of named steps; each can be killed anywhere and run again.

New values are drawn first and kept, so that a run which was broken off is gone on with by the same ones.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from bundle import (
    accounts,
    bootstrap,
    clients,
    install,
    own,
    rotation,
    turnover,
    users,
    vault,
)
from bundle.accounts import Login
from bundle.certificates import now
from bundle.console import confirm, table
from bundle.errors import CommandError, ConfigError
from bundle.gateway_client import door
from bundle.host import Host
from bundle.model import Secret, SecretSpec, role_secret
from bundle.own import VERIFY, Own, Trackers
from bundle.plan import Plan
from bundle.run import log, step
from bundle.services.names import STACK
from bundle.turnover import MLFLOW_FIRST, MLFLOW_STACK, PHOENIX_FIRST
from bundle.words import say
from bundle.workflows.certificates import open_exact
from bundle.workflows.closed import open_plan

SUPERUSER = "SUPERUSER_PASSWORD"
MINIO_ROOT = ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
ANSWER_WITHIN_S = 240
REFUSED_WITHIN_S = 60
"""A tracker may remember a password that was right for some seconds."""


def people(plan: Plan) -> tuple[Own, ...]:
    """The accounts that the product keeps for itself."""
    return (VERIFY, *(clients.account(extra.slug) for extra in plan.extras if extra.client))


def known(plan: Plan) -> tuple[SecretSpec, ...]:
    """Every secret that the store has, with its class."""
    return rotation.specs(plan, [name for who in people(plan) for name in (who.password, who.key)])


def status(here: Path, *, form: str) -> str:
    """Each stored secret: class, age, last rotation; never a value.

    Raises ConfigError for another form than text or json.
    """
    if form not in ("text", "json"):
        raise ConfigError(f"{form!r} is not text or json", where="--format", hint="Choose one.")
    host, plan = open_plan(here)
    rows = rotation.status(host, known(plan))
    if form == "json":
        return json.dumps([row.as_dict() for row in rows], ensure_ascii=False, indent=2)
    words = {
        "free": say("free", "free (영향 없음)"),
        "logout": say("logout", "logout (세션 종료)"),
        "data": say("data key", "data (데이터 키)"),
        "kit": say("with the root", "kit (루트와 함께)"),
        "backup": say("of the backups", "backup (백업용)"),
    }
    head = [say("secret", "비밀"), say("class", "분류"), say("age", "경과")]
    head += [say("last rotation", "마지막 교체"), ""]
    going = say("under way: run invoke secrets.rotate", "진행 중: invoke secrets.rotate 실행")
    never = say("never", "없음")
    cells = [
        (r.name, words[r.rotation], f"{r.days} d", r.rotated or never, going if r.state else "")
        for r in rows
    ]
    return table(head, cells)


def rotate(here: Path, *, only: Iterable[str], yes: bool) -> str:
    """New values for the secrets that `only` names (the free ones without any); the old ones are refused afterwards."""
    host, plan = open_exact(here)
    wanted = paired(plan, rotation.chosen(known(plan), only))
    begun = rotation.under_way(host)
    if begun:
        told = say("going on with what was broken off", "중단된 교체를 이어서 진행")
        log.info("  %s: %s", told, ", ".join(begun))
    ask_leave([spec for spec in wanted if spec.name not in begun], yes=yes)
    with host.lock("secrets.rotate"):
        with step(say("everything runs, with what is stored", "저장된 값으로 모두 실행")):
            apply(plan, host)
        rotation.draw(host, wanted)
        if not rotation.under_way(host):
            return say("nothing to rotate", "교체할 것이 없습니다")
        with step(say("accounts of the stack", "스택 자체 계정")):
            turn_accounts(plan, host)
        with step(say("roles and keys of the stores", "저장소의 역할과 키")):
            turn_stores(plan, host)
        turn_data(plan, host)
        with step(say("servers, with the new values", "새 값으로 서버 시작")):
            for name in rotation.drawn(host):
                rotation.commit(host, name)
            apply(plan, host)
        with step(say("former values are refused", "이전 값 거부 확인")):
            done = end(plan, host)
    log.info("  %s", kit_note())
    return ", ".join(done)


def kit_note() -> str:
    """What a rotation means for the recovery kit."""
    return say(
        "a recovery kit made before lacks these values: invoke recovery.create --to RECIPIENT",
        "이전에 만든 복구 키트에는 이 값이 없습니다: invoke recovery.create --to 수신자",
    )


def paired(plan: Plan, wanted: tuple[SecretSpec, ...]) -> tuple[SecretSpec, ...]:
    """`wanted`, an S3 user's key and secret always together: the second user is there before the first one goes."""
    pairs = [{bucket.key, bucket.secret} for s in plan.services for bucket in s.buckets]
    names = {spec.name for spec in wanted}
    names |= {name for pair in pairs if pair & names for name in pair}
    return tuple(spec for spec in known(plan) if spec.name in names)


def ask_leave(wanted: list[SecretSpec], *, yes: bool) -> None:
    """Have the operator agree to what users notice.

    Raises ConfigError when not.
    """
    names = {spec.name for spec in wanted}
    costs = [say(f"new values for {len(names)} secrets", f"비밀 {len(names)}개의 새 값")]
    if any(spec.rotation == "logout" for spec in wanted):
        costs.append(say("browser sessions end", "브라우저 세션이 끝납니다"))
    if "PHOENIX_SECRET" in names:
        costs.append(
            say(
                "every session and every API key of Phoenix ends: each person needs invoke users.env again",
                "Phoenix의 모든 세션과 API 키가 끝납니다. 사람마다 invoke users.env가 다시 필요합니다",
            )
        )
    costs.append(say("MLflow and Phoenix may restart", "MLflow와 Phoenix가 재시작할 수 있습니다"))
    if names:
        confirm("; ".join(costs) + say("; go on?", ". 계속할까요?"), yes=yes)


def apply(plan: Plan, host: Host) -> None:
    """Every service has its files and runs with them: new containers for those whose secrets changed, stores first."""
    vault.hand_out(host, plan, vault.open_store(host, plan))
    vault.close(host, plan)
    install.write_rendered(plan, host)
    install.up(plan, host, install.stores(plan))
    install.wait_for_postgres(plan, host)
    for name in install.others(plan):
        install.up(plan, host, (name,))
    for service in ("mlflow", "phoenix"):
        wait_answers(plan, host, service)


def wait_answers(plan: Plan, host: Host, service: str) -> None:
    """Wait until a tracker answers by its door, whatever it says of credentials.

    Raises CommandError when it does not.
    """
    path = {"mlflow": "/health", "phoenix": "/readyz"}[service]
    stop = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            if door(plan, host, service).ask("GET", path).status_code == 200:
                return
        except CommandError:
            if time.monotonic() > stop:
                raise
        if time.monotonic() > stop:
            names = (service,)
            install.wait_healthy(plan, host, names, timeout=1)
        time.sleep(0.5)


def open_trackers(plan: Plan, host: Host) -> Trackers:
    """Both trackers as their administrator, whose password a broken-off run may have changed already."""
    trackers = own.open_trackers(plan, host)
    new = rotation.drawn(host).get(MLFLOW_STACK)
    if new is not None and not accounts.mlflow_accepts(trackers.mlflow, trackers.admin):
        trackers = replace(trackers, admin=Login(name=STACK, password=new))
    return trackers


def turn_accounts(plan: Plan, host: Host) -> None:
    """What the trackers themselves keep: the administrator's password first, since the others are changed by it."""
    trackers, drawn = open_trackers(plan, host), rotation.drawn(host)
    if MLFLOW_STACK in drawn:
        login = Login(name=STACK, password=drawn[MLFLOW_STACK])
        if trackers.admin != login:
            accounts.mlflow_set_password(trackers.mlflow, trackers.admin, login)
        rotation.commit(host, MLFLOW_STACK)
        vault.hand_out(host, plan, vault.open_store(host, plan))
        vault.close(host, plan)
        trackers = own.open_trackers(plan, host)
    firsts = {
        MLFLOW_FIRST: partial(turnover.first_in_mlflow, trackers),
        PHOENIX_FIRST: partial(turnover.first_in_phoenix, plan, host, trackers),
    }
    for name in (name for name in firsts if name in drawn):
        if firsts[name](own.stored(host, name), drawn[name]):
            rotation.commit(host, name)
        else:
            rotation.leave(host, name)
            log.info("  %s: %s", name, say("the person's own", "본인이 이미 바꿈"))
    for who in people(plan):
        if who.password in drawn:
            rotation.renew(host, who.password, partial(own.own_in_mlflow, trackers, host, who))
        if who.key in drawn:
            rotation.renew(host, who.key, partial(own.own_in_phoenix, plan, trackers, host, who))


def turn_stores(plan: Plan, host: Host) -> None:
    """Roles get their new password, and a second user stands beside each S3 user; files follow at once."""
    drawn, stored = rotation.drawn(host), vault.open_store(host, plan)
    store = {**stored, **drawn} | {name: stored[name] for name in MINIO_ROOT if name in stored}
    roles = {role_secret(role) for d in plan.databases for role in d.roles} & {*drawn}
    buckets = [name for s in plan.services for b in s.buckets for name in (b.key, b.secret)]
    if SUPERUSER in drawn:
        bootstrap.set_superuser_password(plan, host, drawn[SUPERUSER])
        rotation.commit(host, SUPERUSER)
    if roles:
        bootstrap.make_databases(plan, host, store)
        for name in sorted(roles):
            rotation.commit(host, name)
    if {*buckets} & {*drawn}:
        bootstrap.make_buckets(plan, host, store)
        for name in (name for name in dict.fromkeys(buckets) if name in drawn):
            rotation.commit(host, name)
    vault.hand_out(host, plan, vault.open_store(host, plan))
    vault.close(host, plan)


def turn_data(plan: Plan, host: Host) -> None:
    """What a data key encrypts is encrypted anew while its tracker is stopped, after a safety dump."""
    for name, new in rotation.drawn(host).items():
        if name not in turnover.DATA_KEYS:
            continue
        old = own.stored(host, name)
        with step(f"{name}: {say('safety dump, then encrypt anew', '안전 덤프 후 재암호화')}"):
            turnover.turn(plan, host, name, old, new, act=False)  # refuses before anything stops
            folder, found = turn_one(plan, host, name, old, new)
            rotation.commit(host, name)
            rows = found["old"] + found["new"]
            log.info(
                "  %s",
                say(
                    f"{rows} encrypted values; the way back: {folder}",
                    f"암호화된 값 {rows}개, 되돌릴 자료: {folder}",
                ),
            )


def turn_one(
    plan: Plan, host: Host, name: str, old: Secret, new: Secret
) -> tuple[Path, dict[str, int]]:
    """Dump and encrypt anew while the tracker is stopped; when that fails, it is started as it was."""
    service, file = turnover.DATA_KEYS[name], host.compose_file
    host.engine.compose(plan.project, file, ["stop", "--timeout", "30", service], timeout=120)
    try:
        folder = turnover.keep_safe(plan, host, name, old, new)
        return folder, turnover.turn(plan, host, name, old, new)
    except Exception:
        install.up(plan, host, (service,))
        raise


def end(plan: Plan, host: Host) -> list[str]:
    """All is healthy, nothing opens by a former value, and everything stored opens by the new one; then they go."""
    old, store = rotation.replaced(host), vault.open_store(host, plan)
    install.wait_healthy(plan, host, tuple(service.name for service in plan.services))
    users.bootstrap_people(plan, host, store)  # API keys are signed by a key that may be new
    clients.make_clients(plan, host)
    install.write_rendered(plan, host)
    install.bring_up_extras(plan, host)
    keys = [b.key for s in plan.services for b in s.buckets if b.key in old]
    if keys:
        bootstrap.make_buckets(plan, host, store, gone=[old[key] for key in keys])
    check_data(plan, host, old)
    check_refused(plan, host, old, store)
    rotation.finish(host, old, now())
    return sorted(old)


def check_data(plan: Plan, host: Host, old: Mapping[str, Secret]) -> None:
    """See that what data keys encrypt opens by the new one only, and that Phoenix opens it too.

    Raises CommandError when not.
    """
    for name in (name for name in old if name in turnover.DATA_KEYS):
        new = own.stored(host, name)
        found = turnover.turn(plan, host, name, old[name], new, act=False)
        if found["old"]:
            raise CommandError(f"{found['old']} rows open by the old key", where=name)
    if "PHOENIX_SECRET" in old:
        turnover.phoenix_opens(own.open_trackers(plan, host))


def check_refused(
    plan: Plan, host: Host, old: Mapping[str, Secret], store: Mapping[str, Secret]
) -> None:
    """See that no former value opens anything.

    Raises CommandError with the names of those that do.
    """
    trackers, stop = own.open_trackers(plan, host), time.monotonic() + REFUSED_WITHIN_S
    left = dict(old)
    while True:
        people_taken = turnover.still_taken_by_trackers(trackers, left, people(plan))
        left = {name: left[name] for name in people_taken}  # a tracker counts each wrong password
        taken = people_taken + turnover.still_taken_by_stores(plan, host, old, store)
        if not taken:
            return
        if time.monotonic() > stop:
            message = say("former values still open", "이전 값이 아직 통합니다")
            hint = say(
                "Run invoke secrets.rotate again.", "invoke secrets.rotate를 다시 실행하십시오."
            )
            raise CommandError(f"{message}: {', '.join(taken)}", hint=hint)
        time.sleep(3)
