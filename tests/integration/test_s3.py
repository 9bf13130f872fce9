"""What the stack needs of S3, tried against our object store, and at night another server: a swap stays possible."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from xml.etree import ElementTree

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, CopySource, Filter, Tags
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, NoncurrentVersionExpiration, Rule
from minio.versioningconfig import VersioningConfig

from tests import objectstore
from tests.objectstore import Server, text

pytestmark = pytest.mark.timeout(1800)
KINDS = ("minio", pytest.param("versitygw", marks=pytest.mark.nightly))
DIFFERENT = {"versitygw": {"lifecycle", "key_below_a_key"}}
"""What another server refuses; docs/object-store.md has the same list."""


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "versitygw":
        with objectstore.serving_other(objectstore.versitygw(), folder / "site") as found:
            yield found
        return
    program = request.getfixturevalue("minio_program")
    with objectstore.serving(program, folder / "site") as found:
        yield found


class Bucket:
    """A versioned bucket of one test's own."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name, self.client = server, name.replace("_", "-"), server.client()
        self.client.make_bucket(self.name)
        self.client.set_bucket_versioning(self.name, VersioningConfig(ENABLED))

    def put(self, name: str, data: bytes, **more: object) -> str:
        found = self.client.put_object(self.name, name, io.BytesIO(data), len(data), **more)
        return str(found.version_id)

    def get(self, name: str, **more: object) -> str:
        return text(self.client.get_object(self.name, name, **more))

    def versions(self, name: str) -> list[tuple[str, bool]]:
        """Versions and delete markers, as they stand in the listing: the client cannot read every server's times."""
        target = f"/{self.name}?prefix={name}&versions="
        _, said = self.server.signed("GET", target, who=objectstore.ROOT)
        found = []
        for entry in ElementTree.fromstring(said):
            kind = entry.tag.rpartition("}")[2]
            if kind in ("Version", "DeleteMarker"):
                number = next(e.text for e in entry if e.tag.endswith("}VersionId"))
                found.append((str(number), kind == "DeleteMarker"))
        return found


def refused(act: Callable[[], object], *codes: str) -> None:
    """See that `act` is refused with one of `codes`."""
    with pytest.raises(S3Error) as found:
        act()
    assert found.value.code in codes, found.value


def versioning(bucket: Bucket) -> None:
    assert bucket.client.get_bucket_versioning(bucket.name).status == ENABLED
    old, new = bucket.put("a", b"old"), bucket.put("a", b"new")
    assert old != new
    assert (bucket.get("a"), bucket.get("a", version_id=old)) == ("new", "old")


def delete_markers(bucket: Bucket) -> None:
    old = bucket.put("a", b"old")
    bucket.client.remove_object(bucket.name, "a")
    refused(lambda: bucket.get("a"), "NoSuchKey")
    assert bucket.get("a", version_id=old) == "old"
    found = bucket.versions("a")
    assert len(found) == 2
    assert (old, False) in found
    (marker,) = (version for version, gone in found if gone)
    bucket.client.remove_object(bucket.name, "a", version_id=marker)
    assert bucket.get("a") == "old"


def version_listing(bucket: Bucket) -> None:
    """Over more than a page; one server gives some of them twice."""
    made = {bucket.put(f"many/{number % 20}", b"x") for number in range(1100)}
    found = bucket.client.list_objects(
        bucket.name, prefix="many/", include_version=True, recursive=True
    )
    assert {str(one.version_id) for one in found} == made


def multipart(bucket: Bucket) -> None:
    data = os.urandom(11 << 20)
    bucket.client.put_object(bucket.name, "big", io.BytesIO(data), -1, part_size=5 << 20)
    answer = bucket.client.get_object(bucket.name, "big")
    assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(data).digest()
    answer.close()
    part = bucket.client.get_object(bucket.name, "big", offset=6 << 20, length=10)
    assert part.read() == data[6 << 20 :][:10]
    part.close()


def multipart_given_up(bucket: Bucket) -> None:
    client = bucket.client
    upload = client._create_multipart_upload(bucket.name, "half", {})
    client._upload_part(
        bucket_name=bucket.name,
        object_name="half",
        data=b"x" * (5 << 20),
        headers=None,
        upload_id=upload,
        part_number=1,
    )
    assert [one.part_number for one in client._list_parts(bucket.name, "half", upload).parts] == [1]
    listed = client._list_multipart_uploads(bucket.name).uploads
    assert [one.upload_id for one in listed] == [upload]
    client._abort_multipart_upload(bucket.name, "half", upload)
    assert not client._list_multipart_uploads(bucket.name).uploads
    refused(lambda: client._list_parts(bucket.name, "half", upload), "NoSuchUpload")


def presigned(bucket: Bucket) -> None:
    pool = bucket.server.pool
    put = bucket.client.presigned_put_object(bucket.name, "a", timedelta(minutes=5))
    assert pool.request("PUT", put, body=b"by url").status == 200
    get = bucket.client.presigned_get_object(bucket.name, "a", timedelta(minutes=5))
    assert pool.request("GET", get).data == b"by url"
    for wrong in (get[:-1] + ("0" if get[-1] != "0" else "1"), get.replace("/a?", "/b?")):
        assert pool.request("GET", wrong).status == 403
    assert pool.request("PUT", get, body=b"x").status == 403
    late = bucket.client.presigned_get_object(bucket.name, "a", timedelta(seconds=1))
    time.sleep(2.5)
    assert pool.request("GET", late).status == 403


def policy_deny(bucket: Bucket) -> None:
    bucket.put("open/a", b"open")
    bucket.put("shut/a", b"shut")
    arn = f"arn:aws:s3:::{bucket.name}"
    rule = {"Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"]}
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Resource": [f"{arn}/*"], **rule},
            {"Effect": "Deny", "Resource": [f"{arn}/shut/*"], **rule},
        ],
    }
    bucket.client.set_bucket_policy(bucket.name, json.dumps(policy))
    ask = bucket.server.raw
    assert ask("GET", f"/{bucket.name}/open/a", {}) == (200, b"open")
    assert ask("GET", f"/{bucket.name}/shut/a", {})[0] == 403
    assert ask("PUT", f"/{bucket.name}/open/b", {}, b"x")[0] == 403
    bucket.client.delete_bucket_policy(bucket.name)
    assert ask("GET", f"/{bucket.name}/open/a", {})[0] == 403


def lifecycle(bucket: Bucket) -> None:
    rule = Rule(
        ENABLED,
        rule_id="old",
        rule_filter=Filter(prefix=""),
        noncurrent_version_expiration=NoncurrentVersionExpiration(noncurrent_days=30),
        expiration=Expiration(expired_object_delete_marker=True),
    )
    bucket.client.set_bucket_lifecycle(bucket.name, LifecycleConfig([rule]))
    found = bucket.client.get_bucket_lifecycle(bucket.name)
    assert found
    (kept,) = found.rules
    assert kept.noncurrent_version_expiration
    assert kept.noncurrent_version_expiration.noncurrent_days == 30
    bucket.client.delete_bucket_lifecycle(bucket.name)
    assert bucket.client.get_bucket_lifecycle(bucket.name) is None


def conditional_put(bucket: Bucket) -> None:
    def put(name: str, headers: dict[str, str]) -> int:
        who = objectstore.ROOT
        return bucket.server.signed("PUT", f"/{bucket.name}/{name}", headers, b"new", who)[0]

    bucket.put("a", b"old")
    etag = str(bucket.client.stat_object(bucket.name, "a").etag)
    assert put("a", {"If-None-Match": "*"}) == 412
    assert put("a", {"If-Match": '"0123456789abcdef0123456789abcdef"'}) == 412
    assert bucket.get("a") == "old"
    assert put("a", {"If-Match": f'"{etag}"'}) == 200
    assert put("b", {"If-None-Match": "*"}) == 200
    assert (bucket.get("a"), bucket.get("b")) == ("new", "new")


def copies_and_tags(bucket: Bucket) -> None:
    old = bucket.put("a", b"old", metadata={"who": "me"})
    bucket.put("a", b"new")
    source = CopySource(bucket.name, "a", version_id=old)
    bucket.client.copy_object(bucket.name, "restored", source)
    assert bucket.get("restored") == "old"
    assert bucket.client.stat_object(bucket.name, "restored").metadata["x-amz-meta-who"] == "me"
    tags = Tags.new_object_tags()
    tags["kind"] = "probe"
    bucket.client.set_object_tags(bucket.name, "a", tags)
    assert dict(bucket.client.get_object_tags(bucket.name, "a") or {}) == {"kind": "probe"}


def names(bucket: Bucket) -> None:
    wanted = {"실험/결과 1.json", "a b/c+d=e&f%20.txt", "x" * 200, "점.", "~tilde", "'quote\""}
    for name in wanted:
        bucket.put(name, name.encode())
    found = bucket.client.list_objects(bucket.name, recursive=True)
    assert {str(one.object_name) for one in found} == wanted
    for name in wanted:
        assert bucket.get(name) == name


def key_below_a_key(bucket: Bucket) -> None:
    bucket.put("p", b"p")
    bucket.put("p/q", b"q")
    assert (bucket.get("p"), bucket.get("p/q")) == ("p", "q")


def wrong_key(bucket: Bucket) -> None:
    stranger: Minio = bucket.server.client(("nobody-known", "secret-0123456789"))
    refused(lambda: list(stranger.list_objects(bucket.name)), "InvalidAccessKeyId")
    thief = bucket.server.client((objectstore.ROOT[0], "not-the-secret-01234"))
    refused(lambda: list(thief.list_objects(bucket.name)), "SignatureDoesNotMatch")


PARTS: dict[str, Callable[[Bucket], None]] = {
    act.__name__: act
    for act in (
        *(versioning, delete_markers, version_listing, multipart, multipart_given_up, presigned),
        *(policy_deny, lifecycle, conditional_put, copies_and_tags, names, key_below_a_key),
        wrong_key,
    )
}


@pytest.mark.parametrize("part", PARTS)
def test_part_of_s3_that_the_stack_needs(part: str, server: Server) -> None:
    bucket = Bucket(server, part)
    if part in DIFFERENT.get(server.kind, ()):
        with pytest.raises(S3Error):
            PARTS[part](bucket)
        return
    PARTS[part](bucket)
