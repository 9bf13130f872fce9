"""Work on all cores: what comes back, what a failure says, and that no worker outlives the tool."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bundle import crew, leaks, scan
from bundle.errors import CommandError, IntegrityError
from bundle.run import run
from tests import bundles

TOP = Path(__file__).parents[2]
SLEEPS = "import time\nfrom bundle import crew\nprint(len(list(crew.spread(time.sleep, [60, 60]))))"


def end(number: int) -> int:
    """A worker that ends in the middle of its third task."""
    if number == 2:
        os._exit(9)
    return number


def refuse(_: int) -> int:
    """A refusal with all its words."""
    raise IntegrityError("not what it was", where="a member", hint="Look at it.")


def test_each_task_has_its_result() -> None:
    found = dict(crew.spread(partial(pow, 2), range(100)))
    assert found == {n: 2**n for n in range(100)}
    assert list(crew.spread(partial(pow, 2), ())) == []


def test_refusal_of_a_worker_is_the_tools_own() -> None:
    with pytest.raises(IntegrityError) as caught:
        list(crew.spread(refuse, [1, 2, 3]))
    assert str(caught.value) == "a member: not what it was\n  hint: Look at it."


def test_worker_that_ends_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(CommandError, match="a worker process has ended"):
        list(crew.spread(end, range(5)))


def heed() -> None:
    """Take an interrupt, which a run in the background has ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers_of(pid: int) -> list[int]:
    """The children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_the_tool(how: signal.Signals) -> None:
    """An interrupt goes to the whole group, as from a terminal; the others to the tool alone."""
    tool = subprocess.Popen(
        [sys.executable, "-c", SLEEPS],
        cwd=TOP,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=heed,
    )
    deadline = time.monotonic() + 30
    while len(found := workers_of(tool.pid)) < min(2, os.cpu_count() or 1):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    if how == signal.SIGINT:
        os.killpg(tool.pid, how)
    else:
        tool.send_signal(how)
    _, said = tool.communicate(timeout=30)
    while left := [pid for pid in found if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert said.count(b"Traceback") <= (how == signal.SIGINT), said.decode()  # the tool's own only


def test_canary_in_a_large_layer_is_found_by_a_worker(tmp_path: Path) -> None:
    """Layers of more than a worker's share, with one secret each, beside one that has none."""
    chance, rules = random.Random(4), leaks.rules(leaks.Host(names=("build7-of-ours",)))
    members = []
    for number in range(4):
        canary = b"user@build7-of-ours:~$" if number else b""
        files = {"a": chance.randbytes(700_000), "etc/x": canary, "z": chance.randbytes(700_000)}
        plain, blob = tmp_path / f"{number}.tar", tmp_path / f"{number}.zst"
        plain.write_bytes(bundles.tar_of(files).getvalue())
        run(["zstd", "--quiet", str(plain), "-o", str(blob)], timeout=60)
        size = blob.stat().st_size
        assert size > scan.WORTH
        members.append(scan.Travelling(path=blob.name, size=size, sha256=blob.name, content=blob))
    with pytest.raises(IntegrityError) as caught:
        scan.scan(members, rules, (), tmp_path / "notes")
    wheres = [problem.where for problem in caught.value.problems]
    assert wheres == ["1.zst → etc/x", "2.zst → etc/x", "3.zst → etc/x"]


def test_damaged_layer_is_an_error_and_not_clean(tmp_path: Path) -> None:
    blob = tmp_path / "layer"
    blob.write_bytes(scan.ZSTD + random.Random(4).randbytes(2 << 20))
    member = scan.Travelling(path="layer", size=2 << 20, sha256="0" * 64, content=blob)
    with pytest.raises(CommandError, match="reading"):
        scan.scan([member], leaks.rules(leaks.Host()), (), tmp_path / "notes")
