"""Running checks: several at a time, each with its own limit; one that breaks is red and hides no other."""

from __future__ import annotations

import datetime
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bundle.checks.model import Check, Moot, Red, Stage
from bundle.errors import BundleError
from bundle.model import Result, Status
from bundle.run import log
from bundle.words import say

AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How one probe ended."""

    id: str
    status: Status
    evidence: tuple[str, ...]
    seconds: float


@dataclass(kw_only=True)
class Run:
    """The state of one run: what waits, what is being probed (with its start), what is done."""

    stage: Stage
    waiting: list[Check]
    started: dict[str, tuple[Check, float]] = field(default_factory=dict)
    done: dict[str, Result] = field(default_factory=dict)
    verdicts: queue.Queue[Verdict] = field(default_factory=queue.Queue)


def now() -> str:
    """The present as reports write it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def run_checks(stage: Stage, checks: Sequence[Check]) -> tuple[tuple[Result, ...], bool]:
    """Run `checks`, each after those that it needs; their results in the given order, and whether all of them ran.

    An interruption ends it with what is known so far.
    """
    run = Run(stage=stage, waiting=list(checks))
    try:
        while run.waiting or run.started:
            _settle_blocked(run)
            _start_ready(run)
            _collect(run)
    except KeyboardInterrupt:
        log.warning(
            "%s", say("interrupted; the report is incomplete", "중단됨: 보고서가 불완전합니다")
        )
    results = tuple(run.done[check.id] for check in checks if check.id in run.done)
    return results, len(results) == len(checks)


def _settle_blocked(run: Run) -> None:
    """Fail what needs a check that is red."""
    changed = True
    while changed:
        changed = False
        for check in list(run.waiting):
            red = [need for need in check.needs if _is_red(run, need)]
            if red:
                run.waiting.remove(check)
                reason = f"not probed: {', '.join(red)} failed, which this needs"
                _finish(
                    run, check, Verdict(id=check.id, status="failed", evidence=(reason,), seconds=0)
                )
                changed = True


def _is_red(run: Run, check_id: str) -> bool:
    return check_id in run.done and run.done[check_id].status == "failed"


def _start_ready(run: Run) -> None:
    known = {check.id for check in run.waiting} | set(run.started)
    for check in sorted(run.waiting, key=lambda check: -check.timeout):  # the longest first
        if len(run.started) >= AT_ONCE:
            return
        if any(need in known for need in check.needs):
            continue
        run.waiting.remove(check)
        run.started[check.id] = check, time.monotonic()
        # A daemon: a probe that hangs must not keep the tool from ending.
        threading.Thread(
            target=lambda check=check: run.verdicts.put(probe(run.stage, check)), daemon=True
        ).start()


def _collect(run: Run) -> None:
    """Wait for the next verdict, or for the first limit that is passed."""
    if not run.started:
        return
    first = min(start + check.timeout for check, start in run.started.values())
    try:
        verdict = run.verdicts.get(timeout=max(0.01, first - time.monotonic()))
    except queue.Empty:
        _expire(run)
        return
    if verdict.id in run.started:  # else it came after its limit: it is red already
        check, _ = run.started.pop(verdict.id)
        _finish(run, check, verdict)


def _expire(run: Run) -> None:
    for check, start in list(run.started.values()):
        seconds = time.monotonic() - start
        if seconds >= check.timeout:
            del run.started[check.id]
            line = f"no answer within {check.timeout:.0f} s"
            _finish(
                run, check, Verdict(id=check.id, status="failed", evidence=(line,), seconds=seconds)
            )


def probe(stage: Stage, check: Check) -> Verdict:
    """Probe one check; whatever goes wrong with the probe is a red line."""
    start = time.monotonic()
    status: Status = "failed"
    try:
        evidence = tuple(check.probe(stage))
        status = "passed"
    except Red as red:
        evidence = red.lines
    except Moot as moot:
        evidence, status = (f"not applicable: {moot.key}",), "not_applicable"
    except BundleError as error:
        evidence = tuple(str(error).splitlines())
    except Exception as error:  # noqa: BLE001  (a probe that breaks is red)
        evidence = (f"the probe broke: {type(error).__name__}: {error}",)
    seconds = time.monotonic() - start
    return Verdict(id=check.id, status=status, evidence=evidence, seconds=seconds)


def _finish(run: Run, check: Check, verdict: Verdict) -> None:
    red = verdict.status == "failed"
    mark = {"passed": "✓", "failed": "✗", "not_applicable": "-"}[verdict.status]
    title = say(check.title["en"], check.title["ko"])
    log.info("  %s %-22s %s (%.1f s)", mark, check.id, title, verdict.seconds)
    run.done[check.id] = Result(
        id=check.id,
        group=check.group,
        title=check.title,
        status=verdict.status,
        seconds=verdict.seconds,
        at=now(),
        needs=check.needs,
        evidence=verdict.evidence,
        hint=say(check.hint["en"], check.hint["ko"]) if red else "",
    )
