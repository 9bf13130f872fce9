"""What the gateway writes of requests that change something, read into records of the audit log.

A name counts only where the guard had it from the tracker itself; a name that was only claimed is said to be that.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

UNKNOWN = "unknown"
LONGEST = 1000
CLOSED_AFTER_S = 900
"""So long after its hour a file is written no more: every request has its line by then."""


def split(data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """Each whole line of `data`, which begins at `start` of its file, with the place where it ends."""
    end = start
    for line in data.split(b"\n")[:-1]:
        end += len(line) + 1
        yield line, end


def record(line: bytes, file: str, end: int) -> dict[str, Any]:
    """What a line of the gateway's says; `spool` is where it stood, so that it is never taken twice."""
    spool = [file, end]
    try:
        entry = json.loads(line.decode("utf-8", "replace"))
        status, at = int(entry["status"]), _time(entry["at"])
    except (ValueError, KeyError, TypeError):
        # a gateway that was killed, or a full disk: what is left of it is told, not guessed at
        return {
            "at": "",
            "kind": "unreadable",
            "user": UNKNOWN,
            "bytes": len(line),
            "text": line.decode("utf-8", "replace")[:LONGEST],
            "spool": spool,
        }
    user, claimed = _user(entry, status)
    found = {
        "at": at,
        "kind": "request",
        "user": user,
        "what": f"{entry['method']} {entry['path']}"[:LONGEST],
        "door": entry["door"],
        "from": entry["from"],
        "result": status,
        "request": entry["id"],
        "spool": spool,
    }
    more = {"claims": claimed, "mutation": entry.get("mutation", ""), "why": entry.get("why", "")}
    return found | {key: str(value)[:LONGEST] for key, value in more.items() if value}


def _time(seconds: str) -> str:
    """The gateway's seconds in the form of all lines."""
    at = datetime.datetime.fromtimestamp(float(seconds), datetime.timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _user(entry: dict[str, Any], status: int) -> tuple[str, str]:
    """Who it was, as the tracker said, and who somebody only claimed to be."""
    named = unquote(str(entry.get("who", "")))
    claimed = str(entry.get("claims", ""))
    if named and named != UNKNOWN and not entry.get("why") and status != 401:
        return named, ""
    return UNKNOWN, claimed


def is_closed(file: str, now: datetime.datetime) -> bool:
    """Whether the gateway writes no more to the file of this name, which is an hour."""
    try:
        hour = datetime.datetime.strptime(file, "%Y-%m-%dT%H.jsonl")
    except ValueError:
        return False
    end = hour.replace(tzinfo=datetime.timezone.utc) + datetime.timedelta(hours=1)
    return (now - end).total_seconds() > CLOSED_AFTER_S
