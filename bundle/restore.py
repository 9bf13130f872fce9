"""Bring a point back: the databases in the place of those that are here, then the objects; what was here stays aside.

A restore always has a named target: Postgres stops when it is not reached, and never opens a database that silently
ends earlier. While one is under way a note in the root keeps everything else from starting the databases.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle import ledger, points, repository, scratch
from bundle.errors import CommandError, ConfigError, IntegrityError, PreconditionError
from bundle.host import Host, make_folder, write_file
from bundle.inside import superuser
from bundle.model import OneOff, Secret
from bundle.plan import Plan
from bundle.points import Point
from bundle.services.postgres import CLUSTER, DATA, PGBACKREST, REPOSITORY
from bundle.site import SITE_LABEL
from bundle.underway import NOTE
from bundle.words import say

WITHIN_S = 6 * 3600
ROOM = 1 << 30
ELSEWHERE = ("DB_", "S3_", "MINIO_", "SUPERUSER_", "BACKUP_")
"""Secrets that follow what is here now; all others live in the databases, and come back with them."""
SCRIPT = f"""
set -eu
label=$1 point=$2 timeline=$3 before={CLUSTER}.before-$4
if [ -e {CLUSTER} ] && [ ! -e "$before" ]; then mv {CLUSTER} "$before"; fi
rm -rf {CLUSTER} {CLUSTER}.new
mkdir -m 0700 {CLUSTER}
{PGBACKREST} --set="$label" --type=name --target="$point" --target-timeline="$timeline" \\
    --target-action=promote restore >&2
"""


def check(plan: Plan, point: Point) -> None:
    """See that the point can be brought back here and now; nothing is changed.

    Raises ConfigError for another release.
    """
    if point.version != plan.version:
        message = say(
            f"the point is of release {point.version}, this is {plan.version}",
            f"이 시점은 {point.version} 릴리스의 것이고, 지금은 {plan.version}입니다",
        )
        hint = say(
            f"Bootstrap and install the bundle {point.version}, restore there, then upgrade.",
            f"번들 {point.version}을 설치해 복구한 뒤 업그레이드하십시오.",
        )
        raise ConfigError(message, where=point.id, hint=hint)


def check_room(host: Host, point: Point) -> None:
    """See that the databases that are here and the point's have room beside one another, and its objects too.

    Raises PreconditionError.
    """
    place = Path(host.engine.api.info()["DockerRootDir"])
    need = point.databases + point.size + ROOM
    free = shutil.disk_usage(place).free
    if free < need:
        message = say(
            f"{free >> 20:,} MiB are free, {need >> 20:,} MiB are needed",
            f"여유 {free >> 20:,} MiB, 필요 {need >> 20:,} MiB",
        )
        hint = say("Make room; nothing was changed.", "공간을 확보하십시오. 바뀐 것은 없습니다.")
        raise PreconditionError(message, where=str(place), hint=hint)


def remember(host: Host, point: Point) -> str:
    """Note that a restore is under way; what the former databases are called, also for a run that goes on with it."""
    begun = str(int(time.time()))
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = json.loads(host.path(NOTE).read_bytes())
        begun = found["begun"] if found["point"] == point.id else begun
    note = json.dumps({"point": point.id, "begun": begun})
    write_file(host.path(NOTE), note.encode(), mode=0o600)
    return f"{point.id}-{begun}"


def forget(host: Host) -> None:
    """The restore is done."""
    host.path(NOTE).unlink(missing_ok=True)


def databases(plan: Plan, host: Host, point: Point, former: str) -> None:
    """Put the databases of the point in the place of those that are here, which stay beside as `former`; all services
    are stopped.

    Raises CommandError when the repository does not give them.
    """
    repository_ = ledger.place(host, plan.site, "pgbackrest")
    host.engine.one_off(
        OneOff(
            image=plan.image("postgres"),
            entrypoint="bash",
            arguments=(
                *("-c", SCRIPT, "bash", point.database, point.id),
                *(str(scratch.timeline(point)), former),
            ),
            user=plan.service("postgres").uid,
            network="none",
            labels={SITE_LABEL: plan.id},
            binds={
                str(repository_): REPOSITORY,
                str(host.path("secrets", "postgres")): "/run/secrets",
                plan.volumes["postgres"]: DATA,
            },
            writable=(DATA,),
        ),
        text="",
        timeout=WITHIN_S,
    )


def wait_promoted(plan: Plan, host: Host, point: Point) -> None:
    """Wait until the named place is reached and the databases take changes; its own heartbeat must be there.

    Raises CommandError when it is not.
    """
    ask = (
        "\\t\nselect 'state', pg_is_in_recovery(), (select count(*) from bundle.points"
        f" where id = '{point.id}');\n"
    )
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        said = superuser(plan, host, f"\\pset format unaligned\n{ask}")
        row = next(line for line in said.splitlines() if line.startswith("state|"))
        if row == "state|f|1":
            return
        if row.startswith("state|f|"):
            break
        time.sleep(0.5)
    raise CommandError(
        say("the named place was not reached", "지정한 지점에 도달하지 못했습니다"),
        where=point.id,
        hint=say(
            "Look at invoke logs --service postgres.", "invoke logs --service postgres를 보십시오."
        ),
    )


def objects(plan: Plan, host: Host, store: Mapping[str, Secret], point: Point) -> dict[str, Any]:
    """Bring the objects of the point back into the buckets, and compare them with the restored rows.

    Raises IntegrityError when a row names what is not there.
    """
    asked = repository.store_request(plan, store) | {
        "packs": points.rows(point.packs),
        "state": point.state,
        "write": True,
        "database": repository.login(plan, store),
        "bucket": plan.site.s3_bucket_mlflow,
    }
    found: dict[str, Any] = repository.with_objects(plan, host, "put", asked, timeout=WITHIN_S)
    if found["unmet"] > len(point.missing):
        raise IntegrityError(
            say(
                f"{found['unmet']} rows name objects that are not there: {found['missing'][0]}",
                f"객체가 없는 행 {found['unmet']}개: {found['missing'][0]}",
            ),
            where=point.id,
            hint=say("Restore an earlier point.", "이전 시점으로 복구하십시오."),
        )
    return found


def opener(plan: Plan, host: Host, store: Mapping[str, Secret], point: Point) -> dict[str, bytes]:
    """What opened the site when the point was made, by path.

    Raises CommandError when it cannot be read.
    """
    asked = repository.store_request(plan, store) | {"snapshot": point.config}
    answer = repository.with_objects(plan, host, "opener", asked, timeout=600, network="none")
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(answer["data"]))) as archive:
        return {
            member.name: found.read()
            for member in archive
            if (found := archive.extractfile(member))
        }


def take_secrets(host: Host, files: Mapping[str, bytes]) -> list[str]:
    """Take the secrets that live in the databases as they were then, where they have changed since; which those are."""
    changed = []
    for name, data in sorted(files.items()):
        folder, _, secret = name.rpartition("/")
        if folder != "secrets/store" or secret.startswith(ELSEWHERE):
            continue
        path = host.path(name)
        if not path.exists() or path.read_bytes() != data:
            write_file(path, data, mode=0o400)
            changed.append(secret)
    return changed


def check_empty(host: Host) -> None:
    """See that nothing is installed here: a recovery kit is for an empty host.

    Raises ConfigError.
    """
    if host.compose_file.exists():
        hint = say(
            "Without --kit this installation is restored; --kit is for an empty host.",
            "--kit 없이 실행하면 이 설치를 복구합니다. --kit은 빈 호스트용입니다.",
        )
        message = say("something is installed here", "이미 설치되어 있습니다")
        raise ConfigError(message, where=str(host.root), hint=hint)


def unpack(host: Host, files: Mapping[str, bytes]) -> None:
    """Put what a recovery kit holds into the root; the mark of an installation comes last."""
    make_folder(host.path("secrets"), 0o700)
    last = "site-id"
    for name in sorted(files, key=lambda one: (one == last, one)):
        path = host.path(name)
        secret = name.startswith("secrets/") or name.endswith(".key")
        make_folder(path.parent, 0o700 if name.startswith(("secrets/", "pki/")) else 0o755)
        write_file(path, files[name], mode=0o400 if secret else 0o644)
