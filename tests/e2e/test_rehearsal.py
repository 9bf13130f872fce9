"""The main job: nothing but the bundle file goes into a closed host, and a proven stack comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bundle import browse, rehearse
from bundle.checks.stage import EXPERIMENT
from bundle.errors import CommandError
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(900)


def test_host_was_closed_and_empty(stack: Stack) -> None:
    assert stack.record["openings"] == []
    assert stack.record["before"] == ["root/.bashrc", "root/.profile"]


def test_only_the_bundle_went_in(stack: Stack) -> None:
    brought = [path.name for path in (stack.host.root / "media").rglob("*")]
    assert brought == [stack.sealed.path.name]


def test_stack_has_no_way_out(stack: Stack) -> None:
    links = stack.host.run(["cat", "/run/closed/links-at-boot"], timeout=20).splitlines()
    assert [link.split(":")[1].strip() for link in links] == ["lo"]
    assert stack.host.run(["ip", "route", "show", "default"], timeout=20) == ""


def test_verify_is_green(stack: Stack) -> None:
    stack.invoke("verify", timeout=300)
    report = json.loads((stack.root / "reports/verify.json").read_text("utf-8"))
    assert report["complete"] is True
    assert report["summary"]["failed"] == 0
    assert report["summary"]["passed"] > 0


def test_second_install_changes_nothing(stack: Stack) -> None:
    before = stack.containers()
    stack.invoke("install", "--yes", timeout=300)
    assert stack.containers() == before


def test_pages_open_in_a_browser(stack: Stack, tmp_path: Path) -> None:
    stack.invoke("verify", timeout=300)
    seen = browse.look(stack.host, rehearse.PRODUCT_ROOT, tmp_path, experiment=EXPERIMENT)
    assert [line.split(":")[0] for line in seen.splitlines()] == list(browse.SIGHTS)


def test_comes_back_after_a_power_cut(stack: Stack) -> None:
    before = set(stack.containers())
    stack.host.power_cut()
    stack.up()
    assert set(stack.containers()) == before
    stack.invoke("verify", timeout=300)


def test_bootstrap_refuses_another_key(stack: Stack) -> None:
    place = f"{rehearse.MEDIUM}/{stack.sealed.path.name}"
    stack.host.run(["tar", "-xf", place, "--occurrence=1", "bootstrap.sh"], timeout=60, cwd="/tmp")
    with pytest.raises(CommandError, match="exit code 5"):
        stack.host.run(
            ["sh", "bootstrap.sh", place, "--fingerprint", "0" * 64], timeout=60, cwd="/tmp"
        )
