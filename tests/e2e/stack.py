"""What the tests on closed hosts are given: a sealed bundle, and a stack that was installed from it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import rehearse
from bundle.closed import ClosedHost
from bundle.model import Container
from bundle.plan import PROJECT


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """The bundle of this checkout, the fingerprint of its key, and where bare file systems are kept."""

    path: Path
    fingerprint: str
    cache: Path


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The installed stack: its closed host, the bundle that it came from, and what was found when it was made."""

    host: ClosedHost
    sealed: Sealed
    record: dict[str, Any]

    @property
    def root(self) -> Path:
        """The installation's folder as seen from here."""
        return self.host.root / rehearse.PRODUCT_ROOT.lstrip("/")

    def invoke(self, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run a task as the operator types it; its standard output."""
        line = f'cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && exec invoke "$@"'
        return self.host.run(["sh", "-c", line, "sh", *words], timeout=timeout, check=check)

    def containers(self) -> dict[str, Container]:
        """Each container of the stack by its service, the stopped ones too."""
        return self.host.engine.containers(PROJECT)

    def up(self) -> float:
        """Switched on, every service healthy by itself; the seconds that took.

        Raises AssertionError when one is not within two minutes.
        """
        begin = time.monotonic()
        self.host.start()
        self.host.engine_up()
        while not healthy(found := self.containers()):
            assert time.monotonic() - begin < 120, found
            time.sleep(1)
        return time.monotonic() - begin


def healthy(containers: dict[str, Container]) -> bool:
    """Whether there are containers, and each runs and is healthy."""
    return bool(containers) and all(
        (one.state, one.health) == ("running", "healthy") for one in containers.values()
    )
