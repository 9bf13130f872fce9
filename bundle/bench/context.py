"""What the rows of one benchmark run share: the bundle that is measured, the folder for work, what was used so far."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.bench.figures import Figure, Wanted
from bundle.bench.usage import Usage, use
from bundle.config import BundleConfig
from bundle.engine import Engine
from bundle.errors import BundleError, CommandError
from bundle.manifest import Manifest
from bundle.run import log, step

LAST_LINE = re.compile(r"^[0-9a-f]{64}  (/?\S.*)$", re.MULTILINE)


@dataclass(kw_only=True)
class Workbench:
    """One run; `here` is the checkout, `work` is on a real disk and removed at the end, `epoch` dates what is made."""

    here: Path
    work: Path
    config: BundleConfig
    rounds: int
    engine: Engine
    epoch: int
    usages: dict[str, list[Usage]] = field(default_factory=dict)

    def folder(self, name: str) -> Path:
        """A folder of this run."""
        path = self.work / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def use(
        self,
        name: str,
        command: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Usage:
        """Run `command` as `name`, and keep what it cost for the rows about memory.

        Raises CommandError when it fails or takes longer than `timeout` seconds.
        """
        used = use(command, timeout=timeout, env=env, cwd=cwd)
        self.usages.setdefault(name, []).append(used)
        return used


@dataclass(kw_only=True)
class Bench(Workbench):
    """One run and the bundle that it measures; `old` is one that differs by one Python package, if one was given."""

    bundle: Path
    fingerprint: str
    manifest: Manifest
    old: Path | None = None

    @property
    def references(self) -> list[str]:
        """The images of the bundle by name."""
        return [image.reference for image in self.manifest.images]


def last_path(text: str, where: Path) -> Path:
    """The file that `invoke bundle` names in its last line, seen from the folder `where`.

    Raises CommandError when there is no such line.
    """
    found = LAST_LINE.findall(text)
    if not found:
        raise CommandError("invoke bundle named no file", where=str(where))
    return where / str(found[-1])


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are measured together; `act` returns those that it could measure."""

    name: str
    wanted: tuple[Wanted, ...]
    act: Callable[[Bench], Sequence[Figure]]


def measure_group(group: Group, bench: Bench) -> list[Figure]:
    """The figures of `group`, each wanted row exactly once: one that could not be measured says why."""
    found: Sequence[Figure] = ()
    why = "no figure came of it"
    try:
        with step(f"bench {group.name}"):
            found = group.act(bench)
    except (BundleError, OSError) as error:
        why = reason(error)
        log.info("  %s", error)
    measured = {figure.wanted: figure for figure in found}
    return [measured.get(wanted) or wanted.missing(why) for wanted in group.wanted] + [
        figure for figure in found if figure.wanted not in group.wanted
    ]


def reason(error: Exception) -> str:
    """One line of `error` for a table: its message, and what the failing program said last."""
    problem = error.problems[0].message if isinstance(error, BundleError) else str(error)
    lines = [line.strip(" |") for line in problem.splitlines() if line.strip(" |")]
    first = lines[0] if lines else type(error).__name__
    short = first if len(first) <= 120 else f"{first[:60]} … {first[-57:]}"
    return short if len(lines) < 2 else f"{short}: {lines[-1][:120]}"
