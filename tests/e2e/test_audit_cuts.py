"""The audit log when everything ends at once: no answered request is missing, none stands twice, the cut shows."""

from __future__ import annotations

import json
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e.stack import Stack, healthy
from tests.e2e.test_audit import last, new, person, send

pytestmark = [pytest.mark.timeout(1800), pytest.mark.nightly]
__all__ = ["person"]  # the fixture
COUNT = 400
WORKERS = 2
"""Processes of nginx, each with one request in its hands."""


def kill_gateway(stack: Stack) -> None:
    """Kill -9 its first process; the engine starts it anew."""
    found = stack.host.run(
        ["docker", "inspect", "-f", "{{.State.Pid}}", stack.containers()["gateway"].name],
        timeout=30,
    )
    stack.host.run(["sh", "-c", f"kill -9 {found.strip()}"], timeout=30)


def cut_power(stack: Stack) -> None:
    """Everything on the host ends at once."""
    stack.host.power_cut()


def answered(
    stack: Stack, person: dict[str, str], mark: str, wait: float, cut: Callable[[Stack], None]
) -> set[int]:
    """Send many changes, and cut after `wait` seconds; the numbers of those that were answered."""
    found: dict[str, list[int]] = {}
    sender = threading.Thread(
        target=lambda: found.update(send(stack, person, mark=mark, count=COUNT))
    )
    sender.start()
    time.sleep(wait)
    cut(stack)
    sender.join(300)
    assert not sender.is_alive()
    assert found.keys() <= {"405", "lost", "502", "503", "500"}, found.keys()
    return set(found.get("405", []))


def lose(stack: Stack, most: int, rng: random.Random) -> str:
    """What a real power cut takes too: the end of what the gateway wrote and the kernel had not; what that was."""
    spool = max((stack.root / "audit/gateway").glob("*.jsonl"), default=None)
    if spool is None:
        return ""
    whole, note = spool.read_bytes(), stack.root / "audit/state.json"
    taken = json.loads(note.read_bytes())["places"].get(spool.name, 0) if note.exists() else 0
    keep = max(taken, len(whole) - rng.randrange(most))
    with open(spool, "r+b") as file:
        file.truncate(keep)
    return whole[whole.rfind(b"\n", 0, keep) + 1 :].decode()


def see(stack: Stack, before: int, mark: str, sent: set[int], lost: str) -> int:
    """That every answered request is there once, but for `lost` and what was in the gateway's hands, and the cut shows.

    The gateway answers first and writes then. The number of those that were answered.
    """
    assert stack.invoke("audit.verify").startswith("whole: lines 1 to ")
    rows = [e["what"] for e in new(stack, before) if mark in e["what"]]
    assert len(rows) == len(set(rows)), "a request stands twice"
    gone = {n for n in sent if f"POST /v1/{mark}-{n}" not in rows}
    gone -= {n for n in gone if f'{mark}-{n}"' in lost}
    sys.stdout.write(f"{len(sent)} answered, {len(gone)} of them without a line\n")
    assert len(gone) <= WORKERS
    assert new(stack, before, "gateway"), "nothing shows that there was a cut"
    return len(sent)


def wait_for(stack: Stack, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not healthy(stack.containers()):
        assert time.monotonic() < until, stack.containers()
        time.sleep(1)


def test_gateway_that_is_killed(stack: Stack, person: dict[str, str], rng: random.Random) -> None:
    partly = 0
    for _ in range(5):
        stack.invoke("audit.collect")
        before, mark = last(stack), f"kill-{secrets.token_hex(4)}"
        sent = answered(stack, person, mark, rng.uniform(1.0, 4.0), kill_gateway)
        wait_for(stack)
        partly += 0 < see(stack, before, mark, sent, "") < COUNT
    assert partly, "never in the middle"


def test_power_cut(stack: Stack, person: dict[str, str], rng: random.Random) -> None:
    partly = 0
    for number in range(5):
        stack.invoke("audit.collect")
        before, mark = last(stack), f"cut-{secrets.token_hex(4)}"
        sent = answered(stack, person, mark, rng.uniform(1.0, 4.0), cut_power)
        lost = lose(stack, 3000, rng) if number % 2 else ""
        stack.up()
        partly += 0 < see(stack, before, mark, sent, lost) < COUNT
    assert partly, "never in the middle"
