"""Order of versions as each world of packages has it: Debian's, Python's, Go's. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version


def compare_debian(one: str, other: str) -> int:
    """-1, 0 or 1, as dpkg --compare-versions has it."""
    for a, b in zip(_debian_parts(one), _debian_parts(other), strict=True):
        if order := _compare_part(a, b):
            return order
    return 0


def _debian_parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.strip().partition(":")
    if not colon:
        epoch, rest = "0", version.strip()
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch, upstream, revision


def _weight(letter: str) -> int:
    if letter == "~":
        return -1
    if not letter or letter.isdigit():
        return 0
    return ord(letter) if letter.isalpha() else ord(letter) + 256


def _compare_part(one: str, other: str) -> int:
    """Runs of letters and runs of digits in turn; a tilde sorts before the end."""
    while one or other:
        a, b = re.match(r"\D*", one), re.match(r"\D*", other)
        assert a is not None
        assert b is not None
        for place in range(max(len(a[0]), len(b[0]))):
            x, y = _weight(a[0][place : place + 1]), _weight(b[0][place : place + 1])
            if x != y:
                return -1 if x < y else 1
        one, other = one[len(a[0]) :], other[len(b[0]) :]
        a, b = re.match(r"\d*", one), re.match(r"\d*", other)
        assert a is not None
        assert b is not None
        m, n = int(a[0] or 0), int(b[0] or 0)
        if m != n:
            return -1 if m < n else 1
        one, other = one[len(a[0]) :], other[len(b[0]) :]
    return 0


def compare_go(one: str, other: str) -> int:
    """-1, 0 or 1 by semantic versioning, with or without the v; Go's own go1.2rc3 and 1.2rc3 count as 1.2.0-rc.3."""
    (a, first), (b, second) = _semantic(one), _semantic(other)
    if a != b:
        return -1 if a < b else 1
    if first == second:
        return 0
    if not first or not second:
        return 1 if not first else -1
    return _compare_identifiers(first, second)


def _semantic(version: str) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    plain = version.strip().removeprefix("go").removeprefix("v").partition("+")[0]
    if match := re.fullmatch(r"(\d+(?:\.\d+)*)(rc|beta)(\d+)", plain):
        plain = f"{match[1]}-{match[2]}.{match[3]}"
    core, _, before = plain.partition("-")
    numbers = [int(part) if part.isdigit() else 0 for part in core.split(".")[:3]]
    numbers += [0] * (3 - len(numbers))
    return (numbers[0], numbers[1], numbers[2]), tuple(before.split(".")) if before else ()


def _compare_identifiers(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    def key(parts: tuple[str, ...]) -> list[tuple[int, int, str]]:
        return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]

    a, b = key(one), key(other)
    return (a > b) - (a < b)


def compare_python(one: str, other: str) -> int:
    """-1, 0 or 1 by PEP 440; what is no version of it sorts first."""

    def key(text: str) -> Version:
        try:
            return Version(text)
        except InvalidVersion:
            return Version("0.dev0")

    a, b = key(one), key(other)
    return (a > b) - (a < b)


COMPARE: dict[str, Callable[[str, str], int]] = {
    "Debian": compare_debian,
    "Go": compare_go,
    "PyPI": compare_python,
}


def sort_key(ecosystem: str) -> Callable[[str], object]:
    """A key for sorted() by the ecosystem's order."""
    return functools.cmp_to_key(COMPARE[ecosystem])


def is_affected(affected: Mapping[str, Any], version: str, ecosystem: str) -> bool:
    """True when an `affected` entry of a OSV record covers `version`."""
    if version in affected.get("versions", ()):
        return True
    ranges = (r for r in affected.get("ranges", ()) if r.get("type") in ("ECOSYSTEM", "SEMVER"))
    return any(_in_range(one.get("events", ()), version, ecosystem) for one in ranges)


def _in_range(events: Any, version: str, ecosystem: str) -> bool:
    """OSV's own evaluation: go through the events in the order of their versions, and see what the last one says."""
    compare, key = COMPARE[ecosystem], sort_key(ecosystem)
    steps = [(kind, str(at)) for event in events for kind, at in event.items()]
    limits = [at for kind, at in steps if kind == "limit" and at != "*"]
    if limits and not any(compare(version, limit) < 0 for limit in limits):
        return False
    found = False
    ordered = sorted(
        (step for step in steps if step[0] != "limit"),
        key=lambda step: (step[1] != "0", key(step[1])),
    )
    for kind, at in ordered:
        order = 1 if at == "0" else compare(version, at)
        if kind == "introduced" and order >= 0:
            found = True
        elif (kind == "fixed" and order >= 0) or (kind == "last_affected" and order > 0):
            found = False
    return found
