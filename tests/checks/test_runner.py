"""The runner: order, limits, and one that breaks hides no other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.checks.model import Check, Moot, Notes, Red, Stage
from bundle.checks.runner import run_checks
from bundle.errors import CommandError
from bundle.model import Result
from tests.checks.stages import make_stage

Probe = Callable[[Stage], list[str]]


def check(name: str, probe: Probe, needs: tuple[str, ...] = (), timeout: float = 5) -> Check:
    return Check(
        id=name,
        group="services",
        title={"ko": "제목", "en": "title"},
        hint={"ko": "고치십시오.", "en": "Mend it."},
        probe=probe,
        needs=needs,
        timeout=timeout,
    )


def good(_: Stage) -> list[str]:
    return ["seen"]


def red(_: Stage) -> list[str]:
    raise Red("one", "two")


def broken(_: Stage) -> list[str]:
    raise ZeroDivisionError("never so")


def refused(_: Stage) -> list[str]:
    raise CommandError("no answer", where="gateway")


def moot(_: Stage) -> list[str]:
    raise Moot("site.registry")


def outcome(root: Path, *checks: Check) -> tuple[dict[str, Result], bool]:
    results, complete = run_checks(make_stage(root), checks)
    return {result.id: result for result in results}, complete


def test_every_way_to_end(tmp_path: Path) -> None:
    probes = {"a": good, "b": red, "c": broken, "d": refused, "e": moot}
    found, complete = outcome(tmp_path, *(check(name, probe) for name, probe in probes.items()))
    assert complete
    assert list(found) == list("abcde")
    assert {name: result.status for name, result in found.items()} == {
        "a": "passed",
        "b": "failed",
        "c": "failed",
        "d": "failed",
        "e": "not_applicable",
    }
    assert found["b"].evidence == ("one", "two")
    assert found["c"].evidence == ("the probe broke: ZeroDivisionError: never so",)
    assert found["d"].evidence == ("gateway: no answer",)
    assert "site.registry" in found["e"].evidence[0]
    assert found["a"].hint == ""
    assert found["b"].hint


def test_what_needs_a_red_line_is_red_with_the_reason(tmp_path: Path) -> None:
    found, _ = outcome(
        tmp_path,
        check("last", good, ("middle",)),
        check("middle", good, ("first",)),
        check("first", red),
        check("other", good),
    )
    assert found["middle"].evidence == ("not probed: first failed, which this needs",)
    assert found["last"].evidence == ("not probed: middle failed, which this needs",)
    assert found["other"].status == "passed"


def test_what_needs_a_moot_line_is_probed(tmp_path: Path) -> None:
    found, _ = outcome(tmp_path, check("b", good, ("a",)), check("a", moot))
    assert found["b"].status == "passed"


def test_needs_come_first(tmp_path: Path) -> None:
    order: list[str] = []

    def noting(name: str) -> Probe:
        def probe(_: Stage) -> list[str]:
            order.append(name)
            return []

        return probe

    outcome(
        tmp_path,
        check("c", noting("c"), ("b",), timeout=9),
        check("b", noting("b"), ("a",), timeout=8),
        check("a", noting("a")),
    )
    assert order == ["a", "b", "c"]


def test_hanging_probe_is_red_and_holds_nothing_up(tmp_path: Path) -> None:
    forever = threading.Event()

    def hang(_: Stage) -> list[str]:
        forever.wait(30)
        return []

    start = time.monotonic()
    hanging = [check(f"h{i}", hang, timeout=0.2) for i in range(6)]
    found, complete = outcome(tmp_path, *hanging, check("good", good, timeout=0.1))
    forever.set()
    assert time.monotonic() - start < 5
    assert complete
    assert found["good"].status == "passed"
    assert {found[one.id].evidence for one in hanging} == {("no answer within 0 s",)}


def test_interruption_keeps_what_is_known(tmp_path: Path) -> None:
    def interrupt(_: Stage) -> list[str]:
        time.sleep(0.5)
        signal.pthread_kill(main, signal.SIGINT)  # as Ctrl-C: it wakes the one who waits
        time.sleep(3)
        return []

    main = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        found, complete = outcome(tmp_path, check("a", good), check("b", interrupt))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not complete
    assert list(found) == ["a"]


def test_shared_facts_are_found_once_and_failures_remembered() -> None:
    notes, calls = Notes(), []

    def find() -> int:
        calls.append(1)
        time.sleep(0.05)
        return 7

    threads = [threading.Thread(target=lambda: notes.once("a", find)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1

    def fail() -> int:
        calls.append(1)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            notes.once("b", fail)
    assert len(calls) == 2
