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
from typing import Any

from bundle.errors import CommandError
from bundle.host import Host
from bundle.inside import ask, superuser
from bundle.model import Database, Secret, role_secret
from bundle.plan import Plan
from bundle.run import log
from bundle.services import s3
from bundle.services.names import ROOT_CA, internal
from bundle.words import say

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
    """The statements that make every declared role and database so; names are the product's own identifiers.

    The answer has a line `name<TAB>mark` for each database with an owner: what `mark_migrated` last wrote, or nothing.
    """
    lines = [
        "\\set ON_ERROR_STOP on",
        "\\pset format unaligned",
        "\\pset tuples_only on",
        "REVOKE ALL ON DATABASE postgres FROM PUBLIC;",
        "REVOKE ALL ON DATABASE template1 FROM PUBLIC;",
    ]
    for database in databases:
        for role in database.roles:
            lines += _role_sql(role, store[role_secret(role)])
        if database.name != "postgres":
            lines += _own_database_sql(database)
        lines.append(f"GRANT CONNECT ON DATABASE {database.name} TO {', '.join(database.roles)};")
    for database in databases:
        if database.owner:
            lines += _table_rights_sql(database)
    return "\n".join(lines) + "\n"


def _role_sql(role: str, password: Secret) -> list[str]:
    return [
        f"SELECT 'CREATE ROLE {role}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')\\gexec",
        f"ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
        f"  PASSWORD '{scram(password)}';",
    ]


def _own_database_sql(database: Database) -> list[str]:
    name, owner = database.name, database.owner or database.role
    exists = f"SELECT FROM pg_database WHERE datname = '{name}'"
    return [
        f"SELECT 'CREATE DATABASE {name} OWNER {owner}' WHERE NOT EXISTS ({exists})\\gexec",
        f"ALTER DATABASE {name} OWNER TO {owner};",
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;",
    ]


def _table_rights_sql(database: Database) -> list[str]:
    """The tables belong to the owner; the role that serves users reads and writes rows and changes no table."""
    role, owner, public = database.role, database.owner, "IN SCHEMA public"
    defaults = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} {public}"
    rows, numbers = "SELECT, INSERT, UPDATE, DELETE", "USAGE, SELECT, UPDATE"
    return [
        f"\\connect {database.name}",
        f"REASSIGN OWNED BY {role} TO {owner};",  # of releases in which the role owned all
        f"ALTER SCHEMA public OWNER TO {owner};",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;",
        f"REVOKE ALL ON SCHEMA public FROM {role};",
        f"GRANT USAGE ON SCHEMA public TO {role};",
        f"GRANT {rows} ON ALL TABLES {public} TO {role};",
        f"GRANT {numbers} ON ALL SEQUENCES {public} TO {role};",
        f"{defaults} GRANT {rows} ON TABLES TO {role};",
        f"{defaults} GRANT {numbers} ON SEQUENCES TO {role};",
        f"SELECT '{database.name}' || E'\\t' || coalesce(obj_description('public'::regnamespace), '');",
    ]


def make_databases(plan: Plan, host: Host, store: Mapping[str, Secret]) -> dict[str, str]:
    """Make roles and databases so; the mark that each database with an owner carries.

    Raises CommandError when Postgres refuses.
    """
    answer = superuser(plan, host, database_sql(plan.databases, store))
    lines = [line.split("\t", 1) for line in answer.splitlines() if "\t" in line]
    return dict(lines)


def mark_migrated(plan: Plan, host: Host, names: tuple[str, ...], mark: str) -> None:
    """Write on the databases `names` which image brought their tables up.

    Raises CommandError when Postgres refuses.
    """
    statements = ["\\set ON_ERROR_STOP on", f"\\set mark '{mark}'"]
    for name in names:
        statements += [f"\\connect {name}", "COMMENT ON SCHEMA public IS :'mark';"]
    superuser(plan, host, "\n".join(statements) + "\n")


def set_superuser_password(plan: Plan, host: Host, password: Secret) -> None:
    """Give the superuser a password, by which it can log in from nowhere (the socket asks for none).

    Raises CommandError when Postgres refuses.
    """
    superuser(plan, host, f"ALTER ROLE postgres PASSWORD '{scram(password)}';\n")


def make_buckets(
    plan: Plan, host: Host, store: Mapping[str, Secret], gone: Iterable[Secret] = ()
) -> list[str]:
    """Make buckets, users and policies so, and the users with the keys `gone` go; returns the buckets that are new.
    On the site's own S3 only look.

    Raises CommandError when the object store refuses, or is not as it must be.
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
    place = s3.place(plan.site)
    if plan.site.s3_endpoint:
        see_theirs(plan, host, {"store": place, "buckets": buckets})
        return []
    request = {
        "store": place,
        "key": store["MINIO_ROOT_USER"].reveal(),
        "secret": store["MINIO_ROOT_PASSWORD"].reveal(),
        "buckets": buckets,
        "gone": [key.reveal() for key in gone],
    }
    return list(ask(plan, host, "buckets", request, timeout=OPS_WITHIN_S)["made"])


def see_theirs(plan: Plan, host: Host, request: Mapping[str, Any]) -> None:
    """See that the buckets of the site's own S3 are there, versioned, and that the key may do its work.

    Raises CommandError with everything that is wrong.
    """
    found = ask(plan, host, "theirs", request, timeout=OPS_WITHIN_S)
    for name in found["loose"]:
        said = say(
            f"{name}: the key may destroy versions; its policy should deny s3:DeleteObjectVersion",
            f"{name}: 이 키로 버전을 지울 수 있습니다. 정책에서 s3:DeleteObjectVersion을 거부하십시오",
        )
        log.warning("  %s", said)
    if found["wrong"]:
        hint = say(
            "Make the buckets with versioning there, and give the key its rights (docs/object-store.md).",
            "그 저장소에 버전 관리 버킷을 만들고 키에 권한을 주십시오 (docs/object-store.md).",
        )
        raise CommandError("; ".join(found["wrong"]), where=plan.site.s3_endpoint, hint=hint)


def check_separation(plan: Plan, host: Host, store: Mapping[str, Secret]) -> None:
    """See that each role gets into its own database and into no other.

    Raises CommandError when one does not, or does.
    """
    roles = [
        {"role": role, "name": database.name, "password": store[role_secret(role)].reveal()}
        for database in plan.databases
        for role in database.roles
    ]
    request = {"host": internal(plan.site, "postgres"), "root_ca": ROOT_CA, "roles": roles}
    for role, found in ask(plan, host, "databases", request, timeout=OPS_WITHIN_S).items():
        wanted = [database.name for database in plan.databases if role in database.roles]
        if found != wanted:
            raise CommandError(
                f"role {role} gets into {found or 'no database'}, not just into {wanted}",
                where="postgres",
                hint="Look at rendered/postgres/pg_hba.conf, then run invoke install again.",
            )
