"""The figures of the main job, measured on fresh closed hosts: `python -m tests.bench.spine BUNDLE [--rounds N]`.

Prints a table and writes reports/bench-spine.json beside the bundle. Seconds are of this machine and of this hour; the
table has the goal of each figure, every sample, and whether the median meets it.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bundle import rehearse
from bundle.bench.figures import Wanted, as_table, write_report
from bundle.closed import ClosedHost
from bundle.config import cache_folder
from bundle.run import log
from bundle.trust import fingerprint_of

FOLDER = Path("/var/tmp/tracking-bundle-bench")
STATS = ["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"]
STATES = ["docker", "ps", "--format", "{{.Status}}"]
UNITS = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
ROWS = tuple(
    Wanted(name=name, unit=unit, goal=goal, against="the issue's goal")
    for name, unit, goal in (
        ("bundle file", "MB", 600),
        ("empty engine to verify green", "s", 120),
        ("services healthy after up on empty databases", "s", 30),
        ("second install", "s", 10),
        ("verify", "s", 45),
        ("stack idle", "MiB", 1536),
        ("green after power cut", "s", 90),
        ("green after power cut with live-restore", "s", 90),
    )
)


def seconds(act: Callable[[], object]) -> float:
    """How long `act` took."""
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def idle_memory(host: ClosedHost) -> float:
    """What the five containers hold together, MiB by their control groups."""
    amounts = re.findall(r" ([0-9.]+)([KMG]iB) /", host.run(STATS, timeout=60))
    return sum(float(number) * UNITS[unit] for number, unit in amounts)


def all_green(host: ClosedHost) -> None:
    """Wait until five containers are healthy."""
    while host.run(STATES, timeout=60, check=False).count("(healthy)") != 5:
        time.sleep(0.5)


def power_cut(host: ClosedHost, *, live_restore: bool) -> float:
    """Seconds from switching on after a power cut until all is green, by itself."""
    settings = host.root / "etc" / "docker" / "daemon.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps({"live-restore": live_restore}), "utf-8")
    for _ in range(2):  # the setting takes effect with the first start
        host.power_cut()
        host.start()
        host.engine_up()
        all_green(host)
    host.power_cut()
    begin = time.monotonic()
    host.start()
    host.engine_up()
    all_green(host)
    return time.monotonic() - begin


def one_round(wanted: rehearse.Rehearsal) -> dict[str, float]:
    """Every figure once, on a fresh host."""
    host = rehearse.make_host(wanted)
    try:
        rehearse.bootstrap(host, wanted)
        begin = time.monotonic()
        said = rehearse.invoke(host, "install", "--yes", timeout=900)
        verify = seconds(lambda: rehearse.verify(host, wanted))
        figures = {"empty engine to verify green": time.monotonic() - begin, "verify": verify}
        healthy = [float(s) for s in re.findall(r"is healthy \(([0-9.]+) s\)", said)]
        figures["services healthy after up on empty databases"] = max(healthy)
        figures["second install"] = seconds(lambda: rehearse.install_again(host, wanted))
        time.sleep(20)
        figures["stack idle"] = idle_memory(host)
        figures["green after power cut"] = power_cut(host, live_restore=False)
        figures["green after power cut with live-restore"] = power_cut(host, live_restore=True)
        figures["bundle file"] = wanted.bundle.stat().st_size / 1e6
        return figures
    finally:
        host.remove()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    bundle = options.bundle.resolve()
    wanted = rehearse.Rehearsal(
        bundle=bundle,
        fingerprint=fingerprint_of(bundle),
        folder=FOLDER,
        cache=cache_folder(),
        reports=bundle.parent / "reports",
    )
    rounds = [one_round(wanted) for _ in range(options.rounds)]
    figures = [row.measured([one[row.name] for one in rounds]) for row in ROWS]
    write_report("spine", figures, bundle.parent / "reports")
    sys.stdout.write(as_table(figures) + "\n")


if __name__ == "__main__":
    main()
