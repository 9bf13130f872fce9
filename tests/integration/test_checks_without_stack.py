"""Verify where nothing runs: every line is red with a reason, none hangs, and the report is written all the same."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from bundle import checks
from bundle.checks import CHECKS
from bundle.engine import Engine
from bundle.host import Host
from tests.checks.stages import make_release, make_test_plan


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning"
)  # the engine's SDK, when nothing answers
def test_everything_is_red_without_an_engine(tmp_path: Path) -> None:
    plan = make_test_plan()
    host = Host(root=tmp_path, engine=Engine(host=f"unix://{tmp_path}/no.sock"))
    report = checks.verify(plan, host, make_release(plan))
    assert report.complete
    assert [result.id for result in report.results] == [check.id for check in CHECKS]
    moot = [result.id for result in report.results if result.status == "not_applicable"]
    # Of a bundle without extras, and of a site that is no production and that nobody else reaches.
    assert sorted(moot) == ["extra-files", "extra-services", "safe-kit", "safe-profile"]
    assert report.failed == len(CHECKS) - len(moot)
    for result in report.results:
        assert "".join(result.evidence).strip()
        assert result.hint or result.id in moot
        assert "no answer within" not in result.evidence[0]
    gc.collect()
    written = json.loads((tmp_path / "reports/verify.json").read_text("utf-8"))
    assert written["summary"] == {
        "passed": 0,
        "failed": len(CHECKS) - len(moot),
        "not_applicable": len(moot),
    }
