"""Backups: young, proven, without a hole, known to a ledger that nobody changed, and not on this host only."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable

from bundle import copies, ledger, points, repository
from bundle.checks.authority import LOOPBACK
from bundle.checks.model import Check, Moot, Red, Stage, settle
from bundle.checks.stage import inspected
from bundle.errors import BundleError
from bundle.wal import Segment

PATIENCE = 3
"""Intervals after which a point is late."""
GRACE_MINUTES = 15
PROVEN_DAYS = 8
COPIED_HOURS = 24


def _read(stage: Stage) -> tuple[points.Point, ...]:
    def find() -> tuple[points.Point, ...]:
        return ledger.check(stage.host, stage.plan.site)

    try:
        found: tuple[points.Point, ...] = stage.notes.once("points", find)
    except (BundleError, OSError) as error:
        raise Red(str(error)) from error
    return found


def _archive(stage: Stage) -> tuple[tuple[repository.Backup, ...], set[Segment]]:
    """The backups of the databases, and the segments of the log that are archived."""

    def find() -> tuple[tuple[repository.Backup, ...], set[Segment]]:
        plan, host = stage.plan, stage.host
        return repository.backups(plan, host), repository.archived(plan, host)

    try:
        found: tuple[tuple[repository.Backup, ...], set[Segment]]
        found = stage.notes.once("archive", find)
    except BundleError as error:
        raise Red(str(error)) from error
    return found


def _minutes(moment: datetime.datetime) -> float:
    return (datetime.datetime.now(datetime.timezone.utc) - moment).total_seconds() / 60


def _installed_minutes(stage: Stage) -> float:
    """How long there has been an installation: on its first day nothing can be late."""
    path = stage.host.path("site-id")
    return (time.time() - path.stat().st_mtime) / 60 if path.exists() else 0


def _running_minutes(stage: Stage) -> float:
    """How long the databases have been running: after a boot the first point takes its time too."""
    started = str(inspected(stage).get("postgres", {}).get("State", {}).get("StartedAt", ""))
    try:
        return _minutes(datetime.datetime.fromisoformat(f"{started[:19]}+00:00"))
    except ValueError:
        return 0


def backup_ledger(stage: Stage) -> list[str]:
    """Each line of the ledger follows the one before, and the audit log knows no newer one."""
    found = _read(stage)
    return [f"{len(found)} points"]


def backup_point(stage: Stage) -> list[str]:
    """The newest point is no older than a few intervals, and every row that names an object had it."""
    found, limit = _read(stage), max(PATIENCE * stage.plan.site.backup_every_minutes, GRACE_MINUTES)
    running = _running_minutes(stage)
    if not found:
        if min(_installed_minutes(stage), running) <= limit:
            return [f"none yet; the first comes within {stage.plan.site.backup_every_minutes} min"]
        raise Red("there is no recovery point")
    newest, age = found[-1], _minutes(found[-1].at)
    wrong = [f"{newest.id} is {age:.0f} minutes old"] if min(age, running) > limit else []
    wrong += [f"no object: {claim}" for claim in newest.missing[:5]]
    return settle(wrong, [f"{newest.id}, {age:.0f} minutes old, {newest.objects} objects"])


def backup_log(stage: Stage) -> list[str]:
    """No segment is missing in the archive from the oldest backup to the newest point; no backup has a bad page."""
    found, (known, there) = _read(stage), _archive(stage)
    newest = found[-1].segment if found else ""
    wrong = [f"segment {name} is missing" for name in repository.holes(there, known, newest)]
    wrong += [f"backup {b.label}: pages with a wrong checksum" for b in known if b.bad]
    return settle(wrong[:10], [f"{len(there)} segments, {len(known)} backups"])


def backup_proof(stage: Stage) -> list[str]:
    """A point was restored beside the live system in the last days."""
    proven = [point for point in _read(stage) if point.level >= points.PROVEN]
    if not proven:
        if _installed_minutes(stage) <= PROVEN_DAYS * 24 * 60:
            return ["none yet; the job does it weekly"]
        raise Red("no point was ever restored")
    newest = max(proven, key=lambda one: one.proven)
    age = _minutes(datetime.datetime.fromisoformat(newest.proven.replace("Z", "+00:00")))
    line = f"{newest.id}, L{newest.level}, {age / 1440:.1f} days ago"
    return settle([line] if age > PROVEN_DAYS * 1440 else [], [line])


def backup_copy(stage: Stage) -> list[str]:
    """The points are on another host too; moot while nobody but this host can reach the doors."""
    site = stage.plan.site
    if not site.backup_copy_to:
        if site.bind == LOOPBACK:
            raise Moot("bind")
        raise Red("backup.copy_to is not set")
    last = copies.last(stage.host)
    if last is None:
        raise Red("nothing was copied yet")
    age = _minutes(last.at)
    line = f"{last.point}, {age / 60:.1f} hours ago"
    return settle([line] if age > COPIED_HOURS * 60 else [], [line])


_MAKE = {
    "ko": "invoke backup를 실행하고, 실패하면 표시된 조치를 따르십시오 (invoke schedule --show).",
    "en": "Run invoke backup; when it fails, do what it says (invoke schedule --show).",
}


def _line(
    name: str, ko: str, en: str, probe: Callable[[Stage], list[str]], hint: dict[str, str]
) -> Check:
    needs = () if name == "backup-ledger" else ("backup-ledger",)
    return Check(
        id=name,
        group="operations",
        title={"ko": ko, "en": en},
        hint=hint,
        probe=probe,
        needs=needs,
        timeout=60,
    )


CHECKS = (
    _line(
        "backup-ledger",
        "백업 원장: 모든 줄이 이어지고 감사 로그보다 오래되지 않음",
        "Backup ledger: every line follows the one before, and is as new as the audit log knows",
        backup_ledger,
        {
            "ko": "docs/recovery.md의 '원장이 틀릴 때'를 따르십시오.",
            "en": "Go on by docs/recovery.md, 'when the ledger is wrong'.",
        },
    ),
    _line(
        "backup-point",
        "복구 시점이 최근이고, 행이 가리키는 객체가 모두 있음",
        "The newest recovery point is young, and every object that a row names is there",
        backup_point,
        _MAKE,
    ),
    _line(
        "backup-log",
        "데이터베이스 변경 기록이 빠짐없이 보관됨",
        "Every change of the databases is archived, without a hole",
        backup_log,
        {
            "ko": "invoke backup --full로 새 기준을 만들고 디스크를 점검하십시오.",
            "en": "Run invoke backup --full for a new base, and look at the disk.",
        },
    ),
    _line(
        "backup-proof",
        "복구 시점을 실제로 복구해 봄 (8일 이내)",
        "A recovery point was restored and compared in the last 8 days",
        backup_proof,
        {
            "ko": "invoke restore --scratch를 실행하십시오.",
            "en": "Run invoke restore --scratch.",
        },
    ),
    _line(
        "backup-copy",
        "백업 사본이 다른 호스트에 있음 (24시간 이내)",
        "A copy of the backups is on another host, of the last 24 hours",
        backup_copy,
        {
            "ko": "site.toml의 backup.copy_to를 지정하고 invoke backup을 실행하십시오.",
            "en": "Set backup.copy_to in site.toml, then run invoke backup.",
        },
    ),
)
