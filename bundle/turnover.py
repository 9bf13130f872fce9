"""What new secrets mean to the servers: former ones are tried, data keys are turned with a dump before.

Every pass can be run again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle import accounts
from bundle.accounts import ADMIN, Login
from bundle.errors import CommandError
from bundle.gateway_client import door
from bundle.host import Host, make_folder, write_file
from bundle.inside import ask, execute_into
from bundle.model import Secret, role_secret
from bundle.own import Own, Trackers
from bundle.plan import Plan
from bundle.services.names import ROOT_CA, STACK, internal
from bundle.words import say

WITHIN_S = 120
DUMP_WITHIN_S = 6 * 3600
TURN_WITHIN_S = 1800
DATA_KEYS = {"MLFLOW_CRYPTO_KEK_PASSPHRASE": "mlflow", "PHOENIX_SECRET": "phoenix"}
"""Which service has which data key; its database has the same name."""
MLFLOW_STACK, MLFLOW_FIRST = "MLFLOW_STACK_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"
PHOENIX_FIRST = "PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD"
MAGIC = b"PGDMP"
_SECRETS = (
    "{ secrets(first: 1000) { edges { node { key value { __typename"
    " ... on UnparsableSecret { parseError } } } } } }"
)


def _stores(plan: Plan) -> dict[str, Any]:
    return {
        "database": internal(plan.site, "postgres"),
        "endpoint": f"{internal(plan.site, 'minio')}:9000",
        "root_ca": ROOT_CA,
    }


def still_taken_by_stores(
    plan: Plan, host: Host, old: Mapping[str, Secret], store: Mapping[str, Secret]
) -> list[str]:
    """The names of the former secrets with which Postgres or the object store still lets somebody in.

    Raises CommandError when one of them cannot be asked.
    """
    roles = [
        {"secret": name, "role": role, "name": d.name, "password": old[name].reveal()}
        for d in plan.databases
        for role in d.roles
        if (name := role_secret(role)) in old
    ]
    pairs = [(bucket.key, bucket.secret) for s in plan.services for bucket in s.buckets]
    pairs.append(("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"))
    both = {**store, **old}
    keys = [
        {"name": secret, "key": both[key].reveal(), "secret": both[secret].reveal()}
        for key, secret in pairs
        if {key, secret} & {*old}
    ]
    if not roles and not keys:
        return []
    request = {**_stores(plan), "roles": roles, "keys": keys}
    return list(ask(plan, host, "refused", request, timeout=WITHIN_S))


def still_taken_by_trackers(
    trackers: Trackers, old: Mapping[str, Secret], people: Iterable[Own]
) -> list[str]:
    """The names of the former secrets with which a tracker still lets somebody in.

    Raises CommandError when one does not answer.
    """
    logins = {MLFLOW_FIRST: ADMIN, MLFLOW_STACK: STACK, **{p.password: p.name for p in people}}
    taken = [
        name
        for name, user in logins.items()
        if name in old
        and accounts.mlflow_accepts(trackers.mlflow, Login(name=user, password=old[name]))
    ]
    secret = old.get("PHOENIX_ADMIN_SECRET")
    if secret is not None:
        answer = trackers.phoenix.ask("GET", "/v1/users", bearer=secret.reveal())
        if answer.status_code not in (401, 403):
            taken.append("PHOENIX_ADMIN_SECRET")
    keys = [who.key for who in people if who.key in old]
    return taken + [key for key in keys if accounts.phoenix_accepts(trackers.phoenix, old[key])]


def keep_safe(plan: Plan, host: Host, name: str, old: Secret, new: Secret) -> Path:
    """A safety dump of the database that the data key `name` belongs to, and the key itself, made once a rotation.

    It is a way back from this rotation, no backup: `<root>/safety/<name>-<mark of the new value>`, for root only.

    Raises CommandError when the database cannot be dumped.
    """
    mark = hashlib.sha256(new.reveal().encode()).hexdigest()[:8]
    folder = host.path("safety", f"{name}-{mark}")
    if folder.exists():
        return folder
    make_folder(host.path("safety"), 0o700)
    part = folder.with_name(f".{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part, 0o700)
    database = DATA_KEYS[name]
    command = ["pg_dump", "-h", "/tmp", "-U", "postgres", "--format=custom", database]
    write_file(part / name, old.reveal().encode(), mode=0o400)
    with open(os.open(part / f"{database}.dump", os.O_RDWR | os.O_CREAT, 0o400), "w+b") as out:
        execute_into(plan, host, "postgres", command, out, timeout=DUMP_WITHIN_S)
        out.flush()
        os.fsync(out.fileno())
        out.seek(0)
        if out.read(len(MAGIC)) != MAGIC:
            raise CommandError("pg_dump gave no dump", where="postgres", hint="Run this again.")
    part.rename(folder)
    for other in host.path("safety").glob(f"{name}-*"):
        if other != folder:  # the newest is the one way back that can be wanted
            shutil.rmtree(other)
    return folder


def turn(
    plan: Plan, host: Host, name: str, old: Secret, new: Secret, *, act: bool = True
) -> dict[str, int]:
    """How many rows each key of the data key `name` opened; with `act` what the old one opened is encrypted anew.

    Raises CommandError when a row opens by neither key: nothing was changed then.
    """
    kind = DATA_KEYS[name]
    database = next(d for d in plan.databases if d.name == kind)
    store = host.path("secrets", "store", role_secret(database.role)).read_text("utf-8").strip()
    role = {"role": database.role, "name": database.name, "password": store}
    keys = {"old": old.reveal(), "new": new.reveal(), "act": act}
    request = {**_stores(plan), "role": role, "kind": kind, **keys}
    found: dict[str, int] = ask(plan, host, "rekey", request, timeout=TURN_WITHIN_S)
    if found["none"]:
        raise CommandError(
            say(
                f"{found['none']} encrypted rows open by neither the old nor the new key; nothing was changed",
                f"암호화된 행 {found['none']}개가 이전 키와 새 키 중 어느 것으로도 열리지 않아, 바꾸지 않았습니다",
            ),
            where=kind,
            hint=say(
                "They were lost before this rotation: delete these secrets in the tracker, then run this again.",
                "이 교체 이전에 잃은 값입니다. 추적기에서 그 비밀을 지운 뒤 다시 실행하십시오.",
            ),
        )
    return found


def phoenix_opens(trackers: Trackers) -> int:
    """How many stored secrets Phoenix itself opens with the key that it runs with.

    Raises CommandError when it does not open one.
    """
    answer = trackers.phoenix.ask(
        "POST", "/graphql", bearer=trackers.secret.reveal(), json={"query": _SECRETS}
    )
    body = accounts.expect(answer, 200, task="opening stored secrets", where="phoenix")
    found = [edge["node"] for edge in body["data"]["secrets"]["edges"]]
    shut = [node["key"] for node in found if node["value"]["__typename"] != "DecryptedSecret"]
    if shut:
        hint = f"The way back lies in safety/: see docs/secrets.md ({', '.join(shut)})."
        raise CommandError("does not open stored secrets any more", where="phoenix", hint=hint)
    return len(found)


def first_in_mlflow(trackers: Trackers, old: Secret, new: Secret) -> bool:
    """Give MLflow's first administrator the password `new`; False when the person has chosen another since.

    Raises CommandError when MLflow does not answer.
    """
    if accounts.mlflow_accepts(trackers.mlflow, Login(name=ADMIN, password=new)):
        return True
    if not accounts.mlflow_accepts(trackers.mlflow, Login(name=ADMIN, password=old)):
        return False
    login = Login(name=ADMIN, password=new)
    accounts.mlflow_set_password(trackers.mlflow, trackers.admin, login)
    return True


def first_in_phoenix(plan: Plan, host: Host, trackers: Trackers, old: Secret, new: Secret) -> bool:
    """Give Phoenix' first administrator the password `new`; False when the person has chosen another since.

    Raises CommandError when Phoenix does not answer.
    """
    address = "admin@localhost"
    if accounts.phoenix_log_in(door(plan, host, "phoenix"), address, new):
        return True
    if not accounts.phoenix_log_in(door(plan, host, "phoenix"), address, old):
        return False
    user = accounts.phoenix_users(trackers.phoenix, trackers.secret)[ADMIN]
    accounts.phoenix_set_password(trackers.phoenix, trackers.secret, user, new)
    return True
