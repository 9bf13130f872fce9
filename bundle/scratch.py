"""Restore the databases of a point beside the live system, in a container without a network, and look at them there.

The repository is mounted read-only: whatever happens in there, the backups stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import claims, ledger
from bundle.errors import CommandError
from bundle.host import Host, make_folder
from bundle.model import OneOff
from bundle.plan import Plan
from bundle.points import Point
from bundle.services.postgres import PGBACKREST, REPOSITORY
from bundle.site import SITE_LABEL
from bundle.words import say

WITHIN_S = 6 * 3600
PLACE = "/scratch"
TABLES = {
    "mlflow": ("experiments", "runs", "logged_models", "model_versions", "trace_info"),
    "phoenix": ("projects", "traces", "spans"),
}
COUNT = "select json_build_object('kind', 'count', 'row', '{name}', 'location', count(*)::text) from {name}"
SCRIPT = f"""
set -eu
label=$1 point=$2 timeline=$3 data={PLACE}/pgdata
ask() {{ psql --no-psqlrc -qAt -v ON_ERROR_STOP=1 -h /tmp -U postgres -d "$1" -c "$2"; }}
{PGBACKREST} --pg1-path=$data --set="$label" --type=name --target="$point" --target-timeline="$timeline" \\
    --target-action=promote --archive-mode=off restore >&2
pg_ctl --silent -D $data -l /tmp/log -w -t 7200 \\
    -o "-c listen_addresses= -c unix_socket_directories=/tmp -c ssl=off -c shared_buffers=128MB" start >&2 \\
    || {{ tail -n 5 /tmp/log >&2; exit 1; }}
until [ "$(ask postgres 'select pg_is_in_recovery()' 2>/dev/null || echo gone)" = f ]; do
    pg_ctl -s -D $data status >/dev/null || {{ tail -n 5 /tmp/log >&2; exit 1; }}
    sleep 0.3
done
ask postgres "select json_build_object('kind', 'heartbeat', 'row', id, 'location', '') from bundle.points
    where id = '$point'"
shift 3
while [ $# -gt 0 ]; do ask "$1" "$2"; shift 2; done
pg_amcheck -h /tmp -U postgres --all --heapallindexed --install-missing >&2
pg_ctl --silent -D $data -m fast -w stop >&2
pg_checksums --check -D $data >&2
echo '{{"kind": "done", "row": "", "location": ""}}'
"""
"""Its arguments: the backup, the point, its timeline, then pairs of a database and a query whose rows are JSON."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the restored databases showed: rows of each table, and what rows say is in the bucket."""

    counts: dict[str, int]
    claims: tuple[dict[str, str], ...]


def look(plan: Plan, host: Host, point: Point) -> Seen:
    """Restore a point's databases into a scratch folder, which is gone afterwards.

    Raises CommandError when the named place is not reached, or anything in the databases is not right.
    """
    with folder(plan, host) as place:
        said = host.engine.one_off(container(plan, host, point, place), text="", timeout=WITHIN_S)
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return read(rows, point)


def read(rows: list[dict[str, Any]], point: Point) -> Seen:
    """What the rows of a look say.

    Raises CommandError when the point's own heartbeat or the end is not among them.
    """
    kinds = {(row["kind"], row["row"]) for row in rows}
    if ("heartbeat", point.id) not in kinds or ("done", "") not in kinds:
        message = say(
            "the restored databases have no heartbeat of this point",
            "복구한 데이터베이스에 이 시점의 기록이 없습니다",
        )
        raise CommandError(message, where=point.id)
    counts = {r["row"]: int(r["location"]) for r in rows if r["kind"] == "count"}
    found = tuple(row for row in rows if row["kind"] in claims.QUERIES)
    return Seen(counts=counts, claims=found)


@contextlib.contextmanager
def folder(plan: Plan, host: Host) -> Iterator[Path]:
    """A folder beside the backups for Postgres to work in; what a killed look left is removed first."""
    base = ledger.place(host, plan.site, "scratch")
    shutil.rmtree(base, ignore_errors=True)
    make_folder(base, 0o700)
    uid = plan.service("postgres").uid
    os.chown(base, uid, uid)
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def container(plan: Plan, host: Host, point: Point, place: Path) -> OneOff:
    """The container that restores and looks."""
    queries = [(claims.DATABASE, claims.statement(kind)) for kind in claims.QUERIES]
    queries += [(name, COUNT.format(name=t)) for name, tables in TABLES.items() for t in tables]
    repository = ledger.place(host, plan.site, "pgbackrest")
    return OneOff(
        image=plan.image("postgres"),
        entrypoint="bash",
        arguments=(
            *("-c", SCRIPT, "bash", point.database, point.id, str(timeline(point))),
            *(word for pair in queries for word in pair),
        ),
        user=plan.service("postgres").uid,
        network="none",
        labels={SITE_LABEL: plan.id},
        binds={
            str(repository): REPOSITORY,
            str(host.path("secrets", "postgres")): "/run/secrets",
            str(place): PLACE,
        },
        writable=(PLACE,),
    )


def timeline(point: Point) -> int:
    """The timeline of the log that a point is on: after a restore there are several."""
    return int(point.segment[:8], 16)
