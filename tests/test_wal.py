"""Holes in an archive of the log, by the names of its files."""

from __future__ import annotations

import random

import pytest

from bundle.wal import Segment, missing, segments

TAIL = "-0123456789abcdef0123456789abcdef01234567.zst"


def line(timeline: int, *numbers: int) -> set[Segment]:
    return {Segment(timeline, number) for number in numbers}


def test_name_and_place_are_the_same_thing() -> None:
    for name in (
        "000000010000000000000001",
        "0000000200000003000000FF",
        "0000000A0000000400000000",
    ):
        assert Segment.of(name).name == name
    assert (
        Segment.of("0000000100000001000000FF").number + 1
        == Segment.of("000000010000000200000000").number
    )


@pytest.mark.parametrize("name", ["", "00000001000000000000001", "00000001000000000000000G", "x"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no segment"):
        Segment.of(name)


def test_only_whole_segments_are_taken_from_a_list() -> None:
    found = segments(
        [
            f"17-1/0000000100000000/000000010000000000000003{TAIL}",
            "17-1/0000000100000000/000000010000000000000004.partial" + TAIL,
            "17-1/0000000100000000/000000010000000000000003.00000028.backup",
            "17-1/00000002.history",
            "archive.info",
        ]
    )
    assert found == line(1, 3)


def test_log_without_a_hole() -> None:
    assert missing(line(1, 3, 4, 5), Segment(1, 3)) == []
    assert missing(line(1, 1, 3, 4), Segment(1, 3)) == []  # what is older is nobody's business


def test_each_segment_that_is_taken_away_is_named(rng: random.Random) -> None:
    whole = line(1, *range(10, 400))
    for _ in range(50):
        gone = Segment(1, rng.randrange(10, 399))  # the newest could be the one that is to come
        assert missing(whole - {gone}, Segment(1, 10)) == [gone]


def test_what_is_needed_is_missed_at_the_end_too() -> None:
    assert missing(line(1, 3, 4), Segment(1, 3), [Segment(1, 6)]) == [Segment(1, 5), Segment(1, 6)]
    assert missing(set(), Segment(1, 3)) == [Segment(1, 3)]


def test_later_timeline_goes_on_where_the_one_before_ended_or_earlier() -> None:
    assert missing(line(1, 3, 4, 5) | line(2, 6, 7), Segment(1, 3)) == []
    assert missing(line(1, 3, 4, 5) | line(2, 4, 5), Segment(1, 3)) == []
    assert missing(line(1, 3, 4, 5) | line(2, 7), Segment(1, 3)) == [Segment(2, 6)]
    assert missing(line(1, 3, 5) | line(2, 5), Segment(1, 3)) == [Segment(1, 4)]
    assert missing(line(1, 3) | line(2, 4, 6) | line(3, 6, 7), Segment(2, 4)) == [Segment(2, 5)]
