"""The two repositories of the backups: pgBackRest in the container of Postgres, restic in one-off containers.

pgBackRest's word is taken by what it prints: `verify` ends with 0 on a broken repository, and no command sees a hole
in the log.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle import ledger
from bundle.errors import CommandError, PreconditionError
from bundle.host import Host, make_folder
from bundle.inside import ask, execute
from bundle.model import Secret, role_secret
from bundle.plan import OPS_UID, Plan
from bundle.services import s3
from bundle.services.names import ROOT_CA, internal
from bundle.services.postgres import OBJECTS_PASSPHRASE, PGBACKREST, STANZA
from bundle.wal import Segment, missing, segments
from bundle.words import say

STANZA_WITHIN_S = 120
PLACE = "/backups"
"""Where the ops container has what lies around restic's repository."""
OBJECTS = "objects"


@dataclass(frozen=True, kw_only=True)
class Backup:
    """One backup of the databases: its label says its kind; `bad` when pgBackRest met a page with a wrong checksum."""

    label: str
    at: datetime.datetime
    start: str
    stop: str
    size: int
    stored: int
    bad: bool


def prepare(plan: Plan, host: Host) -> None:
    """Make the folders of the backups: Postgres archives in one, ops saves objects in one, root keeps the ledger.

    Raises PreconditionError where the folder cannot be made so.
    """
    base = ledger.place(host, plan.site, "")
    owners = {"pgbackrest": plan.service("postgres").uid, OBJECTS: OPS_UID, ledger.KIND: 0}
    try:
        make_folder(base, 0o700)
        for name, uid in owners.items():
            make_folder(base / name, 0o700)
            os.chown(base / name, uid, uid)
    except OSError as error:
        hint = say(
            "The folder must be on a disk or share where root can give files away (no root_squash).",
            "root가 파일 소유자를 바꿀 수 있는 디스크나 공유여야 합니다 (root_squash 아님).",
        )
        raise PreconditionError(
            f"backup.folder: {error.strerror}", where=str(base), hint=hint
        ) from error


def own(plan: Plan, host: Host) -> None:
    """Give everything in the repositories to whom it is, as after a copy by somebody else's hand."""
    prepare(plan, host)
    owners = {"pgbackrest": plan.service("postgres").uid, OBJECTS: OPS_UID}
    for name, uid in owners.items():
        for folder, folders, files in os.walk(ledger.place(host, plan.site, name)):
            for entry in (*folders, *files):
                os.chown(os.path.join(folder, entry), uid, uid, follow_symlinks=False)


def pgbackrest(plan: Plan, host: Host, words: str, *, timeout: float) -> str:
    """Run a command of pgBackRest where the databases are; what it prints.

    Raises CommandError when it fails.
    """
    return execute(plan, host, "postgres", f"{PGBACKREST} {words}", timeout=timeout)


def ensure_stanza(plan: Plan, host: Host) -> None:
    """Make the repository know these databases.

    Raises CommandError when it knows others, or the archive does not work.
    """
    try:
        pgbackrest(plan, host, "stanza-create", timeout=STANZA_WITHIN_S)
    except CommandError as error:
        if "do not match" not in str(error):
            raise
        hint = say(
            "To get those back: invoke restore. To begin anew: name another backup.folder in site.toml.",
            "복구하려면 invoke restore, 새로 시작하려면 site.toml의 backup.folder를 다른 곳으로 지정하십시오.",
        )
        message = say(
            "the backups there are of other databases", "그곳의 백업은 다른 데이터베이스의 것입니다"
        )
        where = str(ledger.place(host, plan.site, "pgbackrest"))
        raise CommandError(message, where=where, hint=hint) from error


def backups(plan: Plan, host: Host) -> tuple[Backup, ...]:
    """The backups of the databases, oldest first.

    Raises CommandError when the repository cannot be read.
    """
    found = json.loads(pgbackrest(plan, host, "info --output=json", timeout=120))
    return tuple(_backup(entry) for stanza in found for entry in stanza.get("backup", []))


def _backup(entry: Mapping[str, Any]) -> Backup:
    at = datetime.datetime.fromtimestamp(entry["timestamp"]["stop"], datetime.timezone.utc)
    return Backup(
        label=entry["label"],
        at=at,
        start=entry["archive"]["start"],
        stop=entry["archive"]["stop"],
        size=entry["info"]["size"],
        stored=entry["info"]["repository"].get("delta", 0),
        bad=bool(entry.get("error")),
    )


def archived(plan: Plan, host: Host) -> set[Segment]:
    """Every segment of the log that lies in the repository.

    Raises CommandError when it cannot be read.
    """
    words = f"repo-ls --recurse --output=json archive/{STANZA}"
    return segments(json.loads(pgbackrest(plan, host, words, timeout=120)))


def holes(there: set[Segment], known: tuple[Backup, ...], newest: str = "") -> list[str]:
    """The segments that are missing from the oldest backup on, those that a backup or the newest point needs too."""
    if not known:
        return []
    needed = [Segment.of(backup.stop) for backup in known if backup.stop]
    needed += [Segment.of(newest)] if newest else []
    return [one.name for one in missing(there, Segment.of(known[0].start), needed)]


def verified(said: str, labels: set[str]) -> list[str]:
    """What is wrong by the text of `verify --output=text --verbose`; only an explicit word for each backup is good."""
    good = set(re.findall(r"backup: (\S+), status: valid,", said))
    wrong = [f"backup {label}: not said to be valid" for label in sorted(labels - good)]
    wrong += re.findall(r"^\s*(backup: \S+, status: (?!valid,).*)$", said, re.MULTILINE)
    if not re.search(r"^status: ok\b", said, re.MULTILINE):
        wrong.append("pgbackrest verify does not say: status: ok")
    return wrong


def store_request(plan: Plan, store: Mapping[str, Secret]) -> dict[str, Any]:
    """What the ops container needs to reach the buckets and the repository of objects."""
    kept = [
        {"name": b.name, "key": store[b.key].reveal(), "secret": store[b.secret].reveal()}
        for service in plan.services
        for b in service.buckets
        if b.name != plan.site.s3_bucket_backups
    ]
    return {
        "store": s3.place(plan.site),
        "buckets": kept,
        "repository": f"{PLACE}/restic",
        "passphrase": store[OBJECTS_PASSPHRASE].reveal(),
    }


def login(plan: Plan, store: Mapping[str, Secret]) -> dict[str, Any]:
    """How the ops container reads MLflow's rows, and in which bucket their files are."""
    return {
        "bucket": plan.site.s3_bucket_mlflow,
        "login": {
            "host": internal(plan.site, "postgres"),
            "user": "mlflow",
            "password": store[role_secret("mlflow")].reveal(),
            "dbname": "mlflow",
            "sslmode": "verify-full",
            "sslrootcert": ROOT_CA,
            "connect_timeout": 10,
        },
    }


def with_objects(
    plan: Plan,
    host: Host,
    module: str,
    request: Mapping[str, Any],
    *,
    timeout: float,
    network: str = "",
) -> Any:
    """Run a module of bundle.ops that works on the repository of objects.

    Raises CommandError when it fails.
    """
    place = str(ledger.place(host, plan.site, OBJECTS))
    mounted = {place: PLACE}
    try:
        return ask(plan, host, module, request, timeout=timeout, network=network, writable=mounted)
    except CommandError as error:
        said = [line[4:] for line in str(error).splitlines() if line.startswith("  | ")]
        hint = say("Run again with --debug.", "--debug로 다시 실행하십시오.")
        raise CommandError(said[-1] if said else str(error), where=place, hint=hint) from error
