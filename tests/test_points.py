"""Points out of a ledger: which there are, which is meant, what is due and what may go."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from bundle import points
from bundle.errors import ConfigError
from bundle.words import choose
from tests.pointed import NOON, make_point

MINUTE = datetime.timedelta(minutes=1)
DAY = datetime.timedelta(days=1)


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose("")


def proof(point: str, level: int, *, good: bool = True) -> dict[str, Any]:
    at = f"2026-11-21T13:0{level}:00Z"
    return {"kind": "proof", "point": point, "level": level, "good": good, "at": at}


def test_point_is_the_same_after_the_ledger() -> None:
    point = make_point(3, missing=("model x: y",), seconds=1.25, claims=4)
    assert points.fold([points.record(point)]) == (point,)


def test_proofs_raise_a_level_and_a_failed_one_takes_all_of_it() -> None:
    first, second = points.record(make_point(1)), points.record(make_point(2))
    found = points.fold([first, second, proof("cp-1", 3), proof("cp-1", 1), proof("cp-9", 3)])
    assert [one.level for one in found] == [3, points.UNPROVEN]
    found = points.fold([first, proof("cp-1", 3), proof("cp-1", 0, good=False)])
    assert found[0].level == points.UNPROVEN
    assert points.fold([first, second, {"kind": "gone", "points": ["cp-1"]}])[0].id == "cp-2"


def test_point_is_chosen_by_name_or_time_and_never_guessed() -> None:
    known = [make_point(n, NOON + n * MINUTE) for n in (1, 2, 3)]
    assert points.chosen(known).id == "cp-3"
    assert points.chosen(known, "cp-2").id == "cp-2"
    assert points.chosen(known, to_time="2026-11-21T12:02:59+00:00").id == "cp-2"
    assert points.chosen(known, to_time="2026-11-21T21:02+09:00").id == "cp-2"
    assert points.chosen(known, to_time="2026-11-21T12:02:00Z").id == "cp-2"
    for wrong in (
        {"point": "cp-7"},
        {"to_time": "yesterday"},
        {"to_time": "2026-11-21T12:00:30+00:00"},
    ):
        with pytest.raises(ConfigError):
            points.chosen(known, **wrong)
    with pytest.raises(ConfigError, match="no recovery point"):
        points.chosen([])


@pytest.mark.parametrize(
    ("ages", "full", "kind"),
    [
        ({}, False, "full"),
        ({"F": 0}, False, ""),
        ({"F": 59}, False, ""),
        ({"F": 60}, False, "incr"),
        ({"F": 7 * 1440}, False, "full"),
        ({"F": 6 * 1440, "I": 10}, False, ""),
        ({"F": 6 * 1440, "I": 61}, False, "incr"),
        ({"F": 0}, True, "full"),
        ({"F": -60}, False, "incr"),  # the clock was set back
    ],
)
def test_backup_of_the_databases_is_made_when_it_is_due(
    ages: dict[str, int], full: bool, kind: str
) -> None:
    there = {f"20261121-00000{kind}": NOON - age * MINUTE for kind, age in ages.items()}
    assert points.due(there, NOON, database_minutes=60, full_days=7, full=full) == kind


def test_old_points_go_but_never_the_newest_nor_the_last_proven() -> None:
    known = [make_point(n, NOON - (10 - n) * DAY) for n in range(1, 6)]
    assert [one.id for one in points.may_go(known, NOON, 6)] == ["cp-1", "cp-2", "cp-3"]
    known[0] = make_point(1, known[0].at, level=3)
    known[1] = make_point(2, known[1].at, level=1)
    assert [one.id for one in points.may_go(known, NOON, 6)] == ["cp-3"]
    assert points.may_go(known[:1], NOON + 100 * DAY, 1) == ()
    assert points.may_go([], NOON, 1) == ()


def test_only_what_no_point_needs_is_let_go() -> None:
    old, new = make_point(1), make_point(2)
    assert points.unused([old], [new]) == ("config1",)
    anew = make_point(2, packs=(points.Pack(pack="p", index="i", sha256="", count=1, size=1),))
    assert points.unused([old], [anew]) == ("pack1", "index1", "config1")


def test_after_a_day_one_point_an_hour_stays() -> None:
    known = [make_point(n, NOON - 30 * 60 * MINUTE + n * 20 * MINUTE) for n in range(12)]
    fresh = [make_point(20 + n, NOON - (3 - n) * MINUTE) for n in range(3)]
    gone = {one.id for one in points.may_go([*known, *fresh], NOON, 14)}
    assert gone == {f"cp-{n}" for n in range(12) if n % 3}
