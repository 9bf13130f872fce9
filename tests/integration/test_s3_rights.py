"""What the keys of our services may not do in our object store, one denial at a time; beside each what they may."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio import Minio, MinioAdmin
from minio.commonconfig import CopySource
from minio.credentials import StaticProvider
from minio.deleteobjects import DeleteObject
from minio.error import MinioAdminException, S3Error

from tests import objectstore
from tests.objectstore import BUCKETS, KEYS, NAME, Server, text

pytestmark = pytest.mark.timeout(1800)
OWN = {bucket.user: bucket.name for bucket in BUCKETS}
EMPTY = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
RULE = (
    "<LifecycleConfiguration><Rule><ID>x</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>"
    "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>"
    "</Rule></LifecycleConfiguration>"
)
MD5 = {"Content-MD5": base64.b64encode(hashlib.md5(RULE.encode()).digest()).decode()}


@pytest.fixture(scope="module")
def server(minio_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with objectstore.serving(minio_program, tmp_path_factory.mktemp("s3") / "site") as found:
        yield found


class Someone:
    """A service's key at work: its client, its bucket, another's bucket with something in it."""

    def __init__(self, server: Server, user: str) -> None:
        self.server, self.key, self.bucket = server, KEYS[user], OWN[user]
        self.other = next(name for name in OWN.values() if name != self.bucket)
        self.client: Minio = server.client(self.key)
        root = server.client()
        root.put_object(self.other, "theirs", io.BytesIO(b"theirs"), 6)
        self.version = str(root.put_object(self.bucket, "mine", io.BytesIO(b"old"), 3).version_id)
        self.client.put_object(self.bucket, "mine", io.BytesIO(b"new"), 3)

    def admin(self) -> MinioAdmin:
        place = f"{NAME}:{self.server.port}"
        provider = StaticProvider(*self.key)
        return MinioAdmin(endpoint=place, credentials=provider, http_client=self.server.pool)

    def ask(
        self, method: str, target: str, body: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """A signed request; its refusal as the client's own error."""
        status, said = self.server.signed(method, target, headers, body.encode(), self.key)
        if status >= 400:
            raise PermissionError(said.decode())

    def remove_many(self) -> None:
        target = [DeleteObject("mine", self.version)]
        for error in self.client.remove_objects(self.bucket, target):
            raise PermissionError(f"{error.code}")


PUBLIC = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:GetObject"],
                "Resource": ["arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
)
FORBIDDEN: dict[str, Callable[[Someone], object]] = {
    "delete-a-version": lambda s: s.client.remove_object(s.bucket, "mine", version_id=s.version),
    "delete-versions-in-bulk": lambda s: s.remove_many(),
    "delete-all-versions-by-force": lambda s: s.ask(
        "DELETE", f"/{s.bucket}/mine", headers={"X-Minio-Force-Delete": "true"}
    ),
    "write-over-a-version": lambda s: s.ask(
        "PUT", f"/{s.bucket}/mine?versionId={s.version}", "gone"
    ),
    "suspend-versioning": lambda s: s.ask("PUT", f"/{s.bucket}?versioning=", EMPTY),
    "set-lifecycle": lambda s: s.ask("PUT", f"/{s.bucket}?lifecycle=", RULE, MD5),
    "delete-lifecycle": lambda s: s.ask("DELETE", f"/{s.bucket}?lifecycle="),
    "set-policy": lambda s: s.client.set_bucket_policy(
        s.bucket, PUBLIC.replace("{bucket}", s.bucket)
    ),
    "set-encryption": lambda s: s.client.delete_bucket_encryption(s.bucket),
    "set-replication": lambda s: s.client.delete_bucket_replication(s.bucket),
    "set-notification": lambda s: s.client.delete_bucket_notification(s.bucket),
    "set-quota": lambda s: s.admin().bucket_quota_set(s.bucket, 1),
    "delete-bucket": lambda s: s.client.remove_bucket(s.bucket),
    "delete-bucket-by-force": lambda s: s.ask(
        "DELETE", f"/{s.bucket}", headers={"X-Minio-Force-Delete": "true"}
    ),
    "make-bucket": lambda s: s.client.make_bucket(f"new-{s.bucket}"),
    "list-anothers-bucket": lambda s: list(s.client.list_objects(s.other)),
    "read-anothers-object": lambda s: text(s.client.get_object(s.other, "theirs")),
    "stat-anothers-object": lambda s: s.client.stat_object(s.other, "theirs"),
    "write-anothers-object": lambda s: s.client.put_object(s.other, "x", io.BytesIO(b"x"), 1),
    "delete-anothers-object": lambda s: s.client.remove_object(s.other, "theirs"),
    "copy-anothers-object": lambda s: s.client.copy_object(
        s.bucket, "copy", CopySource(s.other, "theirs")
    ),
    "list-users": lambda s: s.admin().user_list(),
    "add-a-user": lambda s: s.admin().user_add("intruder", "intruder-0123456789"),
    "take-another-policy": lambda s: s.admin().policy_set("consoleAdmin", user=s.key[0]),
    "make-a-key-for-later": lambda s: s.admin().add_service_account(
        access_key="later-key", secret_key="later-0123456789"
    ),
    "change-its-own-secret": lambda s: s.admin().user_add(s.key[0], "another-0123456789"),
    "read-the-policies": lambda s: s.admin().policy_list(),
    "read-the-servers-state": lambda s: s.admin().info(),
}


@pytest.mark.parametrize("act", FORBIDDEN)
@pytest.mark.parametrize("user", OWN)
def test_key_of_a_service_is_denied(act: str, user: str, server: Server) -> None:
    someone = Someone(server, user)
    with pytest.raises((S3Error, MinioAdminException, PermissionError)) as refused:
        FORBIDDEN[act](someone)
    said = f"{refused.value} {getattr(refused.value, '_body', '')}"
    assert "AccessDenied" in said or (act == "write-over-a-version" and "InvalidArgument" in said)
    root = server.client()
    assert text(root.get_object(someone.bucket, "mine", version_id=someone.version)) == "old"
    assert root.get_bucket_versioning(someone.bucket).status == "Enabled"


@pytest.mark.parametrize("user", OWN)
def test_key_of_a_service_does_its_work(user: str, server: Server) -> None:
    someone = Someone(server, user)
    client, bucket = someone.client, someone.bucket
    assert [found.name for found in client.list_buckets()] == [bucket]
    assert client.get_bucket_versioning(bucket).status == "Enabled"
    assert text(client.get_object(bucket, "mine")) == "new"
    assert text(client.get_object(bucket, "mine", version_id=someone.version)) == "old"
    client.put_object(bucket, "parts", io.BytesIO(b"x" * (6 << 20)), -1, part_size=5 << 20)
    client.remove_object(bucket, "mine")
    assert "mine" not in {found.object_name for found in client.list_objects(bucket)}
    versions = client.list_objects(bucket, prefix="mine", include_version=True)
    assert someone.version in {found.version_id for found in versions}


def test_nobody_without_a_key_gets_anything(server: Server) -> None:
    for bucket in OWN.values():
        assert server.raw("GET", f"/{bucket}/mine", {})[0] == 403
        assert server.raw("GET", f"/{bucket}", {})[0] == 403
    assert server.raw("GET", "/", {})[0] == 403
    assert server.raw("GET", "/minio/v2/metrics/cluster", {})[0] == 403
