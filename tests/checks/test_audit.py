"""The lines of the audit log: green on a right one, red for a planted defect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundle import audit, auditlog
from bundle.checks import CHECKS
from bundle.checks.model import Stage
from bundle.checks.runner import Verdict, probe
from bundle.config import parse_site
from bundle.plan import make_plan
from tests.checks.stages import make_stage

BY_ID = {check.id: check for check in CHECKS}
HOURS = 3600


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(os, "chown", lambda *_: None)  # only root may give files away
    made = make_stage(tmp_path / "root")
    auditlog.prepare(made.host, 10005)
    for number in range(3):
        auditlog.append(made.host, [{"at": "t", "kind": "task", "what": str(number)}])
    return made


def look(stage: Stage, name: str) -> Verdict:
    return probe(stage, BY_ID[name])


def with_site(stage: Stage, text: str) -> Stage:
    site = parse_site(f'domain = "lab.internal"\n{text}')
    plan = make_plan(site, site_id="0a1b2c3d", version="1.2.3")
    return Stage(plan=plan, host=stage.host, release=stage.release, store={}, notes=stage.notes)


def aged(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_whole_log_is_green(stage: Stage) -> None:
    verdict = look(stage, "audit-chain")
    assert verdict.status == "passed"
    assert verdict.evidence[0].startswith("lines 1 to 3, sha256 ")


def test_changed_line_is_red_by_its_number(stage: Stage) -> None:
    path = auditlog.files(stage.host)[0]
    path.write_bytes(path.read_bytes().replace(b'"what":"1"', b'"what":"2"'))
    verdict = look(stage, "audit-chain")
    assert verdict.status == "failed"
    assert "line 2 was changed" in verdict.evidence[0]


def test_log_or_key_that_is_gone_is_red(stage: Stage, tmp_path: Path) -> None:
    assert look(make_stage(tmp_path / "other"), "audit-chain").status == "failed"
    auditlog.key_file(stage.host).unlink()
    assert "audit.key" in look(stage, "audit-chain").evidence[0]


def test_lines_that_nobody_collects_are_red(stage: Stage) -> None:
    path = auditlog.folder(stage.host, auditlog.SPOOL, "2999-01-01T10.jsonl")
    path.write_bytes(b"{}\n")
    assert look(stage, "audit-chain").status == "passed"
    aged(path, 2 * HOURS)
    assert "wait since" in look(stage, "audit-chain").evidence[0]
    audit.collect(stage.host)
    assert look(stage, "audit-chain").status == "passed"
    aged(auditlog.folder(stage.host, "state.json"), 2 * HOURS)
    assert "wait since" in look(stage, "audit-chain").evidence[0]


def test_head_that_stays_here_is_red_as_soon_as_others_reach_the_doors(stage: Stage) -> None:
    assert look(stage, "audit-head").status == "not_applicable"
    verdict = look(with_site(stage, 'bind = "10.0.0.5"'), "audit-head")
    assert verdict.status == "failed"
    assert "audit.folder" in verdict.evidence[0]


def test_copied_head_is_green_until_it_is_too_old(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    mine = with_site(stage, f'bind = "10.0.0.5"\naudit.folder = "{tmp_path}/share"')
    assert "no head has been copied" in look(mine, "audit-head").evidence[0]
    audit.copy_head(mine.host, mine.plan.site)
    assert look(mine, "audit-head").status == "passed"
    aged(auditlog.folder(mine.host, "copied.json"), 2 * HOURS)
    assert "line 3 was the last one" in look(mine, "audit-head").evidence[0]


def test_log_that_is_shorter_than_the_copied_head_is_red(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    mine = with_site(stage, f'audit.folder = "{tmp_path}/share"')
    audit.copy_head(mine.host, mine.plan.site)
    path = auditlog.files(stage.host)[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert "cut off after line 2" in look(mine, "audit-chain").evidence[0]
