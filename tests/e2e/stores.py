"""Tries at the stores with credentials of others; runs in a container of the ops image, on the data network.

The line before this text sets REQUEST. Each try is (what, whether it was refused, what was said).
"""

# ruff: noqa: F821
# mypy: disable-error-code="name-defined"

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import urllib3
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import S3Error


def sql(role: str, password: str, database: str) -> tuple[bool, str]:
    """Log in as `role` to `database`."""
    try:
        psycopg.connect(
            host=REQUEST["postgres"], user=role, password=password, dbname=database,
            sslmode="verify-full", sslrootcert="/run/root.crt", connect_timeout=10,
        ).execute("select 1").fetchall()  # fmt: skip
    except psycopg.Error as error:
        return True, str(error).strip().splitlines()[0]
    return False, "came in"


def s3(key: str, secret: str, act: Callable[[Minio], object]) -> tuple[bool, str]:
    """Do something as the holder of a key."""
    pool = urllib3.PoolManager(ca_certs="/run/root.crt", timeout=10, retries=False)
    provider = StaticProvider(key, secret)
    client = Minio(endpoint=REQUEST["minio"], credentials=provider, http_client=pool)
    try:
        act(client)
    except S3Error as error:
        return error.code in (
            "AccessDenied",
            "SignatureDoesNotMatch",
            "InvalidAccessKeyId",
        ), error.code
    return False, "done"


ACTS: dict[str, Callable[[str], Callable[[Minio], object]]] = {
    "list": lambda bucket: lambda client: list(client.list_objects(bucket)),
    "read": lambda bucket: lambda client: client.get_object(bucket, "x").read(),
    "write": lambda bucket: lambda client: client.put_object(bucket, "x", io.BytesIO(b"x"), 1),
}
rows: list[Any] = [
    [f"sql {role} in {database}", *sql(role, password, database)]
    for role, password, database in REQUEST["sql"]
]
rows += [
    [f"s3 {who} {act} {bucket}", *s3(key, secret, ACTS[act](bucket))]
    for who, key, secret, act, bucket in REQUEST["s3"]
]
json.dump(rows, sys.stdout)
