"""The table of faults in docs/trust.md: every fault is there, with its exit code and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<code>\d) \| (?P<tests>[^|]+) \|$", re.MULTILINE)
ROWS = TABLE.findall((TESTS.parent / "docs/trust.md").read_text("utf-8"))
KINDS = (
    *("flipped bit", "cut off", "extra", "swapped", "renamed", "doubled", "link", "`../`"),
    *("absolute path", "10 GB", "300 MB", "of another bundle", "another key", "older", "expired"),
    *("parts of two bundles", "part missing", "in another's place", "wrong base", "disk full"),
    *("killed", "registry down", "login refused", "foreign certificate", "passphrase"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_fault_is_in_the_table(kind: str) -> None:
    assert [fault for fault, _, _ in ROWS if kind in fault]


def test_every_named_test_exists() -> None:
    named = {name for _, _, tests in ROWS for name in re.findall(r"`(test_\w+)`", tests)}
    assert all("`test_" in tests for _, _, tests in ROWS)
    there = {
        name
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)
    }
    assert not named - there
