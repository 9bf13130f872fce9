"""Recovery points as the ledger tells of them: which there are, which one is meant, what is due, what may go."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bundle.errors import ConfigError
from bundle.words import say

Kind = Literal["full", "incr", ""]
LEVELS = (0, 1, 2, 3)
UNPROVEN = -1
PROVEN = 2
"""The level from which a point counts as proven: it was restored."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A stream of object versions in restic, and its index: two snapshots, and the digest of the index."""

    pack: str
    index: str
    sha256: str
    count: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """One consistent point: a named place in the log (`segment` holds it), and the packs up to it.

    `database` is the newest backup of the databases then, of `databases` bytes; `config` the snapshot of what opens
    the site, with the digest `opener`; `state` the digest of every object as of the point, `size` their bytes, `stored`
    what the repository grew by; `claims` are rows that name objects, `missing` those without any; `level` is how far it
    was proven, and when.
    """

    id: str
    at: datetime.datetime
    segment: str
    database: str
    packs: tuple[Pack, ...]
    config: str
    opener: str
    objects: int
    state: str
    size: int
    databases: int
    stored: int
    version: str
    images: Mapping[str, str] = field(default_factory=dict)
    claims: int = 0
    missing: tuple[str, ...] = ()
    seconds: float = 0
    level: int = UNPROVEN
    proven: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The point in the form of `invoke points --format json`."""
        return {
            "id": self.id,
            "at": self.at.isoformat(timespec="milliseconds"),
            "objects": self.objects,
            "bytes": self.size,
            "databases": self.databases,
            "stored": self.stored,
            "version": self.version,
            "database": self.database,
            "missing": list(self.missing),
            "level": self.level,
            "proven": self.proven,
        }


def record(point: Point) -> dict[str, Any]:
    """The point as a record of the ledger."""
    return {
        "kind": "point",
        "id": point.id,
        "at": point.at.isoformat(timespec="milliseconds"),
        "segment": point.segment,
        "database": point.database,
        "packs": rows(point.packs),
        "config": point.config,
        "opener": point.opener,
        "objects": point.objects,
        "state": point.state,
        "size": point.size,
        "databases": point.databases,
        "stored": point.stored,
        "version": point.version,
        "images": dict(point.images),
        "claims": point.claims,
        "missing": list(point.missing),
        "seconds": round(point.seconds, 2),
    }


def packs(rows: Iterable[Sequence[Any]]) -> tuple[Pack, ...]:
    """Packs as records have them."""
    return tuple(
        Pack(pack=str(p), index=str(i), sha256=str(s), count=int(c), size=int(b))
        for p, i, s, c, b in rows
    )


def rows(chain: Iterable[Pack]) -> list[list[Any]]:
    """The same as records have them."""
    return [[p.pack, p.index, p.sha256, p.count, p.size] for p in chain]


def _read(entry: Mapping[str, Any]) -> Point:
    same = ("id", "segment", "database", "config", "opener", "state", "version")
    own: dict[str, Any] = {
        key: entry[key] for key in (*same, "objects", "size", "databases", "stored", "claims")
    }
    return Point(
        **own,
        at=datetime.datetime.fromisoformat(entry["at"]),
        packs=packs(entry["packs"]),
        images=dict(entry["images"]),
        missing=tuple(entry["missing"]),
        seconds=float(entry["seconds"]),
    )


def fold(entries: Iterable[Mapping[str, Any]]) -> tuple[Point, ...]:
    """The points that there are, oldest first, out of all that the ledger tells."""
    found: dict[str, Point] = {}
    for entry in entries:
        match entry.get("kind"):
            case "point":
                found[entry["id"]] = _read(entry)
            case "proof" if entry["point"] in found:
                point = found[entry["point"]]
                level = int(entry["level"]) if entry["good"] else UNPROVEN
                if level >= point.level or not entry["good"]:
                    found[point.id] = replace(point, level=level, proven=str(entry["at"]))
            case "gone":
                for name in entry["points"]:
                    found.pop(name, None)
    return tuple(found.values())


def chosen(points: Sequence[Point], point: str = "latest", to_time: str = "") -> Point:
    """The point that is meant: by its id, the latest, or the newest at or before a time.

    Raises ConfigError when there is none.
    """
    if not points:
        raise ConfigError(
            say("there is no recovery point", "복구 시점이 없습니다"),
            hint=say("Make one: invoke backup.", "만드십시오: invoke backup."),
        )
    if to_time:
        return _before(points, to_time)
    if point == "latest":
        return points[-1]
    found = next((one for one in points if one.id == point), None)
    if found is None:
        newest = ", ".join(one.id for one in points[-3:])
        raise ConfigError(
            say(f"{point!r} is no recovery point", f"{point!r}: 없는 복구 시점"),
            where="--point",
            hint=say(f"The newest are {newest}; see invoke points.", f"최근 시점: {newest}."),
        )
    return found


def _before(points: Sequence[Point], text: str) -> Point:
    try:
        wanted = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time",
            where="--to-time",
            hint="Give it like 2026-11-21T14:05+09:00.",
        ) from error
    wanted = wanted.astimezone(datetime.timezone.utc)  # without a zone: this host's own
    earlier = [one for one in points if one.at <= wanted]
    if not earlier:
        first = f"{points[0].at:%Y-%m-%d %H:%M:%S} UTC"
        raise ConfigError(
            say(f"no point is as old as {text}", f"{text} 이전의 복구 시점이 없습니다"),
            where="--to-time",
            hint=say(f"The oldest is of {first}.", f"가장 오래된 시점: {first}."),
        )
    return max(earlier, key=lambda one: one.at)


def due(
    backups: Mapping[str, datetime.datetime],
    now: datetime.datetime,
    *,
    database_minutes: int,
    full_days: int,
    full: bool = False,
) -> Kind:
    """Which backup of the databases a point needs; `backups` are the times of those that there are, by label."""
    fulls = [at for label, at in backups.items() if label.endswith("F")]
    if full or not fulls or now - max(fulls) >= datetime.timedelta(days=full_days):
        return "full"
    last = max(backups.values())
    # A clock that was set back must not keep backups from being made.
    late = not datetime.timedelta() <= now - last < datetime.timedelta(minutes=database_minutes)
    return "incr" if late else ""


def expired(points: Iterable[Point], now: datetime.datetime, keep_days: int) -> int:
    """How many of `points` are older than is kept; the others are one of several in their hour."""
    limit = now - datetime.timedelta(days=keep_days)
    return sum(one.at < limit for one in points)


def may_go(points: Sequence[Point], now: datetime.datetime, keep_days: int) -> tuple[Point, ...]:
    """The points that are older than is kept, and after a day all but one an hour; never the newest, nor the newest of
    those that were proven."""
    held = {points[-1].id} if points else set()
    held |= {one.id for one in [p for p in points if p.level >= PROVEN][-1:]}
    held |= {one.id for one in [p for p in points if p.level >= 0][-1:]}
    limit, today = now - datetime.timedelta(days=keep_days), now - datetime.timedelta(days=1)
    hours: set[str] = set()
    gone = []
    for one in points:
        hour = f"{one.at:%Y%m%d%H}"
        if one.id not in held and (one.at < limit or (one.at < today and hour in hours)):
            gone.append(one)
        hours.add(hour)
    return tuple(gone)


def unused(gone: Iterable[Point], kept: Iterable[Point]) -> tuple[str, ...]:
    """The snapshots that only points which go were made of."""
    held = {name for one in kept for name in snapshots(one)}
    return tuple(dict.fromkeys(n for one in gone for n in snapshots(one) if n not in held))


def snapshots(point: Point) -> list[str]:
    """Every snapshot that a point is made of."""
    return [name for pack in point.packs for name in (pack.pack, pack.index)] + [point.config]
