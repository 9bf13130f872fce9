"""A real upgrade: the stack with the last Phoenix, in use, and what `invoke bundle --base` then carries of this one.

It makes a bundle with other images and installs twice, and so runs nightly only. TRACKING_OLDER_BUNDLE names a full
bundle of version 0.0.9 to use instead of making one; made of another commit, it may turn the delta's size red.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import __version__, config, intake, manifest, rehearse
from bundle.bench.delta import BEFORE, PACKAGE, older_checkout
from bundle.closed import ClosedHost
from bundle.engine import Engine
from tests.e2e import kept_data
from tests.e2e.conftest import TOP, make_bundle, sealed_of
from tests.e2e.stack import Sealed, Stack, healthy
from tests.e2e.test_client import environment

pytestmark = [pytest.mark.timeout(3600), pytest.mark.nightly]
OLDER = "0.0.9"
LARGEST = 0.08  # of a full bundle
DAY = 86400


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    """A full bundle of this tree with the last minor version of Phoenix, of the day before."""
    if given := os.environ.get("TRACKING_OLDER_BUNDLE"):
        yield sealed_of(Path(given).resolve())
        return
    folder = tmp_path_factory.mktemp("older")
    conf, tree = config.read_bundle(None), folder / "tree"
    with older_checkout(conf, Engine(), TOP, tree):
        head = tree / "bundle/__init__.py"
        text = head.read_text("utf-8")
        head.write_text(text.replace(f'"{__version__}"', f'"{OLDER}"'), "utf-8")
        epoch = int(time.time()) // DAY * DAY - DAY
        yield sealed_of(make_bundle(folder / "dist", epoch=epoch, tree=tree))


@pytest.fixture(scope="module")
def host(older: Sealed, closed_hosts: Path) -> Iterator[ClosedHost]:
    """A closed host with the older stack, healthy."""
    made = rehearse.make_host(wanted(older, closed_hosts))
    try:
        yield made
    finally:
        made.remove()


def wanted(sealed: Sealed, closed_hosts: Path) -> rehearse.Rehearsal:
    """What is brought into the closed host."""
    return rehearse.Rehearsal(
        bundle=sealed.path,
        fingerprint=sealed.fingerprint,
        folder=closed_hosts / "delta",
        cache=sealed.cache,
        reports=TOP / "dist" / "e2e" / "delta",
    )


def test_stack_in_use_becomes_the_next_release_by_its_delta(
    older: Sealed, host: ClosedHost, closed_hosts: Path, tmp_path: Path
) -> None:
    stack = Stack(host=host, sealed=older, record={})
    rehearse.bootstrap(host, wanted(older, closed_hosts))
    rehearse.install(host, wanted(older, closed_hosts))
    stack.invoke("users.add", "kim", "--role", "editor")
    env = environment(stack, "kim", tmp_path)
    keep(host, "write", env, tmp_path)
    before = json.loads(keep(host, "read", env, tmp_path))
    assert before["artifact"]
    assert before["span"]["context"] == kept_data.SPAN["context"]
    assert phoenix_of(host).startswith(BEFORE.rstrip("*"))

    stack.invoke("inventory", "--out", "/root/inventory.json")
    base = Path(shutil.copy(host.root / "root/inventory.json", tmp_path))
    delta = sealed_of(make_bundle(tmp_path / "dist", "--base", str(base)))

    rehearse.bootstrap(host, wanted(delta, closed_hosts))
    rehearse.install(host, wanted(delta, closed_hosts))
    assert healthy(stack.containers())
    sealed = manifest.read(delta.path)
    assert [image.name for image in sealed.images if not intake.is_right(host.engine, image)] == []
    running = host.run(["docker", "ps", "--format", "{{.Image}}"], timeout=30).split()
    assert {image.rpartition(":")[2] for image in running} == {sealed.version}
    assert not phoenix_of(host).startswith(BEFORE.rstrip("*"))
    rehearse.verify(host, wanted(delta, closed_hosts))
    assert json.loads(keep(host, "read", env, tmp_path)) == before
    whole, size = older.path.stat().st_size, delta.path.stat().st_size
    assert size <= LARGEST * whole, f"{size} of {whole}"


def keep(host: ClosedHost, what: str, env: dict[str, str], folder: Path) -> str:
    """Write, or read, a person's data through the doors; with the credentials of before."""
    script = [sys.executable, "-m", "tests.e2e.kept_data", what, str(folder / "ca.crt")]
    inner = {**env, "PYTHONPATH": str(TOP), "PATH": os.environ["PATH"]}
    return host.beside(script, timeout=120, env=inner)


def phoenix_of(host: ClosedHost) -> str:
    """The version of Phoenix that runs."""
    ask = f"import importlib.metadata as m; print(m.version({PACKAGE!r}))"
    line = ["docker", "exec", "tracking-phoenix-1", "/opt/venv/bin/python", "-c", ask]
    return host.run(line, timeout=60).strip()
