"""One stack for all: the bundle of this checkout, installed on a closed host as in the rehearsal.

It is kept (switched off) after the run, and used again while the bundle's content is the same.
TRACKING_BUNDLE names a bundle file to use instead of making one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle import rehearse
from bundle.closed import ClosedHost
from bundle.config import cache_folder
from bundle.errors import BundleError
from bundle.run import run
from bundle.trust import fingerprint_of
from tests.e2e.judging import write_site
from tests.e2e.stack import Sealed, Stack

TOP = Path(__file__).parents[2]
NOTE = "record.json"
DATED = ("created", "expires", "counter")


@pytest.fixture(scope="session")
def sealed() -> Sealed:
    """The bundle of this checkout, made now (in seconds when nothing has changed)."""
    given = os.environ.get("TRACKING_BUNDLE")
    return sealed_of(Path(given).resolve() if given else make_bundle())


def sealed_of(path: Path) -> Sealed:
    """The bundle in the file `path`."""
    return Sealed(path=path, fingerprint=fingerprint_of(path), cache=cache_folder())


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A bundle in parts, with a site's own evaluation service."""
    if given := os.environ.get("TRACKING_EXTRAS_BUNDLE"):
        return sealed_of(Path(given).resolve())
    folder = tmp_path_factory.mktemp("judged")
    options = ("--config", str(write_site(folder)), "--split", "100M")
    return sealed_of(make_bundle(folder / "dist", *options))


def make_bundle(
    out: Path = TOP / "dist" / "e2e", *options: str, epoch: int = 0, tree: Path = TOP
) -> Path:
    """Run the task that makes the bundle of `tree`, of the moment `epoch` (today)."""
    moment = epoch or int(time.time()) // 86400 * 86400
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(moment)}
    command = [sys.executable, "-m", "invoke", "bundle", "--out", str(out), *options]
    answer = run(command, timeout=3000, cwd=tree, env=env)
    return Path(tree, answer.strip().splitlines()[-1].split("  ", 1)[1])


def content_key(bundle: Path) -> str:
    """What makes two bundles the same for an installation: the manifest without its dates."""
    text = run(["tar", "-xOf", str(bundle), "--occurrence=1", "MANIFEST.json"], timeout=60)
    manifest = {key: value for key, value in json.loads(text).items() if key not in DATED}
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@pytest.fixture(scope="session")
def stack(sealed: Sealed, closed_hosts: Path) -> Iterator[Stack]:
    """The installed stack, healthy; switched off at the end."""
    key = content_key(sealed.path)
    folder = closed_hosts / "e2e"
    made = kept_stack(sealed, key, folder) or make_stack(sealed, key, folder)
    yield made
    made.host.power_cut()


def kept_stack(sealed: Sealed, key: str, folder: Path) -> Stack | None:
    """The stack of an earlier run, when it was made of the same content and comes up."""
    note = folder / NOTE
    record = json.loads(note.read_text("utf-8")) if note.exists() else {}
    if record.get("key") != key:
        return None
    kept = Stack(host=ClosedHost(folder=folder), sealed=sealed, record=record)
    try:
        kept.up()
    except (BundleError, AssertionError):
        return None
    return kept


def make_stack(sealed: Sealed, key: str, folder: Path) -> Stack:
    """The rehearsal up to the running stack, with a record of what was found on the way."""
    wanted = rehearse.Rehearsal(
        bundle=sealed.path,
        fingerprint=sealed.fingerprint,
        folder=folder,
        cache=sealed.cache,
        reports=TOP / "dist" / "e2e" / "reports",
    )
    rows: list[rehearse.Row] = []
    with rehearse.timed(rows, "closed host"):
        host = rehearse.make_host(wanted)
    record: dict[str, Any] = {"key": key, "openings": host.openings(rehearse.OUTSIDE)}
    record["before"] = files_of(host)
    with rehearse.timed(rows, "bootstrap"):
        rehearse.bootstrap(host, wanted)
    with rehearse.timed(rows, "install"):
        rehearse.install(host, wanted)
    record["seconds"] = {row.step: round(row.seconds, 1) for row in rows}
    (folder / NOTE).write_text(json.dumps(record), "utf-8")
    return Stack(host=host, sealed=sealed, record=record)


def files_of(host: ClosedHost) -> list[str]:
    """Every regular file where something could be brought in."""
    places = ("media", "mnt", "opt", "root", "srv", "home", "usr/local", "var/lib/tracking-bundle")
    return sorted(
        str(path.relative_to(host.root))
        for place in places
        for path in (host.root / place).rglob("*")
        if path.is_file()
    )
