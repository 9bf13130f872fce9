"""The other layout: a name for each tracker and one port, on the installation that was made with ports; and back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(600)
LAYOUT = 'domain = "closed.internal"\nlayout = "names"\n[ports]\nportal = 9443\n'


@pytest.fixture
def named(stack: Stack) -> Iterator[Stack]:
    """The stack with a name for each tracker."""
    site = stack.root / "site.toml"
    before = site.read_text("utf-8")
    try:
        site.write_text(LAYOUT, "utf-8")
        stack.invoke("install", "--yes", timeout=300)
        yield stack
    finally:
        site.write_text(before, "utf-8")
        stack.invoke("install", "--yes", timeout=300)


def test_every_line_is_green_with_a_name_for_each_tracker(named: Stack) -> None:
    named.invoke("verify", timeout=300)
    report = json.loads((named.root / "reports/verify.json").read_text("utf-8"))
    assert report["summary"]["failed"] == 0
    evidence = json.dumps(report["results"])
    assert "https://mlflow.closed.internal:9443" in evidence
    assert "https://phoenix.closed.internal:9443" in evidence
    listening = named.host.run(["ss", "-tlnH"], timeout=20)
    assert ":9443" in listening
    assert ":844" not in listening
