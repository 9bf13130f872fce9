"""What a command costs: its seconds, and the memory of its processes by the kernel's own high-water marks."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.run import measure

INTERVAL = 0.1
CHUNK = 1 << 20
CLIENTS = "docker"  # the engine's own clients are not ours, though we start them


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One run: seconds, the peak of its largest process, the most that all held at one moment (bytes), its output.

    Processes of the engine's clients are left out of the memory.
    """

    seconds: float
    largest: int
    largest_name: str
    together: int
    text: str


class Watch:
    """Looks at a process and all that descend from it, ten times a second."""

    def __init__(self) -> None:
        self.family: set[int] = set()
        self.strangers: set[int] = set()
        self.peaks: dict[int, tuple[int, str]] = {}
        self.together = 0

    def __call__(self, pid: int, ended: threading.Event) -> None:
        self.family.add(pid)
        while not ended.wait(INTERVAL):
            self.look()

    def look(self) -> None:
        """Note every process of the family as it is now."""
        living = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        self.family &= living
        new = sorted(living - self.family - self.strangers)  # parents mostly have lower numbers
        for pid in [*new, *reversed(new)]:
            if parent_of(pid) in self.family:
                self.family.add(pid)
        self.strangers = living - self.family
        self.note({pid: status for pid in self.family if (status := _read(pid, "status"))})

    def note(self, family: Mapping[int, str]) -> None:
        """Count the memory in the status texts of `family`, the engine's clients left out."""
        total = 0
        for pid, text in family.items():
            name = (re.search(r"^Name:\s*(.*)$", text, re.MULTILINE) or [""] * 2)[1]
            peak, now = (_kilobytes(text, key) for key in ("VmHWM", "VmRSS"))
            if name.startswith(CLIENTS):
                self.peaks.pop(pid, None)  # until it became the client it looked like its parent
                continue
            self.peaks[pid] = max(self.peaks.get(pid, (0, "")), (peak, name))
            total += now
        self.together = max(self.together, total)


def _kilobytes(text: str, key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), name).read_text("utf-8", "replace")
    return ""


def parent_of(pid: int) -> int:
    """The parent of `pid`; 0 when it has gone."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def use(
    command: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Usage:
    """Run `command` and say what it cost.

    Raises CommandError when it fails or takes longer than `timeout` seconds.
    """
    watch = Watch()
    seconds, text = measure(command, timeout=timeout, env=env, cwd=cwd, watch=watch)
    largest, name = max(watch.peaks.values(), default=(0, ""))
    return Usage(
        seconds=seconds,
        largest=largest,
        largest_name=name,
        together=watch.together,
        text=text,
    )


def read_once(paths: Iterable[Path]) -> None:
    """Bring files into the page cache, and what is still to be written onto the disk: the same start for each arm."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.read(CHUNK):
                pass
    os.sync()
