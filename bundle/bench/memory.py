"""The memory that our processes held in the runs of the other rows, and the peers' for comparison."""

from __future__ import annotations

from bundle.bench.context import Bench, Group
from bundle.bench.figures import Figure, Wanted
from bundle.bench.usage import Usage

AGAINST = "every process of ours at one moment, the engine's clients left out"
OURS = {
    "bundle": ("bundle", "bundle, all cached"),
    "check": ("check",),
    "import with its registry door": ("import",),
    "install": ("install",),
}
PEERS = ("crane", "regctl", "skopeo")
WANTED = {
    name: Wanted(name=f"peak memory, {name}", unit="MB", goal=150, against=AGAINST) for name in OURS
}
OTHERS = {
    tool: Wanted(name=f"peak memory, {tool}", unit="MB", against="the same images into files")
    for tool in PEERS
}


def peak(wanted: Wanted, usages: list[Usage]) -> Figure:
    """The highest of all runs: a peak is what a host must have room for."""
    top = max(usages, key=lambda used: used.largest)
    note = f"largest single process: {top.largest_name} {top.largest / 1e6:.0f} MB"
    return wanted.measured([used.together / 1e6 for used in usages], reduce=max, note=note)


def memory(bench: Bench) -> list[Figure]:
    """A row for each of our commands that ran before, and for the peers."""
    figures = []
    for name, runs in OURS.items():
        usages = [used for run in runs for used in bench.usages.get(run, [])]
        figures.append(peak(WANTED[name], usages) if usages else WANTED[name].missing(_rows(name)))
    for tool, wanted in OTHERS.items():
        usages = bench.usages.get(tool, [])
        figures.append(peak(wanted, usages) if usages else wanted.missing(_rows(tool)))
    return figures


def _rows(name: str) -> str:
    return f"{name} did not run in this benchmark"


GROUPS = (Group(name="memory", wanted=(*WANTED.values(), *OTHERS.values()), act=memory),)
