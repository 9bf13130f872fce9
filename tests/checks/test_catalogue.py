"""The checklist and the code name the same lines, and every line is complete."""

from __future__ import annotations

import re

import pytest

from bundle.checks import CHECKS
from bundle.checks.catalogue import chosen
from bundle.checks.checklist import PATH, read
from bundle.checks.model import GROUPS, Check
from bundle.errors import ConfigError

TEXT = PATH.read_text(encoding="utf-8")
SEEDS = 13


def test_checklist_and_checks_agree_both_ways() -> None:
    assert read(TEXT) == [
        (c.id, c.group, c.title) for group in GROUPS for c in CHECKS if c.group == group
    ]


def test_every_original_line_names_lines_that_exist_or_says_that_it_is_not_checked() -> None:
    rows = TEXT.partition("\n## ")[2].partition("\n## ")[0].splitlines()
    lines = [row for row in rows if row.startswith("| ") and "---" not in row][1:]
    assert len(lines) == SEEDS
    known = {check.id for check in CHECKS}
    for line in lines:
        named = re.findall(r"`([^`]+)`", line.rsplit("|", 2)[1])
        assert set(named) <= known
        assert named or "not checked yet" in line


def test_ids_are_unique_and_stable_in_form() -> None:
    names = [check.id for check in CHECKS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) for name in names)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_line_is_complete(check: Check) -> None:
    assert set(check.title) == set(check.hint) == {"ko", "en"}
    assert re.search("[가-힣]", check.hint["ko"])
    assert check.hint["en"].endswith(".")
    assert check.hint["ko"].endswith(".")
    assert not check.title["en"].endswith(".")
    assert not {"|", "\n"} & set("".join(check.title.values()))
    assert set(check.needs) <= {other.id for other in CHECKS}
    assert 0 < check.timeout <= 90


def test_needs_have_an_order() -> None:
    by_id = {check.id: check for check in CHECKS}

    def depth(check: Check, seen: tuple[str, ...] = ()) -> int:
        assert check.id not in seen
        return 1 + max((depth(by_id[need], (*seen, check.id)) for need in check.needs), default=0)

    assert max(map(depth, CHECKS)) == 3


def test_only_brings_what_it_needs() -> None:
    found = [check.id for check in chosen(("store-phoenix-db",))]
    assert found == ["store-phoenix-db", "run-log", "run-phoenix-http", "run-phoenix-grpc"]
    assert chosen(()) == CHECKS


def test_unknown_ids_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(("svc-mlflw", "zzz", "svc-minio"))
    first, second = caught.value.problems
    assert first.hint == "Did you mean svc-mlflow?"
    assert "Known:" in second.hint
