"""versitygw's own tests against our object store: the table in docs/object-store.md is what comes out here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import objectstore
from tests.objectstore import ROOT, Server

pytestmark = [pytest.mark.timeout(1800), pytest.mark.nightly]
TOP = Path(__file__).parents[2]
DOCUMENT = TOP / "docs" / "object-store.md"
FOUND = TOP / "tests" / "data" / "versitygw-suite.txt"
GROUPS = {
    "signatures": "Authentication PresignedAuth",
    "buckets": "CreateBucket HeadBucket DeleteBucket ListBuckets GetBucketLocation",
    "put": "PutObject SignedStreamingPayload SignedStreamingPayloadTrailer UnsignedStreamingPayloadTrailer",
    "get, head, attributes": "GetObject HeadObject GetObjectAttributes",
    "delete": "DeleteObject DeleteObjects",
    "copy": "CopyObject",
    "lists": "ListObjects ListObjectsV2",
    "uploads in parts": (
        "CreateMultipartUpload UploadPart UploadPartCopy CompleteMultipartUpload AbortMultipartUpload "
        "ListParts ListMultipartUploads"
    ),
    "versions": "Versioning PutBucketVersioning GetBucketVersioning ListObjectVersions",
    "locks": (
        "PutObjectLockConfiguration GetObjectLockConfiguration PutObjectRetention GetObjectRetention "
        "PutObjectLegalHold GetObjectLegalHold WORMProtection"
    ),
    "tags": (
        "PutObjectTagging GetObjectTagging DeleteObjectTagging PutBucketTagging GetBucketTagging "
        "DeleteBucketTagging"
    ),
    "policies": "PutBucketPolicy GetBucketPolicy DeleteBucketPolicy GetBucketPolicyStatus",
    "browser POST": "PostObject",
}


def named() -> dict[str, list[str]]:
    """The suite's tests of each of our groups."""
    command = [str(objectstore.versitygw()), "test", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = sorted(re.findall(r"^ +(\w+) .* integration test$", said, re.MULTILINE))
    return {
        group: [name for name in names if name.partition("_")[0] in words.split()]
        for group, words in GROUPS.items()
    }


def passes(server: Server, name: str) -> tuple[bool, str]:
    """Run one of them, alone: a panic ends nothing else; and what it said."""
    words = ["--allow-insecure", "--access", ROOT[0], "--secret", ROOT[1]]
    words += [
        "--endpoint",
        f"https://{objectstore.NAME}:{server.port}",
        name,
        "--versioning-enabled",
    ]
    try:
        done = subprocess.run(
            [str(objectstore.versitygw()), "test", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        )
    finally:
        clear(server)
    return done.returncode == 0, done.stdout + done.stderr


def clear(server: Server) -> None:
    """Take away what a test left, by force: every test begins with the same names of buckets."""
    own = {bucket.name for bucket in objectstore.BUCKETS}
    for bucket in server.client().list_buckets():
        if bucket.name in own:
            continue
        force = {"X-Minio-Force-Delete": "true"}
        if server.signed("DELETE", f"/{bucket.name}", force, who=ROOT)[0] != 204:
            # What is locked goes from the disk.
            for place in ("", ".minio.sys/buckets"):
                shutil.rmtree(server.root_ca.parent / "data" / place / bucket.name)


def apart(name: str) -> bool:
    """Whether a test counts uploads: the server remembers those of buckets that are gone."""
    return name.startswith(("AbortMultipartUpload", "ListMultipartUploads"))


def run(program: Path, folder: Path, names: list[str]) -> dict[str, tuple[bool, str]]:
    """What comes out of tests, of some on a server of their own."""
    with objectstore.serving(program, folder / "all") as server:
        found = {name: passes(server, name) for name in names if not apart(name)}
    for name in filter(apart, names):
        with objectstore.serving(program, folder / name) as server:
            found[name] = passes(server, name)
    return {name: found[name] for name in names}


def test_suite_of_another_server_says_of_ours_what_the_document_says(
    minio_program: Path, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    found: dict[str, tuple[bool, str]] = {}
    rows = []
    for number, (group, names) in enumerate(named().items()):
        found |= run(minio_program, tmp_path / str(number), names)
        passed = sum(found[name][0] for name in names)
        rows.append(f"| {group} | {passed} | {len(names) - passed} |")
    lines = "".join(f"{'pass' if ok else 'FAIL'} {name}\n" for name, (ok, _) in found.items())
    said = [f"{name}: {words.strip()[-300:]}" for name, (ok, words) in found.items() if not ok]
    (tmp_path / "said.txt").write_text("\n".join([*rows, *said]))
    if pytestconfig.option.update:
        FOUND.write_text(lines)
    assert lines == FOUND.read_text(), f"see {tmp_path}/said.txt"
    document = DOCUMENT.read_text("utf-8")
    assert [row for row in rows if row not in document] == []
