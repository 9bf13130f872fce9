"""`invoke bench.bundle`: what the seal promises, measured side by side in one run; a list of groups of rows."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundle import config, manifest
from bundle.bench import connected, delta, importing, memory, peers, tls
from bundle.bench.context import Bench, Group, Workbench, measure_group
from bundle.bench.figures import PAIRS, as_table, write_report
from bundle.closed import ClosedHost
from bundle.engine import Engine
from bundle.errors import CheckFailedError, ConfigError
from bundle.host import Host
from bundle.run import log, step
from bundle.trust import fingerprint_of
from bundle.words import say
from bundle.workflows.connected import created

BUSY = 0.5  # of a core; with more load than that, seconds and even ratios are of little worth

GROUPS: tuple[Group, ...] = (
    *connected.GROUPS,
    *importing.GROUPS,
    *delta.GROUPS,
    *peers.GROUPS,
    *tls.GROUPS,
    *memory.GROUPS,  # last: it reads what the others used
)


def bench_bundle(
    here: Path, *, quick: bool, strict: bool, only: Sequence[str], bundle: str, old: str
) -> str:
    """Measure every row (or the groups in `only`), write bench-bundle.json, return the table.

    Raises CheckFailedError for a missed goal when `strict`, ConfigError for an unknown group.
    """
    groups = chosen(only)
    load = os.getloadavg()[0]
    if load > BUSY:
        log.warning(
            "%s",
            say(
                f"this machine is busy (load {load:.1f})",
                f"다른 작업이 돌고 있습니다 (부하 {load:.1f})",
            ),
        )
    with bench_folder() as work:
        bench = prepare(here, work, rounds=1 if quick else PAIRS, bundle=bundle, old=old)
        figures = [figure for group in groups for figure in measure_group(group, bench)]
    facts = {"rounds": bench.rounds, "load_at_start": round(load, 2), "engine": engine_name(bench)}
    path = write_report("bundle", figures, here / "dist" / "reports", **facts)
    text = "\n".join([as_table(figures, peers.FOOTNOTE), "", str(path)])
    missed = [figure.wanted.name for figure in figures if not figure.met]
    if strict and missed:
        sys.stdout.write(text + "\n")
        raise CheckFailedError(say("goals missed: ", "미달 항목: ") + ", ".join(missed))
    return text


def chosen(only: Sequence[str]) -> Sequence[Group]:
    """The groups to measure, in their order.

    Raises ConfigError for a name that no group has.
    """
    names = [group.name for group in GROUPS]
    unknown = [name for name in only if name not in names]
    if unknown:
        hint = say("Known groups: ", "가능한 값: ") + ", ".join(names) + "."
        raise ConfigError(", ".join(unknown), where="--only", hint=hint)
    return [group for group in GROUPS if not only or group.name in only]


@contextmanager
def bench_folder() -> Iterator[Path]:
    """The one folder of benchmarks on this host, empty; afterwards nothing of the run is left.

    Raises BusyError when another benchmark runs.
    """
    home = config.read_bundle(None).cache / "bench"
    with Host(root=home).lock("bench"):
        work = home / "run"
        clear(work)
        work.mkdir()
        try:
            yield work
        finally:
            clear(work)


def clear(work: Path) -> None:
    """Remove what a run left, its closed hosts first."""
    for name in ("host", "plain"):
        ClosedHost(folder=work / name).remove()
    shutil.rmtree(work, ignore_errors=True)


def prepare(here: Path, work: Path, *, rounds: int, bundle: str, old: str) -> Bench:
    """The bundle to measure: the one that is given, or one made of this checkout now."""
    bench = Workbench(
        here=here,
        work=work,
        config=config.read_bundle(None),
        rounds=rounds,
        engine=Engine(),
        epoch=created(here),
    )
    with step(say("the bundle to measure", "측정할 번들")):
        path = Path(bundle).resolve() if bundle else connected.make(bench, "bundle to measure")[1]
    shared = {name: getattr(bench, name) for name in Workbench.__dataclass_fields__}
    return Bench(
        **shared,
        bundle=path,
        fingerprint=fingerprint_of(path),
        manifest=manifest.read(path),
        old=Path(old).resolve() if old else None,
    )


def engine_name(bench: Workbench) -> str:
    """The engine that packed; the closed host's is Debian's of the same suite."""
    return str(bench.engine.api.version()["Version"])
