"""The lines that keep secrets safe: green on a right stage, red for a planted defect."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bundle import kit
from bundle.checks import CHECKS
from bundle.checks.model import Stage
from bundle.checks.runner import probe
from bundle.config import parse_site
from bundle.host import make_folder
from bundle.plan import make_plan
from tests.checks.safeties import SAFETY
from tests.checks.stages import containers, make_stage

BY_ID = {check.id: check for check in CHECKS}
assert set(SAFETY) <= set(BY_ID)
PROD = 'profile = "prod"\ndomain = "lab.internal"\nbind = "10.0.0.5"'


def production(root: Path, changed: dict[str, str] | None = None) -> Stage:
    """A stage of a site that calls itself prod; `changed` in what Phoenix runs with."""
    plan = make_plan(parse_site(PROD), site_id="0a1b2c3d", version="1.2.3")
    found = containers(plan)
    for service in plan.services:
        own = {**service.environment, **(changed or {})} if service.name == "phoenix" else None
        settings = service.environment if own is None else own
        found[service.name]["Config"] = {"Env": [f"{k}={v}" for k, v in settings.items()]}
    return dataclasses.replace(make_stage(root, inspect=found), plan=plan)


def test_safe_production_is_green(tmp_path: Path) -> None:
    assert probe(production(tmp_path), BY_ID["safe-profile"]).status == "passed"


def test_first_look_is_moot(tmp_path: Path) -> None:
    verdict = probe(make_stage(tmp_path), BY_ID["safe-profile"])
    assert verdict.status == "not_applicable"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"PHOENIX_ENABLE_AUTH": "false"}, "phoenix: PHOENIX_ENABLE_AUTH: authentication is off"),
        ({"PHOENIX_TELEMETRY_ENABLED": "true"}, "telemetry is on"),
    ],
)
def test_running_otherwise_is_red(tmp_path: Path, changed: dict[str, str], named: str) -> None:
    verdict = probe(production(tmp_path, changed), BY_ID["safe-profile"])
    assert verdict.status == "failed"
    assert named in "\n".join(verdict.evidence)


def noted(stage: Stage, **changed: object) -> None:
    """Remember a kit that was opened, some of its facts changed."""
    facts = {
        "sha256": "ab" * 32,
        "file": "a.kit",
        "made": "2026-11-21T00:00:00+00:00",
        "recipients": ("CN=first",),
        "contents": kit.contents(stage.host),
        "root_key": True,
        "tested": "2026-11-21T00:01:00+00:00",
    }
    kit.note(stage.host, kit.Made(**(facts | changed)))  # type: ignore[arg-type]


def test_kit_that_is_enough_is_green(tmp_path: Path) -> None:
    stage = production(tmp_path)
    noted(stage)
    assert probe(stage, BY_ID["safe-kit"]).status == "passed"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"contents": "other"}, "is stale"),
        ({"tested": ""}, "never been opened"),
        ({"root_key": False}, "lacks the root's key"),
        (None, "none: "),
    ],
)
def test_kit_that_is_not_enough_is_red(
    tmp_path: Path, changed: dict[str, object] | None, named: str
) -> None:
    stage = production(tmp_path)
    if changed is not None:
        noted(stage, **changed)
    verdict = probe(stage, BY_ID["safe-kit"])
    assert verdict.status == "failed"
    assert named in verdict.evidence[0]


def test_rotation_under_way_is_red(tmp_path: Path) -> None:
    stage = production(tmp_path)
    noted(stage)
    make_folder(tmp_path / "secrets/next", 0o700)
    (tmp_path / "secrets/next/DB_MLFLOW").write_text("new")
    assert "a rotation is under way" in probe(stage, BY_ID["safe-kit"]).evidence[0]


def test_kit_is_moot_while_only_this_host_gets_in(tmp_path: Path) -> None:
    assert probe(make_stage(tmp_path), BY_ID["safe-kit"]).status == "not_applicable"
