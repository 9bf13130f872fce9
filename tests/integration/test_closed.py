"""The closed host: closed indeed, like a real one after a power cut, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import closed
from bundle.closed import ClosedHost
from bundle.config import cache_folder
from bundle.errors import CommandError, PreconditionError

TOP = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)

IMAGE = """
set -e
cd /
tar -c bin lib lib64 usr/bin usr/lib64 usr/lib/*-linux-gnu usr/lib/python3* | docker import - try:1
docker run -d --name try --restart always --read-only --cap-drop ALL -m 100m -p 127.0.0.1:8443:8000 \
  try:1 python3 -m http.server
"""
ASK = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8443', timeout=3).status)"


def make(folder: Path) -> ClosedHost:
    host = closed.create(folder, cache=cache_folder())
    host.start()
    host.engine_up()
    return host


@pytest.fixture(scope="module")
def closed_host(closed_hosts: Path) -> Iterator[ClosedHost]:
    """One host for the tests that leave it as it was; the one with the power cut removes it."""
    host = make(closed_hosts / "shared")
    yield host
    host.remove()


@pytest.fixture
def closed_folder(closed_hosts: Path) -> Iterator[Path]:
    """A folder on a real disk for one closed host; what was made there is removed."""
    folder = closed_hosts / "own"
    yield folder
    ClosedHost(folder=folder).remove()


def answers(host: ClosedHost) -> bool:
    return host.run(["python3", "-c", ASK], timeout=20, check=False).strip() == "200"


def wait_for(host: ClosedHost, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers(host):
            return True
        time.sleep(0.5)
    return False


def traces(folder: Path) -> list[str]:
    """What of the closed host is left on this machine."""
    groups = Path("/sys/fs/cgroup").glob(f"**/tracking-closed-{folder.name}-*")
    mounts = Path("/proc/mounts").read_text("utf-8").splitlines()
    processes = [
        place.name
        for place in Path("/proc").glob("[0-9]*")
        if str(folder) in _command_line(place) and int(place.name) != os.getpid()
    ]
    return [
        *map(str, groups),
        *(line for line in mounts if str(folder) in line),
        *processes,
        *([str(folder)] if folder.exists() else []),
    ]


def _command_line(place: Path) -> str:
    try:
        return (place / "cmdline").read_text("utf-8", "replace")
    except OSError:
        return ""


def test_is_closed_and_empty(closed_host: ClosedHost) -> None:
    assert closed_host.openings(["deb.debian.org", "1.1.1.1", "2606:4700:4700::1111"]) == []
    environment = closed_host.run(["env"], timeout=20)
    assert "proxy" not in environment.lower()
    assert closed_host.run(["hostname"], timeout=20).strip() == "closed"


def test_ends_what_takes_too_long_inside_too(closed_host: ClosedHost) -> None:
    with pytest.raises(CommandError):
        closed_host.run(["sleep", "321"], timeout=1)
    assert "sleep 321" not in closed_host.run(["ps", "ax"], timeout=20)


def test_runs_containers_and_survives_a_power_cut(closed_host: ClosedHost) -> None:
    closed_host.run(["sh", "-c", IMAGE], timeout=120)
    assert wait_for(closed_host, 20)
    closed_host.power_cut()
    assert closed_host.pid is None
    with pytest.raises(PreconditionError, match="off"):
        closed_host.run(["true"], timeout=5)
    closed_host.start()
    closed_host.engine_up()
    assert wait_for(closed_host, 30)
    closed_host.remove()
    assert traces(closed_host.folder) == []


def test_says_what_opens_it(closed_folder: Path) -> None:
    closed_host = make(closed_folder)
    for name in ("root/tasks.py", "usr/local/share/ca-certificates/ours.crt"):
        place = closed_host.root / name
        place.parent.mkdir(exist_ok=True)
        place.touch()
    closed_host.run(["sh", "-c", "tar -c /etc/hostname | docker import - other:1"], timeout=60)
    # A listener of its own stands for an address that can be reached.
    serve = "python3 -m http.server --bind 127.0.0.1 443 >/dev/null 2>&1 & sleep 1"
    closed_host.run(["sh", "-c", serve], timeout=20)
    closed_host.run(
        [
            "sh",
            "-c",
            "ip link add out type bridge && ip link set out up && ip route add default dev out",
        ],
        timeout=20,
    )
    found = "\n".join(closed_host.openings(["127.0.0.1"]))
    for sign in ("tasks.py", "ours.crt", "image in its engine", "127.0.0.1 reached", "way out"):
        assert sign in found


def test_clears_what_a_killed_run_left(closed_folder: Path) -> None:
    code = f"""
from pathlib import Path
from bundle import closed
from bundle.config import cache_folder
host = closed.create(Path({str(closed_folder)!r}), cache=cache_folder())
host.start()
print("on", flush=True)
host.run(["sleep", "300"], timeout=300)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=TOP, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
        child.send_signal(signal.SIGKILL)
    left = ClosedHost(folder=closed_folder)
    old = left.pid
    assert old is not None
    fresh = closed.create(closed_folder, cache=cache_folder())
    assert fresh.pid is None
    assert not Path("/proc", str(old)).exists()
    fresh.start()
    assert fresh.run(["hostname"], timeout=20).strip() == "closed"
    fresh.remove()
    assert traces(closed_folder) == []
