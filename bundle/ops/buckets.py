"""Make the declared buckets, their users and policies so: versioned, one least-privilege key a bucket; idempotent."""

from __future__ import annotations

import json
import sys
from typing import Any

from minio import MinioAdmin
from minio.commonconfig import ENABLED
from minio.credentials import StaticProvider
from minio.versioningconfig import VersioningConfig

from bundle.ops.s3 import client, pool


def policy(bucket: dict[str, Any]) -> dict[str, Any]:
    """The policy of a bucket's user.

    The denials matter: this server lets s3:DeleteObject destroy single versions, and any user make further keys for
    himself, which would outlive a change of his own.
    """
    arn = f"arn:aws:s3:::{bucket['name']}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": bucket["on_bucket"], "Resource": [arn]},
            {"Effect": "Allow", "Action": bucket["on_objects"], "Resource": [f"{arn}/*"]},
            {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion"], "Resource": [f"{arn}/*"]},
            {"Effect": "Deny", "Action": ["admin:*"]},
        ],
    }


def make_so(request: dict[str, Any]) -> list[str]:
    """Make every bucket of `request` so, and its former users `gone`; returns what was new."""
    place = request["store"]
    store = client(place, request["key"], request["secret"], retries=3)
    admin = MinioAdmin(
        endpoint=place["endpoint"],
        credentials=StaticProvider(request["key"], request["secret"]),
        http_client=pool(place, retries=3),
    )
    made = []
    for bucket in request["buckets"]:
        if not store.bucket_exists(bucket["name"]):
            store.make_bucket(bucket["name"])
            made.append(bucket["name"])
        if store.get_bucket_versioning(bucket["name"]).status != ENABLED:
            store.set_bucket_versioning(bucket["name"], VersioningConfig(ENABLED))
        admin.user_add(bucket["key"], bucket["secret"])
        admin.policy_add(bucket["name"], policy=policy(bucket))
        admin.policy_set(bucket["name"], user=bucket["key"])
    for key in {*request.get("gone", [])} & {*json.loads(admin.user_list())}:
        admin.user_remove(key)
    return made


if __name__ == "__main__":
    json.dump({"made": make_so(json.load(sys.stdin))}, sys.stdout)
