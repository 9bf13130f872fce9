"""See that the site's own S3 has what the stack needs, and that its key may do what it must: nothing is made there.

Only one small object a bucket is written, once: that the key may write is not to be believed.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from bundle.ops.s3 import client

PROBE = ".tracking-bundle"
CONTENT = b"tracking-bundle\n"


def look(store: Minio, bucket: str) -> tuple[str, bool]:
    """What is wrong with a bucket, or nothing; and whether the key may destroy versions."""
    if not store.bucket_exists(bucket):
        return "is not there", False
    status = store.get_bucket_versioning(bucket).status
    if status != "Enabled":
        return f"has versioning {status}", False
    try:
        store.stat_object(bucket, PROBE)
        return "", False
    except S3Error as error:
        if error.code not in ("NoSuchKey", "NoSuchObject"):
            raise
    first = store.put_object(bucket, PROBE, io.BytesIO(b"first\n"), 6).version_id
    store.put_object(bucket, PROBE, io.BytesIO(CONTENT), len(CONTENT))
    answer = store.get_object(bucket, PROBE, version_id=first)
    try:
        if answer.read() != b"first\n":
            return "does not keep versions", False
    finally:
        answer.close()
        answer.release_conn()
    _in_parts(store, bucket)
    try:
        store.remove_object(bucket, PROBE, version_id=first)
    except S3Error:
        return "", False
    return "", True


def _in_parts(store: Minio, bucket: str) -> None:
    """Begin an upload in parts and give it up, as a client that is interrupted does."""
    upload = store._create_multipart_upload(bucket, f"{PROBE}.parts", {})
    store._abort_multipart_upload(bucket, f"{PROBE}.parts", upload)


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Look at every bucket: what is wrong, and in which the key may destroy versions."""
    wrong, loose = [], []
    for bucket in request["buckets"]:
        name = bucket["name"]
        try:
            problem, destroys = look(
                client(request["store"], bucket["key"], bucket["secret"]), name
            )
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
            reason = error.code if isinstance(error, S3Error) else str(error)[:200]
            problem, destroys = f"cannot be used: {reason}", False
        wrong += [f"bucket {name} {problem}"] if problem else []
        loose += [name] if destroys else []
    return {"wrong": wrong, "loose": loose}


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
