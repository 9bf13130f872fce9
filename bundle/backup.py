"""Take one consistent point over databases, objects and what opens the site (protocol CP-1), and let old ones go.

The order is the protocol: a named place in the log first, then all object versions of before it. Nobody waits for it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import secrets
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bundle import kit, ledger, points, repository, rotation
from bundle.errors import CommandError, PreconditionError
from bundle.host import Host
from bundle.inside import superuser
from bundle.model import Secret
from bundle.plan import Plan
from bundle.points import Point
from bundle.repository import Backup
from bundle.run import log
from bundle.wal import Segment
from bundle.words import say

ARCHIVED_WITHIN_S = 180
DATABASE_WITHIN_S = 6 * 3600
OBJECTS_WITHIN_S = 6 * 3600
ROOM = 512 << 20
MUCH_PERCENT, FEW = 30, 3
FULL_SHARE = 0.5
"""Of the databases' size, what a full backup may take: they compress to less."""
CLOCKS_S = 2
"""What the clock of the site's own S3 may be apart, with times of whole seconds."""


def now() -> datetime.datetime:
    """The time, UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


def new_id(moment: datetime.datetime) -> str:
    """The name of a point; it is the name of the place in the log too."""
    return f"cp-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def take(plan: Plan, host: Host, store: Mapping[str, Secret], *, full: bool) -> Point:
    """One point, written down in the ledger; the caller has the backups' lock.

    Raises PreconditionError without room, CommandError when a part fails, IntegrityError when the ledger is broken.
    """
    begin = time.monotonic()
    known = ledger.check(host, plan.site, anew=full)
    check_room(plan, host)
    base = back_up(plan, host, full=full)
    name, opens = new_id(now()), opener(host)
    segment, at = mark(plan, host, name)
    see_steady(host, opens)
    wait_archived(plan, host, segment)
    anew = full or ledger.restored_since(host, plan.site)
    chain = chain_for(known, base.label, full=anew)
    digest = hashlib.sha256(opens).hexdigest()
    same = known[-1].config if known and known[-1].opener == digest else ""
    asked = request(plan, store, name=name, at=at, chain=chain)
    asked |= {"opener": base64.b64encode(opens).decode(), "config": same}
    saved = repository.with_objects(plan, host, "save", asked, timeout=OBJECTS_WITHIN_S)
    point = Point(
        id=name,
        at=at,
        segment=segment,
        database=base.label,
        databases=base.size,
        packs=points.packs(saved["packs"]),
        config=saved["config"],
        opener=digest,
        objects=saved["objects"],
        state=saved["state"],
        size=saved["size"],
        stored=saved["stored"],
        version=plan.version,
        images=images(plan, host),
        claims=saved["claims"],
        missing=tuple(saved["missing"]),
        seconds=time.monotonic() - begin,
    )
    ledger.append(host, plan.site, points.record(point))
    return point


def chain_for(known: tuple[Point, ...], label: str, *, full: bool) -> list[list[Any]]:
    """The packs that the next point goes on from: none after a new full backup of the databases."""
    if full or not known or known[-1].database.partition("_")[0] != label.partition("_")[0]:
        return []
    return points.rows(known[-1].packs)


def check_room(plan: Plan, host: Host) -> None:
    """See that the disk of the backups has room for what is about to come.

    Raises PreconditionError: pgBackRest would call a full disk "No such file or directory".
    """
    place = ledger.place(host, plan.site, "")
    sizes = superuser(plan, host, "\\t\nselect sum(pg_database_size(oid)) from pg_database;\n")
    need = ROOM + int(int(sizes.strip() or 0) * FULL_SHARE)
    free = shutil.disk_usage(place).free
    if free < need:
        hint = say(
            "Make room there, or name another backup.folder; nothing was changed.",
            "공간을 확보하거나 backup.folder를 다른 곳으로 지정하십시오. 바뀐 것은 없습니다.",
        )
        message = say(
            f"{free >> 20:,} MiB are free, {need >> 20:,} MiB are needed",
            f"여유 {free >> 20:,} MiB, 필요 {need >> 20:,} MiB",
        )
        raise PreconditionError(message, where=str(place), hint=hint)


def back_up(plan: Plan, host: Host, *, full: bool) -> Backup:
    """Back the databases up when that is due; the newest backup. A point needs one of before it.

    Raises CommandError when it fails, or met a page that is not right.
    """
    site, there = plan.site, repository.backups(plan, host)
    kind = points.due(
        {backup.label: backup.at for backup in there},
        now(),
        database_minutes=site.backup_database_minutes,
        full_days=site.backup_full_days,
        full=full,
    )
    if kind:
        log.info("  %s", say(f"databases: {kind}", f"데이터베이스: {kind}"))
        words = f"--type={kind} backup"
        repository.pgbackrest(plan, host, words, timeout=DATABASE_WITHIN_S)
        there = repository.backups(plan, host)
    see_pages(there[-1])
    return there[-1]


def see_pages(backup: Backup) -> None:
    """See that no page had a wrong checksum: pgBackRest backs it up and ends well.

    Raises CommandError.
    """
    if backup.bad:
        hint = say(
            "Restore the last proven point (invoke points), and look at the disk.",
            "마지막으로 증명된 시점으로 복구하고(invoke points) 디스크를 점검하십시오.",
        )
        message = say(
            f"{backup.label} holds pages whose checksum is wrong",
            f"{backup.label}: 체크섬이 틀린 페이지가 있습니다",
        )
        raise CommandError(message, where="postgres", hint=hint)


def mark(plan: Plan, host: Host, name: str) -> tuple[str, datetime.datetime]:
    """Name a place in the log, after a heartbeat's row; the segment that holds it, and the time just after it.

    Raises CommandError when Postgres refuses.
    """
    form = 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'
    time_of = f"to_char(clock_timestamp() at time zone 'UTC', '{form}')"
    statements = [
        "\\set ON_ERROR_STOP on",
        "\\pset format unaligned",
        "\\pset tuples_only on",
        f"\\set name '{name}'",
        "set client_min_messages = warning;",
        "create schema if not exists bundle;",
        "create table if not exists bundle.points (id text primary key, at timestamptz default clock_timestamp());",
        "delete from bundle.points where at < now() - interval '2 days';",
        "insert into bundle.points (id) values (:'name');",
        f"select 'point', pg_walfile_name(place), {time_of} from pg_create_restore_point(:'name') as place;",
        "select pg_switch_wal();",
    ]
    said = superuser(plan, host, "\n".join(statements) + "\n")
    row = next(line for line in said.splitlines() if line.startswith("point|")).split("|")
    return row[1], datetime.datetime.fromisoformat(row[2])


def see_steady(host: Host, opens: bytes) -> None:
    """See that the secrets beside the named place are those of the rows: none was changed just then.

    Raises CommandError.
    """
    if opens != opener(host) or rotation.under_way(host):
        hint = say(
            "Finish invoke secrets.rotate; the next point comes by itself.",
            "invoke secrets.rotate를 마치십시오. 다음 시점은 자동으로 만들어집니다.",
        )
        message = say("secrets are being changed", "비밀을 교체하는 중입니다")
        raise CommandError(message, where=str(host.path("secrets")), hint=hint)


def wait_archived(plan: Plan, host: Host, segment: str) -> None:
    """Wait until the segment lies in the repository: that Postgres calls it archived is not enough.

    Raises CommandError when it does not come.
    """
    until = time.monotonic() + ARCHIVED_WITHIN_S
    while Segment.of(segment) not in repository.archived(plan, host):
        if time.monotonic() > until:
            hint = say("Look at invoke logs --service postgres.", "invoke logs --service postgres.")
            message = say(
                f"segment {segment} is not in the repository after {ARCHIVED_WITHIN_S} s",
                f"세그먼트 {segment}가 {ARCHIVED_WITHIN_S}초 안에 보관되지 않았습니다",
            )
            raise CommandError(message, where="postgres", hint=hint)
        time.sleep(0.5)


def request(
    plan: Plan,
    store: Mapping[str, Secret],
    *,
    name: str,
    at: datetime.datetime,
    chain: list[list[Any]],
) -> dict[str, Any]:
    """What the exporter is asked for."""
    slack = datetime.timedelta(seconds=CLOCKS_S if plan.site.s3_endpoint else 0)
    return repository.store_request(plan, store) | {
        "point": name,
        "until": (at + slack).isoformat(),
        "packs": chain,
        "full": not chain,
        "database": repository.login(plan, store),
    }


def opener(host: Host) -> bytes:
    """An archive of what opens the site: the same files as in a recovery kit, and always the same bytes of the same."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in kit.files(host).items():
            data = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o400
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def images(plan: Plan, host: Host) -> dict[str, str]:
    """The image of each service that has tables of its own: a point is brought back under the same ones."""
    found = {}
    for service in plan.services:
        if service.migration or service.name == "postgres":
            image = host.engine.image(service.name, plan.image(service.runs))
            found[service.name] = image.id if image else ""
    return found


def going(plan: Plan, host: Host) -> tuple[Point, ...]:
    """The points that may go now; none while the site holds everything."""
    if plan.site.retention_hold:
        return ()
    return points.may_go(ledger.check(host, plan.site), now(), plan.site.backup_keep_days)


def is_much(plan: Plan, host: Host, gone: tuple[Point, ...]) -> bool:
    """Whether more than a third of all points would go because of their age: a changed setting, or a wrong clock."""
    old = points.expired(gone, now(), plan.site.backup_keep_days)
    return old * 100 > MUCH_PERCENT * len(ledger.read(host, plan.site)) and old > FEW


def let_go(
    plan: Plan, host: Host, store: Mapping[str, Secret], gone: tuple[Point, ...]
) -> tuple[Point, ...]:
    """Let the points `gone` go, in the ledger first: what it does not name any more, nobody asks for. Which went."""
    every = ledger.read(host, plan.site)
    if not gone:
        return ()
    names = {point.id for point in gone}
    kept = tuple(point for point in every if point.id not in names)
    ledger.append(host, plan.site, {"kind": "gone", "points": sorted(names)})
    snapshots = points.unused(gone, kept)
    asked = repository.store_request(plan, store) | {"snapshots": snapshots}
    repository.with_objects(plan, host, "forget", asked, timeout=OBJECTS_WITHIN_S)
    return gone


def useless(known: Sequence[Backup], kept: Sequence[Point]) -> list[str]:
    """The backups of the databases that no point stands on, but for the newest: whole chains, and bad ones."""
    held = {point.database for point in kept}
    chains = {label.partition("_")[0] for label in held | {b.label for b in known[-1:]}}
    gone = [b.label for b in known if b.label.endswith("F") and b.label not in chains]
    bad = [b.label for b in known[:-1] if b.bad and b.label not in held]
    alone = [label for label in bad if label.partition("_")[0] not in gone]
    return gone + [label for label in alone if not label.endswith("F")]


def tidy(plan: Plan, host: Host) -> list[str]:
    """Let backups of the databases go that no point stands on; with them goes the log that only they needed."""
    if plan.site.retention_hold:
        return []
    gone = useless(repository.backups(plan, host), ledger.read(host, plan.site))
    for label in gone:
        repository.pgbackrest(plan, host, f"--set={label} expire", timeout=DATABASE_WITHIN_S)
    return gone
