"""Look at the stores from inside: certificates of every hop, versions of buckets, which role gets into which database.

Each part is tried by itself: {"part": {"found": …} or {"error": …}}.
"""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from bundle.ops.databases import matrix
from bundle.ops.s3 import client

SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # how a client of Postgres asks for TLS


def attempt(part: Callable[[], Any]) -> dict[str, Any]:
    """What `part` finds, or why it could not look."""
    try:
        return {"found": part()}
    except Exception as error:  # noqa: BLE001  (a part that breaks is red, and hides no other)
        return {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}


def hop(request: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    """Connect to a server by its internal name, verify chain and name, and see when its certificate ends."""
    context = ssl.create_default_context(
        cafile=None if "ca" in server else request["root_ca"], cadata=server.get("ca")
    )
    address = (server["name"], server["port"])
    with socket.create_connection(address, timeout=10) as plain:
        if server["starttls"]:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ConnectionError("the server offers no TLS")
        with context.wrap_socket(plain, server_hostname=server["name"]) as secure:
            certificate, version = secure.getpeercert() or {}, secure.version()
    end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    left = datetime.datetime.fromtimestamp(end, datetime.timezone.utc)
    return {"until": left.isoformat(), "protocol": version}


def plain_refused(request: dict[str, Any]) -> str:
    """How Postgres refuses a role with the right password over a connection without TLS."""
    role = request["roles"][0]
    try:
        psycopg.connect(
            host=request["database"],
            user=role["role"],
            password=role["password"],
            dbname=role["name"],
            sslmode="disable",
            connect_timeout=10,
        ).close()
    except psycopg.OperationalError as error:
        if "no encryption" in str(error):
            return str(error).strip().splitlines()[-1]
        raise
    raise ConnectionError("Postgres takes connections without TLS")


def versioning(request: dict[str, Any]) -> dict[str, str]:
    """The state of versioning of each bucket that there is, asked with the key of the service that it is for."""
    found = {}
    for bucket in request["buckets"]:
        store = client(request["store"], bucket["key"], bucket["secret"])
        if store.bucket_exists(bucket["name"]):
            found[bucket["name"]] = str(store.get_bucket_versioning(bucket["name"]).status)
    return found


CHANGES = (
    "create table public.tracking_probe ()",
    "create schema tracking_probe",
    "create temporary table tracking_probe ()",
)
"""What a role that serves users must be refused, besides changing a table that is there."""
OWNED = "select relname from pg_class where relowner = current_user::regrole limit 3"
TABLES = "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'public' order by 1 limit 1"


def may_change(request: dict[str, Any], role: dict[str, str]) -> list[str]:
    """What `role` may do to the tables of its own database; nothing is changed by asking."""
    with psycopg.connect(
        host=request["database"],
        user=role["role"],
        password=role["password"],
        dbname=role["name"],
        sslmode="verify-full",
        sslrootcert=request["root_ca"],
        connect_timeout=10,
    ) as connection:
        owned = connection.execute(OWNED).fetchall()
        tables = [name for (name,) in connection.execute(TABLES).fetchall()]
        if not tables:
            raise LookupError(f"database {role['name']} has no table")
        wanted = [
            *CHANGES,
            f"truncate {tables[0]}",
            f"alter table {tables[0]} add tracking_probe int",
        ]
        done = [f"owns {name}" for (name,) in owned]
        for statement in wanted:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(statement)
                    done.append(statement)
            except psycopg.errors.InsufficientPrivilege:
                continue
    return done


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Look at everything."""
    roles = {"host": request["database"], "root_ca": request["root_ca"], "roles": request["roles"]}
    return {
        "hops": {
            server["name"]: attempt(partial(hop, request, server)) for server in request["servers"]
        },
        "plain": attempt(lambda: plain_refused(request)),
        "versioning": attempt(lambda: versioning(request)),
        "matrix": attempt(lambda: matrix(roles)),
        "changes": {
            role["role"]: attempt(partial(may_change, request, role)) for role in request["serving"]
        },
    }


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
