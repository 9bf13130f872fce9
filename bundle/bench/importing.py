"""Figures of the closed side: the import of all images, on both kinds of image store, each time into an empty engine.

The engine is a closed host's own. Before each run everything that it ever kept is taken away with the power off, the
file to be imported is read once, and what the disk still has to write is written.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundle import closed, store
from bundle.bench.context import Bench, Group
from bundle.bench.figures import Figure, Wanted, interleave
from bundle.bench.usage import Usage, read_once
from bundle.closed import ClosedHost
from bundle.engine import load_command, save_command
from bundle.errors import CheckFailedError, CommandError
from bundle.run import log, run

ROOT = "/var/lib/tracking-bundle"
MEDIUM = "/media"
PLAIN = f"{MEDIUM}/plain.tar"
IMPORT_SECONDS = 900.0
STORES = {"overlay2": False, "containerd store": True}
GOALS = {"overlay2": 0.75, "containerd store": 0.5}
IMPORTS = {
    name: Wanted(
        name=f"import with full check, {name}",
        unit="×",
        goal=goal,
        against="docker load of the plain docker save tar",
    )
    for name, goal in GOALS.items()
}
SAVED = Wanted(name="docker save of the same images", unit="MB")
CHECK_AND_TAKE = (
    f'cd {ROOT}/current && sh /root/bootstrap.sh "$1" --check --fingerprint "$2" --root {ROOT}'
    ' && exec .venv/bin/python -m bundle.bench.take "$1"'
)


def empty_engine(host: ClosedHost, *, snapshotter: bool) -> None:
    """Switch `host` on with an engine that never held anything, with the image store that is asked for."""
    host.power_cut()
    settings = host.root / "etc/docker/daemon.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps({"features": {"containerd-snapshotter": snapshotter}}), "utf-8")
    for name in ("containerd", "docker"):
        place = host.root / "var/lib" / name
        run(["rm", "-rf", "--one-file-system", str(place)], timeout=600)
    host.start()
    host.engine_up()


@contextlib.contextmanager
def bare_host(bench: Bench) -> Iterator[ClosedHost]:
    """A closed host with nothing in it, switched on; removed afterwards."""
    host = closed.create(
        bench.work / "host", cache=bench.config.cache, mirror=bench.config.mirrors_debian
    )
    try:
        host.start()
        host.engine_up()
        yield host
    finally:
        host.remove()


@contextlib.contextmanager
def closed_host(bench: Bench) -> Iterator[ClosedHost]:
    """A closed host with the bundle on its medium, bootstrapped; removed afterwards."""
    with bare_host(bench) as host:
        bootstrap(host, bench.bundle, bench.fingerprint, ROOT)
        yield host


def bootstrap(host: ClosedHost, bundle: Path, fingerprint: str, root: str) -> str:
    """Bring `bundle` in and unpack its small part under `root`; returns where the file lies inside."""
    place = str(host.put(bundle, MEDIUM))
    host.run(["tar", "-xf", place, "--occurrence=1", "bootstrap.sh"], timeout=60)
    words = ["sh", "bootstrap.sh", place, "--fingerprint", fingerprint, "--root", root]
    host.run(words, timeout=300, stream=True)
    return place


def inside(bench: Bench, host: ClosedHost, name: str, command: Sequence[str]) -> Usage:
    """Run `command` in `host` as `name`, with what it cost.

    Raises CommandError when it fails.
    """
    line = host.line(command, timeout=IMPORT_SECONDS)
    return bench.use(name, line, timeout=IMPORT_SECONDS + 15, env=closed.ENVIRONMENT)


def ours(bench: Bench, host: ClosedHost, name: str = "import") -> float:
    """Check the whole seal, then import: seconds of both."""
    place = f"{MEDIUM}/{bench.bundle.name}"
    read_once([host.root / place.lstrip("/")])
    line = ["sh", "-c", CHECK_AND_TAKE, "sh", place, bench.fingerprint]
    used = inside(bench, host, name, line)
    _all_there(bench, host)
    log.debug("%s", used.text)
    return used.seconds


def theirs(bench: Bench, host: ClosedHost, name: str = "docker load") -> float:
    """Load the plain archive of the same images: seconds."""
    read_once([host.root / PLAIN.lstrip("/")])
    used = inside(bench, host, name, load_command(PLAIN))
    _all_there(bench, host)
    return used.seconds


def _all_there(bench: Bench, host: ClosedHost) -> None:
    """Both ways must end alike, or their times cannot be compared."""
    missing = set(bench.references) - set(store.references(host.engine))
    if missing:
        raise CheckFailedError(f"the engine misses {', '.join(sorted(missing))}")


def save_plain(bench: Bench, host: ClosedHost) -> None:
    """The plain archive of the bundle's own images, made by the engine that has just imported them."""
    empty_engine(host, snapshotter=False)
    ours(bench, host, "import, first")
    words = ["sh", "-c", 'exec "$@" >"$0"', PLAIN, *save_command(bench.references)]
    inside(bench, host, "docker save", words)


def importing(bench: Bench) -> list[Figure]:
    """Both ways into both kinds of image store, and one real install for its memory."""
    with closed_host(bench) as host:
        save_plain(bench, host)
        size = (host.root / PLAIN.lstrip("/")).stat().st_size
        figures = [SAVED.measured([size / 1e6])]
        figures += [_pairs(bench, host, name) for name in STORES]
        install(bench, host)
    return figures


def _pairs(bench: Bench, host: ClosedHost, kind: str) -> Figure:
    log.info("  %s", kind)

    def mine() -> float:
        empty_engine(host, snapshotter=STORES[kind])
        return ours(bench, host)

    def load() -> float:
        empty_engine(host, snapshotter=STORES[kind])
        return theirs(bench, host)

    found = interleave({"check and import": mine, "docker load": load}, bench.rounds)
    note = "of it check " + _share(bench)
    return IMPORTS[kind].ratio(found["check and import"], found["docker load"], note=note)


def _share(bench: Bench) -> str:
    """What the last import said of its parts."""
    lines = bench.usages["import"][-1].text.splitlines()
    return "; ".join(line for line in lines if line.split(" ")[0] in ("pulled", "loaded"))


def install(bench: Bench, host: ClosedHost) -> None:
    """One real `invoke install` into an empty engine, with its registry door open: for the rows about memory."""
    empty_engine(host, snapshotter=False)
    line = f"cd {ROOT}/current && . .venv/bin/activate && exec invoke install --yes"
    try:
        inside(bench, host, "install", ["sh", "-c", line])
    except CommandError as error:  # the import's own figures stand
        log.info("  %s", error)


GROUPS = (Group(name="import", wanted=(SAVED, *IMPORTS.values()), act=importing),)
