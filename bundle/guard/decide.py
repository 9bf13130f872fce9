"""Who may pass: the deny list of the site, and a lock on whoever fails too often. Pure, but for the given clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "unknown"
FAILURES = 20
"""So many wrong passwords for one name from one address …"""
WINDOW_S = 300.0
"""… within this time lock that name for that address, for as long."""
KNOWN_S = 30.0
"""So long the guard remembers whose credential it is; the deny list is looked at for each request."""
MOST = 10_000
"""Entries of a table; the oldest go first."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What nginx is told: 200 (go on), 401 (wrong password) or 403 with the reason (disabled, locked)."""

    status: int
    who: str = UNKNOWN
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a tracker said of a credential: its names there (name, address), or that it is wrong; neither: no answer."""

    names: tuple[str, ...] = ()
    wrong: bool = False

    @property
    def who(self) -> str:
        """The name, or `unknown`: it is never guessed."""
        return self.names[0] if self.names else UNKNOWN


@dataclass(kw_only=True)
class Known:
    """Whose credentials the last ones were, by their digest."""

    clock: Callable[[], float]
    rows: OrderedDict[bytes, tuple[float, Found]] = field(default_factory=OrderedDict)

    def get(self, key: bytes) -> Found | None:
        """What is known of a credential, unless that is too old."""
        until, found = self.rows.get(key, (0.0, None))
        return found if until > self.clock() else None

    def put(self, key: bytes, found: Found) -> None:
        """Remember whose credential it is; what is not known is asked again."""
        if found.names:
            self.rows[key] = (self.clock() + KNOWN_S, found)
            self.rows.move_to_end(key)
            trim(self.rows)


@dataclass(kw_only=True)
class Locks:
    """Wrong passwords by (name, address), and until when that pair is locked."""

    clock: Callable[[], float]
    rows: OrderedDict[tuple[str, str], tuple[int, float]] = field(default_factory=OrderedDict)

    def locked(self, name: str, source: str) -> bool:
        """Whether this name is locked for this address."""
        failed, until = self.rows.get((name, source), (0, 0.0))
        return failed >= FAILURES and until > self.clock()

    def failed(self, name: str, source: str) -> None:
        """Count a wrong password."""
        failed, until = self.rows.pop((name, source), (0, 0.0))
        failed = failed + 1 if until > self.clock() else 1
        self.rows[name, source] = (failed, self.clock() + WINDOW_S)
        trim(self.rows)

    def passed(self, name: str, source: str) -> None:
        """A right password ends the count."""
        self.rows.pop((name, source), None)


def trim(rows: OrderedDict[Any, Any]) -> None:
    """Let the oldest entries go."""
    while len(rows) > MOST:
        rows.popitem(last=False)


def refused(names: Iterable[str], denied: frozenset[str]) -> bool:
    """Whether one of `names` is on the deny list."""
    return not denied.isdisjoint(names)
