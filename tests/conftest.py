"""Unit tests cannot touch the world: for them a process or a socket is an error.

The folders integration, e2e and bench are marked by their name and are free to touch it.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

TESTS = Path(__file__).parent
WORLDLY = ("integration", "e2e", "bench")
MAY_START_PROCESSES = ("test_linters.py",)


def _folder(path: Path) -> str:
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seed`, which fixes the subset of the repeated tests, and `--nightly`, which runs all of them."""
    parser.addoption("--nightly", action="store_true", help="every count that an issue names")
    parser.addoption("--update", action="store_true", help="rewrite the golden files")
    parser.addoption("--seed", type=int, default=None, help="seed of the random subsets")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed once, so that the header can show it; texts are compared in English."""
    os.environ["LC_ALL"] = "C.UTF-8"
    if config.option.seed is None:
        config.option.seed = int(os.environ.get("TEST_SEED", random.randrange(2**32)))


def pytest_report_header(config: pytest.Config) -> str:
    """Name the seed with which this run can be repeated."""
    return f"seed: {config.option.seed} (repeat with --seed {config.option.seed})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder; the quick ones go first, and the nightly ones only when asked."""
    for item in items:
        folder = _folder(item.path)
        if folder in ("integration", "e2e"):
            item.add_marker(folder)
    items.sort(
        key=lambda item: WORLDLY.index(folder) if (folder := _folder(item.path)) in WORLDLY else -1
    )
    if not config.option.nightly:
        late = [item for item in items if item.get_closest_marker("nightly")]
        items[:] = [item for item in items if item not in late]
        config.hook.pytest_deselected(items=late)


@pytest.fixture(scope="session")
def closed_hosts() -> Iterator[Path]:
    """The folder of this run's closed hosts, on a real disk (TRACKING_TEST_FOLDER names another one).

    Another run with the same folder waits until this one has ended.
    """
    folder = Path(os.environ.get("TRACKING_TEST_FOLDER", "/var/tmp/tracking-bundle-tests"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance that depends on the printed seed and the test's name only."""
    return random.Random(f"{request.config.option.seed} {request.node.nodeid}")


def _refusing(what: str) -> Any:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError(f"a unit test must not {what}; move it to tests/integration")

    return refuse


@pytest.fixture(autouse=True)
def _no_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if _folder(request.path) in WORLDLY:
        return
    monkeypatch.setattr(socket.socket, "connect", _refusing("connect"))
    monkeypatch.setattr(socket.socket, "connect_ex", _refusing("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", _refusing("look up a name"))
    if request.path.name not in MAY_START_PROCESSES:
        monkeypatch.setattr(subprocess, "Popen", _refusing("start a process"))
        monkeypatch.setattr(os, "system", _refusing("start a process"))
