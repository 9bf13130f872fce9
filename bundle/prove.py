"""How far a point is proven: what is stored is whole (L0), every byte of it (L1), restored (L2), with its objects (L3).

What cannot be verified counts as failed. Each proof is a line of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bundle import auditlog, ledger, points, repository, scratch
from bundle.errors import CheckFailedError, CommandError
from bundle.host import Host
from bundle.model import Secret
from bundle.plan import Plan
from bundle.points import Point
from bundle.run import log
from bundle.words import say

VERIFY_WITHIN_S = 6 * 3600
ROUGHLY = "10%"


def prove(
    plan: Plan, host: Host, store: Mapping[str, Secret], point: Point, level: int, *, part: bool
) -> list[str]:
    """Prove `point` up to `level`, and write down what came out; what was found. `part`: L1 reads a tenth.

    Raises CheckFailedError with everything that is wrong.
    """
    found: list[str] = []
    wrong: list[str] = []
    for step, (title, look) in enumerate(_levels(plan, host, store, point, part=part)):
        if step > level or wrong:
            break
        try:
            evidence, problems = look()
        except CommandError as error:
            evidence, problems = [], [str(error)]
        found += evidence
        wrong += [f"L{step}: {problem}" for problem in problems]
        log.info("  %s L%d %s: %s", "✗" if problems else "✓", step, title, "; ".join(evidence))
    reached = level if not part or level != 1 else 0
    note = {"kind": "proof", "point": point.id, "level": reached, "good": not wrong}
    ledger.append(host, plan.site, note | {"at": auditlog.stamp(), "wrong": wrong[:20]})
    if wrong:
        hint = say(
            "The point cannot be relied on: make another (invoke backup --full), and look at the disk.",
            "이 시점은 믿을 수 없습니다. invoke backup --full로 새로 만들고 디스크를 점검하십시오.",
        )
        raise CheckFailedError("; ".join(wrong), where=point.id, hint=hint)
    return found


Look = Callable[[], tuple[list[str], list[str]]]


def _levels(
    plan: Plan, host: Host, store: Mapping[str, Secret], point: Point, *, part: bool
) -> list[tuple[str, Look]]:
    """Each level: its name, and what looks; what one sees the next ones may use."""
    seen: list[scratch.Seen] = []
    read = ROUGHLY if part else "100%"
    return [
        (say("stored whole", "저장 상태"), lambda: stored(plan, host, store, point)),
        (say("every byte", "모든 바이트"), lambda: objects_whole(plan, host, store, [point], read)),
        (say("databases restored", "데이터베이스 복구"), lambda: restored(plan, host, point, seen)),
        (
            say("objects and rows", "객체와 행"),
            lambda: compared(plan, host, store, point, seen[-1]),
        ),
    ]


def stored(
    plan: Plan, host: Host, store: Mapping[str, Secret], point: Point
) -> tuple[list[str], list[str]]:
    """L0: the ledger, the database backups by their own text, the log without a hole, the snapshots of every point."""
    known = repository.backups(plan, host)
    labels = {backup.label for backup in known}
    said = repository.pgbackrest(
        plan, host, "--output=text --verbose verify", timeout=VERIFY_WITHIN_S
    )
    wrong = repository.verified(said, labels)
    wrong += [f"backup {b.label}: pages with a wrong checksum" for b in known if b.bad]
    if point.database not in labels:
        wrong.append(f"backup {point.database} is not there")
    there = repository.archived(plan, host)
    every = ledger.check(host, plan.site)
    for segment in (every[-1].segment, point.segment):
        wrong += [f"segment {name} is missing" for name in repository.holes(there, known, segment)]
    evidence = [f"{len(known)} backups, {len(there)} segments"]
    more, problems = objects_whole(plan, host, store, every, "")
    return evidence + more, list(dict.fromkeys(wrong)) + problems


def objects_whole(
    plan: Plan, host: Host, store: Mapping[str, Secret], every: Iterable[Point], read: str
) -> tuple[list[str], list[str]]:
    """L1: every stored byte of the objects is read (or the part `read`; empty: only the structure)."""
    asked: dict[str, Any] = repository.store_request(plan, store)
    needed = dict.fromkeys(name for point in every for name in points.snapshots(point))
    asked |= {"read": read, "snapshots": list(needed)}
    answer = repository.with_objects(plan, host, "examine", asked, timeout=VERIFY_WITHIN_S)
    return [f"restic check {read}".strip()], list(answer["wrong"])


def restored(
    plan: Plan, host: Host, point: Point, seen: list[scratch.Seen]
) -> tuple[list[str], list[str]]:
    """L2: the named place is reached, with its heartbeat; no page and no index is wrong."""
    seen.append(scratch.look(plan, host, point))
    return [", ".join(f"{name} {count}" for name, count in seen[-1].counts.items())], []


def compared(
    plan: Plan, host: Host, store: Mapping[str, Secret], point: Point, seen: scratch.Seen
) -> tuple[list[str], list[str]]:
    """L3: each object as of the point comes out with its digest, and each claim of the restored rows is among them."""
    asked: dict[str, Any] = repository.store_request(plan, store)
    asked |= {
        "packs": points.rows(point.packs),
        "state": point.state,
        "write": False,
        "claims": list(seen.claims),
        "bucket": plan.site.s3_bucket_mlflow,
    }
    answer = repository.with_objects(plan, host, "put", asked, timeout=VERIFY_WITHIN_S)
    wrong = [f"no object: {claim}" for claim in answer["missing"]]
    if answer["objects"] != point.objects:
        wrong.append(f"{answer['objects']} objects, the ledger says {point.objects}")
    return [f"{answer['objects']} objects, {answer['claims']} claims"], wrong
