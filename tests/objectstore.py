"""A MinIO of our build, or the unpatched one, on loopback: started from the program alone, with users of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.commonconfig import ENABLED
from minio.credentials import Credentials, StaticProvider
from minio.error import S3Error
from minio.signer import sign_v4_s3
from minio.versioningconfig import VersioningConfig
from urllib3 import HTTPResponse

from bundle import certificates, images
from bundle.builder import Build, build
from bundle.config import cache_folder, parse_bundle
from bundle.engine import Engine
from bundle.images import Workshop
from bundle.ops.buckets import policy
from bundle.recipes import content_key, tree
from bundle.services.minio import bucket
from tests.bundles import TOP

REGION = "us-east-1"
ROOT = ("rootname", "rootsecret-0123456789")
WRITER = ("writername", "writersecret-0123456789")
BUCKET = "bucket"
NAME = "127.0.0.1"


def program(engine: Engine, folder: Path) -> Path:
    """The program out of our image, which is built if it is not there."""
    workshop = images.open_workshop(parse_bundle(""), engine, TOP)
    images.ensure(workshop, "minio")
    container = engine.api.containers.create(workshop.reference("minio"))
    try:
        stream, _ = container.get_archive("/usr/local/bin/minio")
        with tempfile.TemporaryFile() as file:
            for chunk in stream:
                file.write(chunk)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                archive.extract("minio", folder, filter="data")
    finally:
        container.remove()
    return folder / "minio"


def unpatched(engine: Engine) -> Path:
    """The same program without our patches; built once, and kept in the cache under the key of its inputs."""
    workshop = images.open_workshop(parse_bundle(""), engine, TOP)
    inputs = tree(workshop.recipes.all["minio"].folder)
    bare = [(name, data) for name, data in inputs if not name.startswith("patches/")]
    key = content_key([*bare, ("golang", workshop.keys["golang"].encode())])
    kept = cache_folder() / "unpatched" / f"minio-{key}"
    if not kept.is_file():
        images.ensure(workshop, "golang")
        with tempfile.TemporaryDirectory() as work:
            plan = _plan(workshop, Path(work))
            build(engine, plan, timeout=workshop.config.build_timeout_s)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(work) / "out/build/minio", kept.with_suffix(".new"))
            kept.with_suffix(".new").rename(kept)
    return kept


def _plan(workshop: Workshop, work: Path) -> Build:
    recipe = workshop.recipes.all["minio"]
    images.gather(workshop, recipe, work)
    file = work / "context/Dockerfile.unpatched"
    text = (recipe.folder / "Dockerfile").read_text("utf-8").partition("\nFROM ${PARENT}")[0]
    file.write_text(text + "\nFROM scratch\nCOPY --from=build /build/minio /build/minio\n")
    plan = images.plan_build(workshop, recipe, work)
    arguments = {**plan.arguments, "UNPATCHED": "1"}
    return replace(plan, file=file.name, arguments=arguments, output=work / "out")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server; `client` and `ask` speak to it as somebody."""

    port: int
    pid: int
    root_ca: Path

    @property
    def pool(self) -> urllib3.PoolManager:
        """Connections that verify it."""
        return urllib3.PoolManager(
            ca_certs=str(self.root_ca), cert_reqs="CERT_REQUIRED", timeout=60, retries=False
        )

    def client(self, who: tuple[str, str] = ROOT) -> Minio:
        """The stock client."""
        return Minio(f"{NAME}:{self.port}", *who, http_client=self.pool, region=REGION, secure=True)

    @property
    def admin(self) -> MinioAdmin:
        """The administrator's client."""
        place = f"{NAME}:{self.port}"
        return MinioAdmin(endpoint=place, credentials=StaticProvider(*ROOT), http_client=self.pool)

    def raw(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, bytes]:
        """A request just as it is written here."""
        context = ssl.create_default_context(cafile=str(self.root_ca))
        connection = http.client.HTTPSConnection(NAME, self.port, timeout=60, context=context)
        with contextlib.closing(connection):
            connection.request(method, target, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def signed(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        who: tuple[str, str] = WRITER,
    ) -> tuple[int, bytes]:
        """A request with whatever headers, signed as it ought to be."""
        moment = datetime.now(timezone.utc)
        given = {
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            **(headers or {}),
            "Host": f"{NAME}:{self.port}",
            "x-amz-date": moment.strftime("%Y%m%dT%H%M%SZ"),
        }
        made = sign_v4_s3(
            method=method,
            url=urlsplit(f"https://{NAME}:{self.port}{target}"),
            region=REGION,
            headers=given,
            credentials=Credentials(*who),
            content_sha256=given["x-amz-content-sha256"],
            date=moment,
        )
        return self.raw(method, target, made, body)

    def peak(self) -> float:
        """The most memory that it had at one moment, in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


@contextlib.contextmanager
def serving(program: Path, folder: Path) -> Iterator[Server]:
    """`program` as a server with TLS, a versioned bucket, and one user who may what our services' users may."""
    folder.mkdir(parents=True)
    certs, root_ca = folder / "certs", folder / "root.crt"
    _certify(certs, root_ca)
    with socket.socket() as free:
        free.bind((NAME, 0))
        port = free.getsockname()[1]
    words = ["server", str(folder / "data"), "--certs-dir", str(certs), "--quiet"]
    settings = {
        "MINIO_ROOT_USER": ROOT[0],
        "MINIO_ROOT_PASSWORD": ROOT[1],
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # A key of this server's own for SSE-S3 and SSE-KMS: the paths through encryption are tried too.
        "MINIO_KMS_SECRET_KEY": "key:IyqsU3kMFloCNup4BsZtf/rmfHVcTgznO2F25CkEH1g=",
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
    }
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(
            [program, *words, "--address", f"{NAME}:{port}"], env=settings, stdout=log, stderr=log
        )
    server = Server(port=port, pid=child.pid, root_ca=root_ca)
    try:
        _furnish(server, folder)
        yield server
    finally:
        child.kill()
        child.wait()


def _certify(certs: Path, root_ca: Path) -> None:
    certs.mkdir()
    root = certificates.make_root("s3")
    middle = certificates.make_intermediate(root, "s3.internal", "s3")
    leaf = certificates.make_leaf(middle, (NAME, "minio.s3.internal"), 30)
    root_ca.write_bytes(certificates.pem(root.certificate))
    chain = certificates.pem(leaf.certificate) + certificates.pem(middle.certificate)
    (certs / "public.crt").write_bytes(chain)
    (certs / "private.key").write_bytes(certificates.key_pem(leaf.key))


def _furnish(server: Server, folder: Path) -> None:
    """Wait until it answers, then make the bucket and its user."""
    client, until = server.client(), time.monotonic() + 60
    while True:
        try:
            client.make_bucket(BUCKET)
            break
        except (urllib3.exceptions.HTTPError, S3Error):
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
    client.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED))
    declared = bucket(BUCKET, "writer")
    rights = {
        "name": BUCKET,
        "on_bucket": list(declared.on_bucket),
        "on_objects": list(declared.on_objects),
    }
    server.admin.user_add(*WRITER)
    server.admin.policy_add(BUCKET, policy=policy(rights))
    server.admin.policy_set(BUCKET, user=WRITER[0])


def text(answer: HTTPResponse) -> str:
    """What an object holds."""
    with contextlib.closing(answer):
        return answer.read().decode()
