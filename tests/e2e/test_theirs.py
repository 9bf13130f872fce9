"""The stack on the site's own S3: another server, by other people, in the closed host's network, over TLS."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import certificates, closed, rehearse
from bundle.certificates import Authority
from bundle.closed import ClosedHost
from tests import objectstore
from tests.e2e.stack import Sealed
from tests.e2e.test_registry import cross, invoke

pytestmark = pytest.mark.nightly
ADDRESS, NAME, PORT = "192.0.2.9", "s3.example.kr", 7070
KEY, SECRET = "site-key", "site-secret-0123456789"
PLACE = "/root/s3"
START = f"""
mkdir -p {PLACE}/data {PLACE}/versions {PLACE}/iam && cd {PLACE} || exit 1
export ROOT_ACCESS_KEY={KEY} ROOT_SECRET_KEY={SECRET}
setsid ./versitygw --port {ADDRESS}:{PORT} --cert {PLACE}/chain --key {PLACE}/key --iam-dir {PLACE}/iam --quiet \\
  posix --versioning-dir {PLACE}/versions {PLACE}/data >log 2>&1 </dev/null &
echo $!
exec python3 -c 'import socket, time
for _ in range(100):
    if not socket.socket().connect_ex(("{ADDRESS}", {PORT})):
        break
    time.sleep(0.1)'
"""
MAKE = f"""
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig
pool = urllib3.PoolManager(cert_reqs="CERT_NONE", retries=5)
store = Minio("{ADDRESS}:{PORT}", "{KEY}", "{SECRET}", region="us-east-1", http_client=pool)
for name in ("team-mlflow", "phoenix-exports", "backups"):
    store.make_bucket(name)
    store.set_bucket_versioning(name, VersioningConfig(ENABLED))
"""
SEEN = "docker inspect $(docker ps -q); docker compose -p tracking logs; cat reports/*.json"


@pytest.fixture(scope="module")
def host(sealed: Sealed, closed_hosts: Path) -> Iterator[ClosedHost]:
    made = closed.create(closed_hosts / "theirs", cache=sealed.cache)
    try:
        made.start()
        made.engine_up()
        made.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], timeout=20)
        cross(made, sealed)
        furnish(made)
        yield made
    finally:
        made.remove()


def furnish(host: ClosedHost) -> None:
    """The server's program, certificate and key, and what the operator has of it."""
    folder = host.root / PLACE.lstrip("/")
    folder.mkdir()
    shutil.copy2(objectstore.versitygw(), folder / "versitygw")
    root = certificates.make_root("site")
    middle = certificates.make_intermediate(root, "example.kr", "site")
    leaf = certificates.make_leaf(middle, (NAME,), 30)
    chain = certificates.pem(leaf.certificate) + certificates.pem(middle.certificate)
    files = {"chain": chain, "key": certificates.key_pem(leaf.key)}
    files |= {"name": KEY.encode(), "secret": SECRET.encode()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    (host.root / "root/site.toml").write_text(site(root))
    (host.root / "root/own.toml").write_text('domain = "closed.internal"\n')


def site(root: Authority) -> str:
    lines = [
        *('domain = "closed.internal"', f'allow = ["{NAME}:{PORT}={ADDRESS}"]', "[s3]"),
        *(f'endpoint = "https://{NAME}:{PORT}"', 'bucket_mlflow = "team-mlflow"'),
        *(f'key = "secret://file{PLACE}/name"', f'secret = "secret://file{PLACE}/secret"'),
        *('ca = """', certificates.pem(root.certificate).decode() + '"""', ""),
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def instead(host: ClosedHost, path: str, text: str) -> Iterator[None]:
    """Another content of a file, for a while."""
    file = host.root / path.lstrip("/")
    right = file.read_text()
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(right)


def green(host: ClosedHost) -> None:
    """See that every line of the checklist is; a red one is shown with its evidence."""
    line = f"cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && invoke verify --quiet || true"
    host.run(["sh", "-c", line], timeout=300)
    report = host.root / rehearse.PRODUCT_ROOT.lstrip("/") / "reports/verify.json"
    results = json.loads(report.read_text("utf-8"))["results"]
    assert not [(one["id"], one["evidence"]) for one in results if one["status"] == "failed"]


def refused(host: ClosedHost, words: str) -> str:
    """What a task says that fails."""
    line = f"cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && ! invoke {words} 2>&1"
    return host.run(["sh", "-c", line], timeout=300)


@pytest.mark.timeout(1200)
def test_stack_runs_on_the_sites_s3_and_every_line_of_the_checklist_is_green(
    host: ClosedHost,
) -> None:
    install = "install --yes --site /root/site.toml"
    said = refused(host, install)
    assert f"{NAME}:{PORT} ({ADDRESS})" in said, "preflight sees that nothing is there"
    assert "refused" in said
    pid = host.run(["sh", "-c", START], timeout=20).strip()
    assert "team-mlflow: list: 404 NoSuchBucket" in refused(host, install)
    host.beside([sys.executable, "-c", MAKE], timeout=60)
    with instead(host, f"{PLACE}/secret", "not-the-secret-0123456789"):
        assert "team-mlflow: list: 403 SignatureDoesNotMatch" in refused(host, install)
    with instead(host, f"{PLACE}/name", "nobodys-key"):
        assert "team-mlflow: list: 403 InvalidAccessKeyId" in refused(host, install)
    with instead(host, "/root/site.toml", site(certificates.make_root("another"))):
        assert "unable to get local issuer certificate" in refused(host, install)
    assert not host.engine.image_ids(), "nothing was changed by what was refused"
    invoke(host, install)
    names = host.run(["docker", "ps", "--format", "{{.Names}}"], timeout=20).split()
    assert "tracking-forward-1" in names
    assert "tracking-minio-1" not in names
    green(host)
    count = f"find {PLACE}/data/team-mlflow -type f | wc -l"
    assert int(host.run(["sh", "-c", count], timeout=20)) > 3, "there lie the run's artifacts"
    seen = host.run(["sh", "-c", SEEN], timeout=60, cwd=rehearse.PRODUCT_ROOT)
    assert SECRET not in seen
    ids = host.run(["docker", "ps", "-q", "--no-trunc"], timeout=20)
    invoke(host, "install --yes")
    assert host.run(["docker", "ps", "-q", "--no-trunc"], timeout=20) == ids, "twice is a no-op"
    host.run(["kill", pid], timeout=20)
    said = refused(host, "verify --only store-mlflow-artifacts")
    assert "store-mlflow-artifacts" in said, "what is no longer there is red"
    assert f"{NAME}:{PORT} ({ADDRESS})" in refused(host, "install --yes")
    host.run(["sh", "-c", START], timeout=20)
    green(host)  # it is back, and so is everything


@pytest.mark.timeout(1200)
def test_site_goes_back_to_our_own_store_and_to_its_own_again(host: ClosedHost) -> None:
    """After the test above, with its stack."""
    for file, there in (("own", True), ("site", False)):
        invoke(host, f"install --yes --site /root/{file}.toml")
        names = host.run(["docker", "ps", "--format", "{{.Names}}"], timeout=20).split()
        assert ("tracking-minio-1" in names) == there
        assert ("tracking-forward-1" in names) != there
        green(host)
