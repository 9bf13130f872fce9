"""The lines of the backups: green on right ones, red for a planted defect."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from bundle import auditlog, copies, ledger, points
from bundle.checks import CHECKS
from bundle.checks.model import Stage
from bundle.checks.runner import Verdict, probe
from bundle.config import parse_site
from bundle.plan import make_plan
from bundle.points import Point
from bundle.repository import Backup
from bundle.wal import Segment
from tests.checks.stages import make_stage
from tests.pointed import make_point

BY_ID = {check.id: check for check in CHECKS}
DAY = 86400


def now(seconds: float = 0) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    made = make_stage(tmp_path / "root")
    auditlog.prepare(made.host, 10005)
    made.host.path("site-id").write_text("0a1b2c3d\n")
    return made


def write(stage: Stage, *made: Point) -> None:
    for point in made:
        ledger.append(stage.host, stage.plan.site, points.record(point))


def prove(stage: Stage, point: str, level: int, age: float) -> None:
    at = now(age).isoformat()
    note = {"kind": "proof", "point": point, "level": level, "good": True, "at": at}
    ledger.append(stage.host, stage.plan.site, note)


def look(stage: Stage, name: str) -> Verdict:
    stage.notes.found.pop("points", None)
    return probe(stage, BY_ID[name])


def age_installation(stage: Stage, seconds: float) -> None:
    then = now(seconds).timestamp()
    os.utime(stage.host.path("site-id"), (then, then))


def test_ledger_is_green_until_a_line_is_changed(stage: Stage) -> None:
    write(stage, make_point(1), make_point(2))
    assert look(stage, "backup-ledger").status == "passed"
    path = next(ledger.folder(stage.host, stage.plan.site).glob("*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b"cp-1", b"cp-3"))
    assert look(stage, "backup-ledger").status == "failed"


def test_young_point_is_green_a_late_one_red(stage: Stage) -> None:
    write(stage, make_point(1, now(600)))
    assert look(stage, "backup-point").status == "passed"
    write(stage, make_point(2, now(970)))
    verdict = look(stage, "backup-point")
    assert verdict.status == "failed"
    assert "cp-2 is 16 minutes old" in verdict.evidence[0]


def test_after_a_boot_nothing_is_late_at_once(stage: Stage) -> None:
    write(stage, make_point(1, now(2 * DAY)))
    assert look(stage, "backup-point").status == "failed"
    found, _ = stage.notes.found["inspect"]
    found["postgres"]["State"]["StartedAt"] = f"{now(60):%Y-%m-%dT%H:%M:%S}.123456789Z"
    assert look(stage, "backup-point").status == "passed"


def test_on_the_first_minutes_nothing_is_late(stage: Stage) -> None:
    assert look(stage, "backup-point").status == "passed"
    assert look(stage, "backup-proof").status == "passed"
    age_installation(stage, 3600)
    assert look(stage, "backup-point").status == "failed"
    assert look(stage, "backup-proof").status == "passed"
    age_installation(stage, 9 * DAY)
    assert look(stage, "backup-proof").status == "failed"


def test_row_without_its_object_is_red(stage: Stage) -> None:
    write(stage, make_point(1, now(), missing=("model m-1: mlflow-artifacts/1/models/m-1/",)))
    verdict = look(stage, "backup-point")
    assert verdict.status == "failed"
    assert "m-1" in verdict.evidence[0]


def archive(*numbers: int, bad: bool = False) -> tuple[tuple[Backup, ...], set[Segment]]:
    first = Segment(1, 1).name
    made = Backup(
        label="20261121-110000F", at=now(), start=first, stop=first, size=1, stored=1, bad=bad
    )
    return (made,), {Segment(1, number) for number in numbers}


def test_hole_in_the_log_or_a_bad_page_is_red(stage: Stage) -> None:
    write(stage, make_point(4, now()))
    for planted, status in (
        (archive(1, 2, 3, 4), "passed"),
        (archive(1, 2, 4), "failed"),
        (archive(1, 2, 3), "failed"),  # the newest point's own
        (archive(1, 2, 3, 4, bad=True), "failed"),
    ):
        stage.notes.found["archive"] = planted, None
        assert look(stage, "backup-log").status == status


def test_point_that_was_restored_lately_is_green(stage: Stage) -> None:
    write(stage, make_point(1, now()))
    age_installation(stage, 20 * DAY)
    prove(stage, "cp-1", 1, 60)
    assert look(stage, "backup-proof").status == "failed"
    prove(stage, "cp-1", 3, 9 * DAY)
    assert look(stage, "backup-proof").status == "failed"
    prove(stage, "cp-1", 3, 60)
    assert look(stage, "backup-proof").status == "passed"


def test_copy_must_be_somewhere_else_and_young(stage: Stage) -> None:
    assert look(stage, "backup-copy").status == "not_applicable"
    site = parse_site('domain = "lab.internal"\nbind = "10.0.0.5"')
    plan = make_plan(site, site_id="0a1b2c3d", version="1.2.3")
    open_one = Stage(plan=plan, host=stage.host, release=stage.release, store={})
    assert "backup.copy_to is not set" in look(open_one, "backup-copy").evidence[0]
    text = 'domain = "lab.internal"\nbind = "10.0.0.5"\n[backup]\ncopy_to = "/mnt/other"'
    plan = make_plan(parse_site(text), site_id="0a1b2c3d", version="1.2.3")
    mine = Stage(plan=plan, host=stage.host, release=stage.release, store={})
    assert look(mine, "backup-copy").status == "failed"
    for age, status in ((3600, "passed"), (2 * DAY, "failed")):
        note = {"point": "cp-1", "at": now(age).isoformat()}
        stage.host.path(copies.NOTE).write_text(json.dumps(note))
        assert look(mine, "backup-copy").status == status
