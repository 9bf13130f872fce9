"""The audit log's tasks, and the one place where every task of the closed side is written down."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bundle import audit, auditlog, chained, operators, site
from bundle.config import SiteConfig
from bundle.console import exit_code, table
from bundle.errors import BundleError, ConfigError, IntegrityError
from bundle.host import Host
from bundle.plan import PROJECT
from bundle.run import log
from bundle.words import say

USERS = "users."


@contextmanager
def recorded(here: Path, task: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Write down that a task begins, and how it ends: who, what, when, from where, the exit code.

    On the connected side there is no log. The first install has a last line only: the log begins with it. What cannot
    be written down is done all the same, with a warning: a full disk must not keep anybody from making room.
    """
    if not (here / "release.json").exists():
        yield
        return
    host, start = Host(root=site.find_root(here)), time.monotonic()
    head = opening(task, options)
    note(host, head | {"state": "begun"})
    code = 0
    try:
        yield
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        seconds = round(time.monotonic() - start, 3)
        ended = {"at": auditlog.stamp(), "state": "ended", "result": code, "seconds": seconds}
        note(host, head | ended | {"begun": head["at"]})


def opening(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a task before it runs."""
    who = operators.whoami()
    found = {
        "at": auditlog.stamp(),
        "kind": "users" if task.startswith(USERS) else "task",
        "user": who.user,
        "known": who.known,
        "uid": who.uid,
        "from": who.origin,
        "what": f"invoke {task}",
        "options": audit.without_secrets(dict(options)),
    }
    target = options.get("name") or options.get("user")
    return found | ({"target": str(target)} if task.startswith(USERS) and target else {})


def note(host: Host, record: Mapping[str, Any]) -> None:
    """Write one record down, where there is a log; a failure is told."""
    try:
        if auditlog.begun(host):
            auditlog.append(host, [record])
    except (OSError, BundleError) as error:
        text = str(error).splitlines()[0]
        log.warning(
            "%s: %s",
            say("this is not in the audit log", "감사 로그에 기록하지 못했습니다"),
            text,
        )


def open_log(here: Path) -> tuple[Host, SiteConfig]:
    """The installation and its settings.

    Raises ConfigError where there is no log yet.
    """
    host = Host(root=site.find_root(here))
    if not auditlog.begun(host):
        raise ConfigError(
            say("there is no audit log yet", "감사 로그가 아직 없습니다"),
            where=str(auditlog.folder(host)),
            hint=say("Run invoke install first.", "먼저 invoke install을 실행하십시오."),
        )
    return host, site.read_site(host)


def take(host: Host) -> int:
    """Chain what the gateway wrote, and that it started anew, when the engine says so; the number of lines."""
    taken = audit.collect(host)
    with suppress(BundleError):  # no engine, as while the host goes down: said by the next look
        gateway = host.engine.containers(PROJECT).get("gateway")
        if gateway and gateway.started:
            audit.note_start(host, gateway.started)
    return taken


def collect(here: Path) -> str:
    """Chain what the gateway wrote, let old files go, copy the head away; what was done."""
    host, settings = open_log(here)
    taken = take(host)
    gone = 0 if settings.retention_hold else audit.prune(host, settings.audit_keep_days)
    away = audit.copy_head(host, settings)
    log.info(
        "  %s",
        say(f"{taken} lines, {gone} old files gone", f"{taken}줄 기록, 오래된 파일 {gone}개 삭제"),
    )
    return say("head copied", "헤드 복사됨") if away else ""


def show(here: Path, *, since: str, user: str, form: str) -> str:
    """What was done, as a table or as JSON lines."""
    if form not in ("text", "json"):
        raise ConfigError(f"{form!r} is not text or json", where="--format")
    host, _ = open_log(here)
    start = audit.since_when(since, datetime.datetime.now(datetime.timezone.utc))
    take(host)
    found = audit.shown(host, since=start, user=user)
    if form == "json":
        return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in found)
    head = [
        say("time (UTC)", "시각 (UTC)"),
        say("user", "사용자"),
        say("what", "내용"),
        say("from", "출처"),
        say("result", "결과"),
    ]
    return table(head, [audit.row(entry) for entry in found])


def verify(here: Path, *, heads: str) -> str:
    """Recompute the chain and compare it with the heads that were copied away; what was found.

    Raises IntegrityError that names the first bad line.
    """
    host, settings = open_log(here)
    take(host)
    place = Path(heads) if heads else None
    known = auditlog.heads_in(place, settings.domain) if place else auditlog.copied_heads(settings)
    found = auditlog.examine(host, known)
    if found.wrong:
        raise IntegrityError(
            found.wrong,
            where=str(auditlog.folder(host, "chain")),
            hint=say(
                "Keep the folder as it is; docs/audit.md says how to go on.",
                "폴더를 그대로 보존하고 docs/audit.md를 따르십시오.",
            ),
        )
    return "\n".join(told(host, settings, found, known))


def told(
    host: Host, settings: SiteConfig, found: chained.Verdict, known: Mapping[int, str]
) -> list[str]:
    """What to say of a log that is whole."""
    lines = [
        say(
            f"whole: lines {found.first} to {found.head.seq}",
            f"온전함: {found.first}~{found.head.seq}번 줄",
        ),
        f"sha256 {found.head.digest}",
        say("key", "키") + f" {chained.fingerprint(auditlog.open_key(host))}",
    ]
    if found.repairs:
        numbers = ", ".join(map(str, found.repairs))
        lines.append(
            say(f"half a line was cut away before: {numbers}", f"잘린 줄을 정리한 곳: {numbers}")
        )
    if known:
        lines.append(
            say(
                f"equal to {len(known)} copied heads, the last of line {max(known)}",
                f"복사된 헤드 {len(known)}개와 같음 (마지막: {max(known)}번 줄)",
            )
        )
    elif not (settings.audit_folder or settings.audit_command):
        lines.append(no_copy())
    else:
        lines.append(
            say(
                "compare with the heads that audit.command took away: invoke audit.verify --heads FILE",
                "audit.command가 옮긴 헤드와 비교: invoke audit.verify --heads 파일",
            )
        )
    return lines


def no_copy() -> str:
    """What it means that the head stays here."""
    return say(
        "no head is copied away (audit.folder, audit.command): lines cut off at the end would not be noticed",
        "헤드가 외부로 복사되지 않음(audit.folder, audit.command): 끝에서 잘린 줄을 알 수 없음",
    )
