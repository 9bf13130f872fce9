"""What lies in an archive of write-ahead log, by the names of its files: segments, timelines, and what is missing.

No command of pgBackRest sees a hole: a restore to the end would lose everything after it without a word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

SEGMENT = re.compile(r"(?:^|/)([0-9A-F]{24})-[0-9a-f]{40}(?:\.[a-z0-9]+)?\Z")
SEGMENTS_A_FILE = 0x100
"""Segments of 16 MiB in one number of the log: the last eight digits go from 0 to FF."""


@dataclass(frozen=True, order=True)
class Segment:
    """One segment: its timeline, and its place in the log."""

    timeline: int
    number: int

    @classmethod
    def of(cls, name: str) -> Segment:
        """The segment that is called `name` (24 hexadecimal digits).

        Raises ValueError for another text.
        """
        if not re.fullmatch(r"[0-9A-F]{24}", name):
            raise ValueError(f"{name!r} is no segment of the log")
        log, place = int(name[8:16], 16), int(name[16:], 16)
        return cls(int(name[:8], 16), log * SEGMENTS_A_FILE + place)

    @property
    def name(self) -> str:
        """Its name."""
        log, place = divmod(self.number, SEGMENTS_A_FILE)
        return f"{self.timeline:08X}{log:08X}{place:08X}"


def segments(paths: Iterable[str]) -> set[Segment]:
    """The whole segments among the files of an archive."""
    found = (SEGMENT.search(path) for path in paths)
    return {Segment.of(match[1]) for match in found if match}


def missing(there: set[Segment], start: Segment, needed: Iterable[Segment] = ()) -> list[Segment]:
    """The segments that are not there, from `start` to the newest of each timeline, and those that are `needed`.

    A later timeline begins right after the one before it, or earlier.
    """
    lines: dict[int, set[int]] = defaultdict(set)
    for segment in {*there, *needed, start}:
        if segment >= start:
            lines[segment.timeline].add(segment.number)
    gone, reached = [], start.number - 1
    for timeline, numbers in sorted(lines.items()):
        wanted = range(min(*numbers, reached + 1), max(numbers) + 1)
        gone += [one for n in wanted if (one := Segment(timeline, n)) not in there]
        reached = max(numbers)
    return gone
