"""The ledger of recovery points: a chain of signed lines beside the backups, whose head stands in the audit log too.

A repository that was put back to an older state, or a ledger that was, is noticed by the heads in the audit log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bundle import auditlog, chained, chainlog, points
from bundle.chained import Head, Verdict
from bundle.config import SiteConfig
from bundle.errors import IntegrityError
from bundle.host import Host, make_folder
from bundle.points import Point
from bundle.services.postgres import backups
from bundle.words import say

KIND = "ledger"
NEWEST = 4
"""Files of the audit log in which its heads are looked for."""


def place(host: Host, site: SiteConfig, part: str) -> Path:
    """The folder of a part of the backups."""
    return host.path(backups(site, part))


def folder(host: Host, site: SiteConfig) -> Path:
    """Where the ledger lies."""
    return place(host, site, KIND)


def append(host: Host, site: SiteConfig, record: Mapping[str, Any]) -> Head:
    """Write one record down, and the new head into the audit log.

    Raises OSError when it cannot be written, ConfigError without a key.
    """
    make_folder(folder(host, site), 0o700)
    key, at = auditlog.open_key(host), auditlog.stamp()
    first = not chainlog.files(folder(host, site))
    with chainlog.locked(folder(host, site) / ".lock"):
        head = chainlog.append(folder(host, site), key, [{"noted": at, **record}], at)
    if auditlog.begun(host):
        note = {"at": at, "kind": KIND, "what": record["kind"], "ledger": head.seq}
        auditlog.append(host, [note | {"sha256": head.digest} | ({"begun": True} if first else {})])
    return head


def entries(host: Host, site: SiteConfig) -> Iterator[dict[str, Any]]:
    """What the ledger tells."""
    for _, line in chainlog.read(folder(host, site)):
        if entry := chained.parse_line(line):
            yield entry


def read(host: Host, site: SiteConfig) -> tuple[Point, ...]:
    """The points that there are, oldest first."""
    return points.fold(entries(host, site))


def restored_since(host: Host, site: SiteConfig) -> bool:
    """Whether a point was brought back after the last one was made: the buckets then hold other versions."""
    kinds = [e["kind"] for e in entries(host, site) if e.get("kind") in ("point", "restored")]
    return kinds[-1:] == ["restored"]


def heads(host: Host) -> dict[int, str]:
    """The heads of the ledger that the audit log knows, by number; of the last one that was begun."""
    found: dict[int, str] = {}
    for _, line in auditlog.read(host, NEWEST):
        entry = chained.parse_line(line)
        if entry and entry.get("kind") == KIND:
            if entry.get("begun"):
                found.clear()
            with contextlib.suppress(KeyError, TypeError, ValueError):
                found[int(entry["ledger"])] = str(entry["sha256"])
    return found


def examine(host: Host, site: SiteConfig) -> Verdict:
    """Whether the ledger is whole, and as new as the audit log knows.

    Raises ConfigError without a key.
    """
    public = auditlog.open_key(host).public_key()
    known = heads(host)
    make_folder(folder(host, site), 0o700)
    with chainlog.locked(folder(host, site) / ".lock"):
        return chained.check(lambda: chainlog.read(folder(host, site)), public, known)


def check(host: Host, site: SiteConfig, *, anew: bool = False) -> tuple[Point, ...]:
    """The points of a ledger that is whole; `anew`: none at all is none that anybody misses.

    Raises IntegrityError that names the first bad line.
    """
    if not chainlog.files(folder(host, site)) and (anew or not heads(host)):
        return ()
    verdict = examine(host, site)
    if verdict.wrong:
        hint = say(
            "Look at docs/recovery.md: an older copy was put back, or lines were changed.",
            "docs/recovery.md를 보십시오. 이전 사본으로 되돌렸거나 줄이 바뀌었습니다.",
        )
        raise IntegrityError(verdict.wrong, where=str(folder(host, site)), hint=hint)
    return read(host, site)
