"""What the tasks of backups do, as lists of named steps."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from bundle import alerts, backup, copies, ledger, points, prove, vault
from bundle.console import table
from bundle.errors import CheckFailedError, ConfigError
from bundle.host import Host
from bundle.plan import Plan
from bundle.run import log, step
from bundle.words import say
from bundle.workflows.closed import open_plan

SHOWN = 40
LOCK = "backup"
"""The lock that points, proofs and retention share; other tasks go on meanwhile."""


def make(here: Path, *, full: bool, export: str = "") -> str:
    """One consistent point, then let old ones go; its id.

    Raises CheckFailedError when rows name objects that are not there: the point is kept, and says so.
    """
    host, plan = open_plan(here)
    with alerts.alerting(plan.site, "backup"), host.lock("backup", LOCK):
        store = vault.open_store(host, plan)
        with step(say("one point over databases and objects", "데이터베이스와 객체의 한 시점")):
            point = backup.take(plan, host, store, full=full)
            log.info("  %s", summary(point))
        gone = backup.going(plan, host)
        if backup.is_much(plan, host, gone):
            log.warning("  %s", much(gone))
        elif backup.let_go(plan, host, store, gone):
            log.info("  %s", say(f"{len(gone)} old points gone", f"오래된 시점 {len(gone)}개 삭제"))
        backup.tidy(plan, host)
        copy_away(host, plan, point.id)
        if export:
            with step(say("all points, onto the medium", "모든 시점을 매체로")):
                log.info("  %s", copies.export(host, plan.site, Path(export).absolute()))
    if point.missing:
        raise CheckFailedError(
            say(
                f"{len(point.missing)} rows name objects that are not there: {point.missing[0]}",
                f"객체가 없는 행 {len(point.missing)}개: {point.missing[0]}",
            ),
            where=point.id,
            hint=say(
                "The point was made as things are; invoke points --format json lists the rows.",
                "시점은 만들어졌습니다. invoke points --format json으로 행을 확인하십시오.",
            ),
        )
    return point.id


def copy_away(host: Host, plan: Plan, point: str) -> None:
    """Bring the copy on another host up to date, where the site has one."""
    if not plan.site.backup_copy_to:
        return
    with step(say("copy, to another host", "다른 호스트로 복사")):
        done = copies.copy(host, plan.site, point)
        log.info("  %.1f MB", done.size / 1e6)


def proof(here: Path, *, point: str, level: int, part: bool, to_time: str = "") -> str:
    """Prove a point up to a level; what was found.

    Raises CheckFailedError with everything that is wrong.
    """
    if level not in points.LEVELS:
        raise ConfigError(f"{level} is no level", where="--level", hint="Give 0, 1, 2 or 3.")
    host, plan = open_plan(here)
    with alerts.alerting(plan.site, "prove"), host.lock("prove", LOCK):
        store = vault.open_store(host, plan)
        chosen = points.chosen(ledger.check(host, plan.site), point, to_time)
        with step(say(f"prove {chosen.id} up to L{level}", f"{chosen.id} 증명 (L{level}까지)")):
            prove.prove(plan, host, store, chosen, level, part=part)
    return f"{chosen.id}  L{level}"


def much(gone: tuple[points.Point, ...]) -> str:
    """What to say when more would go at once than goes by itself."""
    return say(
        f"{len(gone)} points would go at once: look at invoke retention --dry-run, then --yes",
        f"시점 {len(gone)}개가 한 번에 삭제됩니다: invoke retention --dry-run 확인 후 --yes",
    )


def retain(here: Path, *, dry_run: bool, yes: bool) -> str:
    """Let points go that are older than is kept; with `dry_run` only say which. Counts and bytes.

    Raises ConfigError when it is much and nobody agreed, or the site holds everything.
    """
    host, plan = open_plan(here)
    with host.lock("retention", LOCK):
        if plan.site.retention_hold:
            message = say("everything is held", "모든 데이터가 보존 중입니다")
            raise ConfigError(f"{message}: {plan.site.retention_hold}", where="retention.hold")
        gone = backup.going(plan, host)
        size = sum(point.stored for point in gone) / 1e6
        told = say(
            f"{len(gone)} points, up to {size:,.1f} MB",
            f"시점 {len(gone)}개, 최대 {size:,.1f} MB",
        )
        if not dry_run:
            if backup.is_much(plan, host, gone) and not yes:
                raise ConfigError(much(gone), where="backup.keep_days", hint="Agree with --yes.")
            backup.let_go(plan, host, vault.open_store(host, plan), gone)
            backup.tidy(plan, host)
    return told


def summary(point: points.Point) -> str:
    """A point in one line."""
    size, stored = point.size / 1e6, point.stored / 1e6
    return say(
        f"{point.objects} objects, {size:,.1f} MB; {stored:,.3f} MB new in store; {point.seconds:.1f} s",
        f"객체 {point.objects}개, {size:,.1f} MB; 새로 저장 {stored:,.3f} MB; {point.seconds:.1f}초",
    )


def listed(here: Path, *, form: str) -> str:
    """The points that there are.

    Raises IntegrityError when the ledger is broken.
    """
    if form not in ("text", "json"):
        raise ConfigError(f"{form!r} is not text or json", where="--format", hint="Choose one.")
    host, plan = open_plan(here)
    found = ledger.check(host, plan.site)
    moment = backup.now()
    if form == "json":
        rows = [
            point.as_dict() | {"age_s": round((moment - point.at).total_seconds())}
            for point in found
        ]
        return json.dumps(rows, ensure_ascii=False, indent=2)
    head = [
        say("point", "시점"),
        say("time (UTC)", "시각 (UTC)"),
        say("objects", "객체"),
        "MB",
        say("proof", "증명"),
        say("age", "경과"),
    ]
    shown = [row(point, moment) for point in found[-SHOWN:]]
    more = len(found) - len(shown)
    text = say(f"{more} older: --format json", f"이전 시점 {more}개: --format json")
    return table(head, shown) + (f"\n{text}" if more else "")


def row(point: points.Point, moment: datetime.datetime) -> list[str]:
    """A point as a line of the table."""
    minutes = int((moment - point.at).total_seconds() // 60)
    age = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    proof = say("none", "없음") if point.level < 0 else f"L{point.level} {point.proven[:10]}"
    return [
        point.id,
        f"{point.at:%Y-%m-%d %H:%M:%S}",
        f"{point.objects:,}",
        f"{point.size / 1e6:,.1f}",
        proof + (" ✗" if point.missing else ""),
        age,
    ]
