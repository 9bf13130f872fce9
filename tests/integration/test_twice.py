"""The same inputs give the same bytes: made twice, as differently as one machine allows; nightly from no build cache.

Other folders, umask, time zone, locale, hash seed, and another clock, 400 days ahead, for the processes of the tool:
not for the engine and what runs in a build, which see another hour of the same day. Inputs are fetched once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bundle import seal, store
from bundle.config import cache_folder
from bundle.engine import Engine
from tests.twice.compare import differences

TOP = Path(__file__).parents[2]
OWN = (
    "blobs",
    "layers",
    "configs",
    "rehearsal",
)  # of the cache: what a bundle leaves there; the rest are inputs
PLACE = "tracking-twice-"
FIRST = {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}
SECOND = {"TZ": "Asia/Seoul", "LC_ALL": "ko_KR.UTF-8", "PYTHONHASHSEED": "2"}
pytestmark = pytest.mark.timeout(7200)


def other_clock(folder: Path) -> dict[str, str]:
    """Debian's libfaketime, fetched by the host's own apt and not installed."""
    folder.mkdir()
    command = ["apt-get", "download", "--quiet", "libfaketime"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=60)
    (library,) = folder.rglob("libfaketime.so.1")
    return {"OTHER_CLOCK": str(library)}


def copy_tree(source: Path, target: Path) -> Path:
    """The tree that a bundle is made of, elsewhere."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "dist", "__pycache__"))
    return target


def make(
    source: Path, home: Path, key: Path, umask: int, settings: Mapping[str, str], *, fresh: bool
) -> Path:
    """A bundle of a copy of `source` in `home`; `fresh`: its images are built and packed anew, under other names."""
    tree, cache = copy_tree(source, home / "tree"), home / "cache"
    place = [f"{PLACE}{home.name}"] if fresh else []
    (cache / "tracking-bundle").mkdir(parents=True)
    for path in cache_folder().iterdir():
        if not fresh or not path.name.startswith(OWN):
            (cache / "tracking-bundle" / path.name).symlink_to(path)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1790000000", "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "tests.twice", str(home / "out"), str(key), *place]
    done = subprocess.run(
        command,
        cwd=tree,
        env={**environment, **settings},
        umask=umask,
        timeout=3600,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    digest, _, file = done.stdout.splitlines()[-1].partition("  ")
    assert len(digest) == 64
    return Path(file)


@pytest.mark.parametrize(
    "fresh", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["seal", "build"]
)
def test_same_inputs_same_bytes(fresh: bool) -> None:
    folder = (
        Path(os.environ.get("TRACKING_TEST_FOLDER", "/var/tmp/tracking-bundle-tests")) / "twice"
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    key = seal.load_key(folder / "sign.key", make=True).path
    try:
        source = copy_tree(TOP, folder / "source")
        clock = other_clock(folder / "clock")
        first = make(source, folder / "a", key, 0o022, FIRST, fresh=fresh)
        place = folder / "elsewhere" / "b"
        second = make(source, place, key, 0o077, {**SECOND, **clock}, fresh=fresh)
        found = differences(first, second)
        assert not found, "\n".join(found[:60])
        assert first.stat().st_size > 300_000_000
        shutil.rmtree(folder)
    finally:
        engine = Engine()
        for reference in store.references(engine):
            if reference.startswith(PLACE):
                store.untag(engine, reference)
