"""What a check is, and what its probe is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bundle.host import Host
from bundle.manifest import Release
from bundle.model import Secret
from bundle.plan import Plan

Group = Literal["network", "storage", "services", "operations"]
GROUPS: dict[Group, dict[str, str]] = {
    "network": {"ko": "네트워크·보안", "en": "Network and security"},
    "storage": {"ko": "스토리지", "en": "Storage"},
    "services": {"ko": "서비스 구성", "en": "Services"},
    "operations": {"ko": "운영", "en": "Operations"},
}


class Red(Exception):  # noqa: N818  (a verdict, not an error)
    """A probe found something wrong: each line says what."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class Moot(Exception):  # noqa: N818
    """The site's configuration makes a check moot; `key` is the setting that does."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def settle(wrong: list[str], evidence: list[str]) -> list[str]:
    """The evidence of a probe that found nothing wrong.

    Raises Red with all that it found.
    """
    if wrong:
        raise Red(*wrong)
    return evidence


@dataclass(frozen=True, kw_only=True)
class Notes:
    """What probes of one run share: each is found out once, by whoever asks first; a failure is remembered too."""

    found: dict[str, tuple[Any, BaseException | None]] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)

    def once(self, key: str, find: Callable[[], Any]) -> Any:
        """What `find` returned the first time, or raises what it raised."""
        with self.locks.setdefault(key, threading.Lock()):
            if key not in self.found:
                try:
                    self.found[key] = find(), None
                except Exception as error:  # noqa: BLE001  (every one who asks shall see it)
                    self.found[key] = None, error
        value, failure = self.found[key]
        if failure is not None:
            raise failure
        return value


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a run of checks looks: the plan, the host, the release that should run, the stored secrets."""

    plan: Plan
    host: Host
    release: Release
    store: Mapping[str, Secret]
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the checklist: `probe` returns its evidence, or raises Red or Moot.

    `needs` are the checks without which this one says nothing; `timeout` is in seconds; `title` and `hint` have a text
    for each language.
    """

    id: str
    group: Group
    title: dict[str, str]
    hint: dict[str, str]
    probe: Callable[[Stage], list[str]]
    needs: tuple[str, ...] = ()
    timeout: float = 30
