"""See that former credentials open nothing any more: roles of Postgres, keys of the object store.

Only a refusal for the credential's own sake counts; what fails otherwise is an error.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import psycopg
import urllib3
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import S3Error

from bundle.ops.rows import connect

REFUSALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch")


def role_gets_in(request: dict[str, Any], role: dict[str, str]) -> bool:
    """Whether Postgres lets a role in with this password."""
    try:
        connect(request, role).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            return False
        raise
    return True


def key_gets_in(request: dict[str, Any], pair: dict[str, str]) -> bool:
    """Whether the object store takes this key with this secret; a lack of rights is an entry."""
    client = Minio(
        request["endpoint"],
        credentials=StaticProvider(pair["key"], pair["secret"]),
        region="us-east-1",
        http_client=urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED", ca_certs=request["root_ca"], timeout=10, retries=False
        ),
    )
    try:
        client.list_buckets()
    except S3Error as error:
        return error.code not in REFUSALS
    return True


def act(request: dict[str, Any]) -> list[str]:
    """The names of those that still get in."""
    roles = [one["secret"] for one in request["roles"] if role_gets_in(request, one)]
    return roles + [one["name"] for one in request["keys"] if key_gets_in(request, one)]


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
