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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import Credentials, StaticProvider
from minio.error import MinioAdminException, MinioException
from minio.signer import sign_v4_s3
from urllib3 import HTTPResponse

from bundle import certificates, images
from bundle.builder import Build, build
from bundle.config import cache_folder, parse_bundle, parse_site
from bundle.engine import Engine
from bundle.images import Workshop
from bundle.ops.buckets import make_so
from bundle.recipes import content_key, tree
from bundle.services import services
from tests.bundles import TOP

REGION = "us-east-1"
ROOT = ("rootname", "rootsecret-0123456789")
BUCKETS = [b for service in services(parse_site("")) for b in service.buckets]
KEYS = {
    bucket.user: (f"key-of-{bucket.user}", f"secret-of-{bucket.user}-0123456789")
    for bucket in BUCKETS
}
BUCKET = next(bucket.name for bucket in BUCKETS if bucket.user == "mlflow")
WRITER = KEYS["mlflow"]
NAME = "127.0.0.1"
VERSITYGW = "v1.8.0"


def program(engine: Engine, folder: Path) -> Path:
    """The program out of our image, which is built if it is not there."""
    return take_out(engine, "minio", "/usr/local/bin/minio", folder)


def take_out(engine: Engine, image: str, path: str, folder: Path) -> Path:
    """A program out of one of our images, which is built if it is not there."""
    workshop = images.open_workshop(parse_bundle(""), engine, TOP)
    images.ensure(workshop, image)
    container = engine.api.containers.create(workshop.reference(image))
    name = Path(path).name
    try:
        stream, _ = container.get_archive(path)
        with tempfile.TemporaryFile() as file:
            for chunk in stream:
                file.write(chunk)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                archive.extract(name, folder, filter="data")
    finally:
        container.remove()
    return folder / name


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
    kind: str = "minio"

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

    @property
    def place(self) -> dict[str, Any]:
        """It as one-off containers are told of it."""
        return {
            "endpoint": f"{NAME}:{self.port}",
            "region": REGION,
            "root_ca": str(self.root_ca),
        }

    @property
    def request(self) -> dict[str, Any]:
        """What the product asks of bundle.ops.buckets for this server."""
        return {
            "store": self.place,
            "key": ROOT[0],
            "secret": ROOT[1],
            "buckets": [
                {
                    "name": bucket.name,
                    "key": KEYS[bucket.user][0],
                    "secret": KEYS[bucket.user][1],
                    "on_bucket": list(bucket.on_bucket),
                    "on_objects": list(bucket.on_objects),
                }
                for bucket in BUCKETS
            ],
        }

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
    """`program` as a server with TLS, and the product's own buckets and users."""
    root_ca, port = _certify(folder), _free_port()
    words = ["server", str(folder / "data"), "--certs-dir", str(folder / "certs"), "--quiet"]
    settings = {
        "MINIO_ROOT_USER": ROOT[0],
        "MINIO_ROOT_PASSWORD": ROOT[1],
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # A key of this server's own for SSE-S3 and SSE-KMS: the paths through encryption are tried too.
        "MINIO_KMS_SECRET_KEY": "key:IyqsU3kMFloCNup4BsZtf/rmfHVcTgznO2F25CkEH1g=",
    }
    command = [str(program), *words, "--address", f"{NAME}:{port}"]
    with _running(command, folder, settings) as pid:
        server = Server(port=port, pid=pid, root_ca=root_ca)
        _patiently(lambda: make_so(server.request), folder)
        yield server


@contextlib.contextmanager
def serving_other(program: Path, folder: Path) -> Iterator[Server]:
    """versitygw as a server with TLS: another program, by other people, that speaks S3."""
    root_ca, port = _certify(folder), _free_port()
    for name in ("data", "versions", "iam"):
        (folder / name).mkdir()
    words = ["--access", ROOT[0], "--secret", ROOT[1], "--region", REGION, "--quiet"]
    words += [
        "--cert",
        str(folder / "certs/public.crt"),
        "--key",
        str(folder / "certs/private.key"),
    ]
    words += ["--iam-dir", str(folder / "iam"), "--port", f"{NAME}:{port}"]
    words += ["posix", "--versioning-dir", str(folder / "versions"), str(folder / "data")]
    with _running([str(program), *words], folder, {}) as pid:
        server = Server(port=port, pid=pid, root_ca=root_ca, kind="versitygw")
        _patiently(server.client().list_buckets, folder)
        yield server


def versitygw() -> Path:
    """That server's program, built out of its module once and kept in the cache."""
    folder = cache_folder() / "versitygw" / VERSITYGW
    if not (folder / "versitygw").is_file():
        settings = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
        module = f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW}"
        subprocess.run(["go", "install", "-trimpath", module], check=True, env=settings)
    return folder / "versitygw"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((NAME, 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], folder: Path, settings: Mapping[str, str]) -> Iterator[int]:
    own = {**settings, "HOME": str(folder), "PATH": os.environ["PATH"]}
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, env=own, stdout=log, stderr=log)
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def _patiently(act: Callable[[], object], folder: Path) -> None:
    """Do `act` as soon as the server lets it be done."""
    until = time.monotonic() + 60
    while True:
        try:
            act()
            return
        except (urllib3.exceptions.HTTPError, MinioException, MinioAdminException):
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)


def _certify(folder: Path) -> Path:
    """Make a certificate and its key for a server, as MinIO wants them named; the root that clients trust."""
    certs, root_ca = folder / "certs", folder / "root.crt"
    certs.mkdir(parents=True)
    root = certificates.make_root("s3")
    middle = certificates.make_intermediate(root, "s3.internal", "s3")
    leaf = certificates.make_leaf(middle, (NAME, "minio.s3.internal"), 30)
    root_ca.write_bytes(certificates.pem(root.certificate))
    chain = certificates.pem(leaf.certificate) + certificates.pem(middle.certificate)
    (certs / "public.crt").write_bytes(chain)
    (certs / "private.key").write_bytes(certificates.key_pem(leaf.key))
    return root_ca


def text(answer: HTTPResponse) -> str:
    """What an object holds."""
    with contextlib.closing(answer):
        return answer.read().decode()
