"""What a benchmark finds: figures with their goals, as values, as a table and as bench-<name>.json.

Every `invoke bench.<name>` uses this frame. A figure that could not be measured says why and has no number.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.console import table
from bundle.host import write_file
from bundle.run import log
from bundle.words import say

PAIRS = 5
HEAD = (
    ("figure", "항목"),
    ("median", "중앙값"),
    ("spread", "범위"),
    ("goal", "목표"),
    ("met", "달성"),
    ("against", "비교 대상"),
)
Reduce = Callable[[Sequence[float]], float]
Arm = Callable[[], float]
"""One side of a comparison: does its work once and returns the seconds that it took."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A row of the table before it is measured; `goal` is the most that it may be, None where nothing is demanded."""

    name: str
    unit: str
    against: str = ""
    goal: float | None = None

    def measured(
        self, samples: Sequence[float], *, reduce: Reduce = statistics.median, note: str = ""
    ) -> Figure:
        """The figure out of its samples: their median, unless `reduce` says otherwise (the highest, of a peak)."""
        return Figure(wanted=self, value=reduce(samples), samples=tuple(samples), note=note)

    def ratio(self, ours: Sequence[float], theirs: Sequence[float], *, note: str = "") -> Figure:
        """The median of the ratios of pairs that were run side by side."""
        pairs = tuple(zip(ours, theirs, strict=True))
        samples = tuple(our / their for our, their in pairs)
        value = statistics.median(samples)
        return Figure(wanted=self, value=value, samples=samples, pairs=pairs, note=note)

    def missing(self, why: str) -> Figure:
        """The row of a figure that could not be measured."""
        return Figure(
            wanted=self, value=None, note=f"{say('not measured', '측정하지 못함')}: {why}"
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row of the table: its value and every sample; of a ratio also the seconds of each pair (ours, theirs)."""

    wanted: Wanted
    value: float | None
    samples: tuple[float, ...] = ()
    pairs: tuple[tuple[float, float], ...] = ()
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal is reached; without a number it is not, without a goal nothing is missed."""
        goal = self.wanted.goal
        return goal is None or (self.value is not None and self.value <= goal)

    def as_json(self) -> dict[str, Any]:
        """The figure in the form of bench-<name>.json."""
        kept: dict[str, Any] = {
            "name": self.wanted.name,
            "value": None if self.value is None else round(self.value, 3),
            "unit": self.wanted.unit,
            "against": self.wanted.against,
            "goal": self.wanted.goal,
            "met": self.met,
            "samples": [round(sample, 3) for sample in self.samples],
        }
        if self.pairs:
            kept["pairs_seconds"] = [[round(one, 3) for one in pair] for pair in self.pairs]
        return {**kept, "note": self.note} if self.note else kept


def interleave(arms: Mapping[str, Arm], rounds: int) -> dict[str, list[float]]:
    """Run every arm once a round, every other round backwards, so that a machine that gets slower harms all alike."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        order = list(arms) if number % 2 == 0 else list(arms)[::-1]
        for name in order:
            found[name].append(arms[name]())
            log.info("    %d/%d  %-28s %7.2f s", number + 1, rounds, name, found[name][-1])
    return found


def machine() -> str:
    """What the seconds are of."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"


def verdict(figure: Figure) -> str:
    """Met, missed, or that nothing is demanded."""
    if figure.wanted.goal is None:
        return "–"
    if figure.value is None:
        return say("✗ not measured", "✗ 측정 못 함")
    return say("✓ met", "✓ 달성") if figure.met else say("✗ MISSED", "✗ 미달")


def amount(value: float | None, unit: str = "") -> str:
    """A number as the table shows it; nothing where there is none."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def as_table(figures: Sequence[Figure], footnotes: Sequence[str] = ()) -> str:
    """The table, what is to be said of its rows, and the footnotes."""
    rows = [
        (
            figure.wanted.name,
            amount(figure.value, figure.wanted.unit),
            _spread(figure),
            "–" if figure.wanted.goal is None else f"≤ {figure.wanted.goal:g}",
            verdict(figure),
            figure.wanted.against,
        )
        for figure in figures
    ]
    head = [say(*words) for words in HEAD]
    notes = [f"  {figure.wanted.name}: {figure.note}" for figure in figures if figure.note]
    return "\n".join([table(head, rows), *_block(notes), *_block(footnotes)])


def _spread(figure: Figure) -> str:
    if len(figure.samples) < 2:
        return "–"
    return f"{amount(min(figure.samples))}–{amount(max(figure.samples))} (n={len(figure.samples)})"


def _block(lines: Sequence[str]) -> list[str]:
    return ["", *lines] if lines else []


def write_report(name: str, figures: Sequence[Figure], folder: Path, **more: Any) -> Path:
    """Write bench-<name>.json into `folder`; returns its path."""
    now = datetime.datetime.now(datetime.timezone.utc)
    report = {
        "date": now.isoformat(timespec="seconds"),
        "machine": machine(),
        **more,
        "figures": [figure.as_json() for figure in figures],
    }
    path = folder / f"bench-{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
    return path
