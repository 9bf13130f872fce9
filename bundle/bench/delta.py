"""Figures of a delta: what has to cross the gap when nothing changed, and when one Python package was bumped."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bundle import images, lock, store
from bundle.bench.connected import cache_of_inputs, make
from bundle.bench.context import Bench, Group
from bundle.bench.figures import Figure, Wanted
from bundle.bench.importing import MEDIUM, bare_host, bootstrap, inside
from bundle.closed import ClosedHost
from bundle.config import BundleConfig
from bundle.engine import Engine
from bundle.errors import CommandError
from bundle.recipes import read_recipes
from bundle.run import log, run, step
from bundle.trust import fingerprint_of

PACKAGE, BEFORE = "arize-phoenix", "20.25.*"
BUMPED = Wanted(
    name="delta, one Python package bumped", unit="%", goal=8, against="size of the full bundle"
)
UNCHANGED = Wanted(name="delta, nothing changed", unit="MB", goal=1)
LEFT_OUT = (".git", ".venv*", "dist", "__pycache__", ".*_cache")
TAKE = (
    'cd "$0/current" && .venv/bin/python -m bundle.bench.take "$1" && . .venv/bin/activate'
    ' && exec invoke inventory --out "$2"'
)


def older_pin(text: str) -> str:
    """The requirements `text` with the package at its last minor version.

    Raises CommandError when it is not pinned there.
    """
    changed, count = re.subn(
        rf"^({PACKAGE}(?:\[\w+\])?)==\S+$", rf"\1=={BEFORE}", text, flags=re.MULTILINE
    )
    if count != 1:
        raise CommandError(f"{PACKAGE} is not pinned in one line", where="images/phoenix")
    return changed


@contextmanager
def older_checkout(conf: BundleConfig, engine: Engine, here: Path, copy: Path) -> Iterator[None]:
    """`copy` is the checkout `here` with Phoenix locked at its last minor version, and nothing else moved.

    What images are built of it are taken away afterwards.
    """
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(here, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    recipes = read_recipes(copy)
    wanted = recipes.folder / "phoenix" / "requirements.in"
    wanted.write_text(older_pin(wanted.read_text("utf-8")), "utf-8")
    before = lock.versions(recipes)
    with step(f"locking {PACKAGE} {BEFORE} in a copy"):
        lock.lock_wheels(recipes, [PACKAGE], str(engine.api.version()["Arch"]))
    log.info("%s", lock.difference(lock.versions(recipes), before))
    now, then = (images.open_workshop(conf, engine, tree) for tree in (here, copy))
    built = {then.reference(name) for name in then.keys} - {
        now.reference(name) for name in now.keys
    }
    built -= set(store.references(engine))
    try:
        yield
    finally:
        for reference in sorted(built):
            store.untag(engine, reference)


@contextmanager
def older_bundle(bench: Bench) -> Iterator[Path]:
    """The bundle of the older checkout."""
    copy = bench.work / "older"
    with older_checkout(bench.config, bench.engine, bench.here, copy):
        cache = cache_of_inputs(bench, "older-cache", blobs=True)
        yield make(bench, "older bundle", here=copy, cache=cache)[1]


def inventory_of(bench: Bench, host: ClosedHost, bundle: Path, name: str) -> Path:
    """What `invoke inventory` says of a closed host that has the images of `bundle`, brought back to this side."""
    root = f"/var/lib/tracking-{name}"
    place = bootstrap(host, bundle, fingerprint_of(bundle), root)
    there = f"{MEDIUM}/inventory-{name}.json"
    inside(bench, host, "inventory", ["sh", "-c", TAKE, root, place, there])
    kept = bench.folder("inventories") / Path(there).name
    shutil.copy(host.root / there.lstrip("/"), kept)
    return kept


def delta(bench: Bench) -> Sequence[Figure]:
    """Make the two deltas by the product's own way: an inventory of the far side, then a bundle against it.

    Raises CommandError when a part of that way is missing or fails.
    """
    options = run([sys.executable, "-m", "invoke", "--help", "bundle"], timeout=60, cwd=bench.here)
    if "--base" not in options:
        raise CommandError("`invoke bundle` has no --base in this version")
    _, full = make(bench, "full bundle")
    figures = [UNCHANGED.measured([_against(bench, full, "unchanged")[0] / 1e6])]
    if bench.old:
        size, whole = _against(bench, bench.old, "bumped")
    else:
        with older_bundle(bench) as older:
            size, whole = _against(bench, older, "bumped")
    note = f"{size / 1e6:,.1f} MB of {whole / 1e6:,.1f} MB"
    return [*figures, BUMPED.measured([100 * size / whole], note=note)]


def _against(bench: Bench, base: Path, name: str) -> tuple[int, int]:
    """The bytes of a delta for a host that has `base`, and of the full bundle."""
    with bare_host(bench) as host:
        inventory = inventory_of(bench, host, base, name)
    _, file = make(bench, f"delta, {name}", "--base", str(inventory))
    return file.stat().st_size, bench.bundle.stat().st_size


GROUPS = (Group(name="delta", wanted=(UNCHANGED, BUMPED), act=delta),)
