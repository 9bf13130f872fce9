"""Make the declared databases, roles, buckets and policies so; every pass can be run again.

What needs the superuser goes over the socket inside the Postgres container (peer, no password); the rest goes over TLS
from one-off containers of the ops image. Secrets travel on standard input only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping

from bundle.errors import CommandError
from bundle.host import Host
from bundle.inside import ask
from bundle.model import Database, Secret
from bundle.plan import Plan
from bundle.services.names import ROOT_CA, internal

SCRAM_ITERATIONS = 4096
OPS_WITHIN_S = 120


def scram(password: Secret) -> str:
    """The SCRAM-SHA-256 verifier of `password` as Postgres stores it, so that no password is in any statement."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.reveal().encode(), salt, SCRAM_ITERATIONS)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, client64, server64 = (
        base64.b64encode(value).decode() for value in (salt, client, server)
    )
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{salt64}${client64}:{server64}"


def database_sql(databases: tuple[Database, ...], store: Mapping[str, Secret]) -> str:
    """The statements that make every declared role and database so; names are the product's own identifiers."""
    lines = [
        "\\set ON_ERROR_STOP on",
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC;",
        "REVOKE ALL ON DATABASE template1 FROM PUBLIC;",
    ]
    for database in databases:
        role, name = database.role, database.name
        lines += [
            f"SELECT 'CREATE ROLE {role}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')\\gexec",
            f"ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
            f"  PASSWORD '{scram(store[database.secret])}';",
        ]
        if name != "postgres":
            exists = f"SELECT FROM pg_database WHERE datname = '{name}'"
            lines += [
                f"SELECT 'CREATE DATABASE {name} OWNER {role}' WHERE NOT EXISTS ({exists})\\gexec",
                f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;",
            ]
        lines.append(f"GRANT CONNECT ON DATABASE {name} TO {role};")
    return "\n".join(lines) + "\n"


def make_databases(plan: Plan, host: Host, store: Mapping[str, Secret]) -> None:
    """Make roles and databases so.

    Raises CommandError when Postgres refuses.
    """
    _psql(plan, host, database_sql(plan.databases, store))


def set_superuser_password(plan: Plan, host: Host, password: Secret) -> None:
    """Give the superuser a password, by which it can log in from nowhere (the socket asks for none).

    Raises CommandError when Postgres refuses.
    """
    _psql(plan, host, f"ALTER ROLE postgres PASSWORD '{scram(password)}';\n")


def _psql(plan: Plan, host: Host, text: str) -> None:
    host.engine.compose(
        plan.project,
        host.path("rendered", "compose.yaml"),
        [
            "exec",
            "-T",
            "postgres",
            "psql",
            "--no-psqlrc",
            "--quiet",
            "-h",
            "/tmp",
            "-U",
            "postgres",
            "-d",
            "postgres",
        ],
        text=text,
        timeout=60,
    )


def make_buckets(
    plan: Plan, host: Host, store: Mapping[str, Secret], gone: Iterable[Secret] = ()
) -> list[str]:
    """Make buckets, users and policies so, and the users with the keys `gone` go; returns the buckets that are new.

    Raises CommandError when the object store refuses.
    """
    buckets = [
        {
            "name": bucket.name,
            "key": store[bucket.key].reveal(),
            "secret": store[bucket.secret].reveal(),
            "on_bucket": list(bucket.on_bucket),
            "on_objects": list(bucket.on_objects),
        }
        for service in plan.services
        for bucket in service.buckets
    ]
    request = {
        "endpoint": f"{internal(plan.site, 'minio')}:9000",
        "root_ca": ROOT_CA,
        "key": store["MINIO_ROOT_USER"].reveal(),
        "secret": store["MINIO_ROOT_PASSWORD"].reveal(),
        "buckets": buckets,
        "gone": [key.reveal() for key in gone],
    }
    return list(ask(plan, host, "buckets", request, timeout=OPS_WITHIN_S)["made"])


def check_separation(plan: Plan, host: Host, store: Mapping[str, Secret]) -> None:
    """See that each role gets into its own database and into no other.

    Raises CommandError when one does not, or does.
    """
    roles = [
        {"role": d.role, "name": d.name, "password": store[d.secret].reveal()}
        for d in plan.databases
    ]
    request = {"host": internal(plan.site, "postgres"), "root_ca": ROOT_CA, "roles": roles}
    for role, found in ask(plan, host, "databases", request, timeout=OPS_WITHIN_S).items():
        wanted = [database.name for database in plan.databases if database.role == role]
        if found != wanted:
            raise CommandError(
                f"role {role} gets into {found or 'no database'}, not just into {wanted}",
                where="postgres",
                hint="Look at rendered/postgres/pg_hba.conf, then run invoke install again.",
            )
