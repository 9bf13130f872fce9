"""The site's own S3: looked at before an installation, and once more with its key from inside."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import SUSPENDED, VersioningConfig

from bundle import theirs
from bundle.config import SiteConfig, parse_site
from bundle.ops import theirs as inside
from bundle.services import s3, services
from tests import objectstore
from tests.objectstore import ROOT, Server

pytestmark = pytest.mark.timeout(1800)
KINDS = ("minio", pytest.param("versitygw", marks=pytest.mark.nightly))
NAMES = ("team-mlflow", "team-exports", "team-backups")


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "versitygw":
        start = objectstore.serving_other(objectstore.versitygw(), folder / "site")
    else:
        start = objectstore.serving(request.getfixturevalue("minio_program"), folder / "site")
    with start as found:
        for name in NAMES:
            found.client().make_bucket(name)
            found.client().set_bucket_versioning(name, VersioningConfig(ENABLED))
        yield found


def site_of(server: Server, folder: Path, **changes: Any) -> SiteConfig:
    for name, value in zip(("key", "secret"), ROOT, strict=True):
        (folder / name).write_text(value)
        (folder / name).chmod(0o600)
    text = (
        f'allow = ["minio.s3.internal:{server.port}=127.0.0.1"]\n'
        f'[s3]\nendpoint = "https://minio.s3.internal:{server.port}"\n'
        f'key = "secret://file{folder}/key"\nsecret = "secret://file{folder}/secret"\n'
        f'ca = """\n{server.root_ca.read_text()}"""\n'
        + "".join(
            f'bucket_{user} = "{name}"\n'
            for user, name in zip(("mlflow", "exports", "backups"), NAMES, strict=True)
        )
    )
    return dataclasses.replace(parse_site(text), **changes)


def wrong(site: SiteConfig) -> str:
    return "; ".join(problem for _, problem in theirs.look(site))


def test_right_store_is_found_right(server: Server, tmp_path: Path) -> None:
    ((line, problem),) = theirs.look(site_of(server, tmp_path))
    assert (line, problem) == (f"minio.s3.internal:{server.port} (127.0.0.1)", "")


def test_what_is_wrong_is_said_before_anything_is_installed(server: Server, tmp_path: Path) -> None:
    site = site_of(server, tmp_path)
    other = f"https://other.s3.internal:{server.port}"
    way = (f"other.s3.internal:{server.port}=127.0.0.1",)
    assert "Hostname mismatch" in wrong(dataclasses.replace(site, s3_endpoint=other, allow=way))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"minio.s3.internal:{free.getsockname()[1]}"
    closed = dataclasses.replace(
        site, s3_endpoint=f"https://{place}", allow=(f"{place}=127.0.0.1",)
    )
    assert "refused" in wrong(closed)
    stranger = objectstore._certify(tmp_path / "stranger").read_text()
    assert "certificate" in wrong(dataclasses.replace(site, s3_ca=stranger))
    assert "NoSuchBucket" in wrong(dataclasses.replace(site, s3_bucket_exports="nowhere-to-be"))
    server.client().set_bucket_versioning(NAMES[1], VersioningConfig(SUSPENDED))
    assert wrong(site) == f"{NAMES[1]}: versioning is not enabled"
    server.client().set_bucket_versioning(NAMES[1], VersioningConfig(ENABLED))
    (tmp_path / "secret").write_text("not-the-secret-0123456789")
    assert "SignatureDoesNotMatch" in wrong(site)
    (tmp_path / "key").write_text("nobodys-key")
    assert "InvalidAccessKeyId" in wrong(site)


def request_of(server: Server, site: SiteConfig) -> dict[str, Any]:
    """What bundle.ops.theirs is asked, by the address that the certificate has too."""
    place = s3.place(site) | {"endpoint": f"{objectstore.NAME}:{server.port}"}
    buckets = [bucket for service in services(site) for bucket in service.buckets]
    assert {bucket.name for bucket in buckets} == set(NAMES)
    rows = [{"name": bucket.name, "key": ROOT[0], "secret": ROOT[1]} for bucket in buckets]
    return {"store": place, "buckets": rows}


def test_key_is_tried_once_and_a_too_mighty_one_is_told(server: Server, tmp_path: Path) -> None:
    request = request_of(server, site_of(server, tmp_path))
    assert inside.act(request) == {"wrong": [], "loose": list(reversed_names(request))}
    assert inside.act(request) == {"wrong": [], "loose": []}, "it is tried once"
    versions = server.client().list_objects(NAMES[0], include_version=True)
    assert len(list(versions)) == 1, "one small object is left"


def reversed_names(request: dict[str, Any]) -> list[str]:
    return [bucket["name"] for bucket in request["buckets"]]


def test_what_is_wrong_inside_is_all_told(server: Server, tmp_path: Path) -> None:
    request = request_of(server, site_of(server, tmp_path))
    request["buckets"][0]["name"] = "nowhere-to-be"
    request["buckets"][1]["secret"] = "not-the-secret-0123456789"
    server.client().set_bucket_versioning(
        request["buckets"][2]["name"], VersioningConfig(SUSPENDED)
    )
    found = inside.act(request)["wrong"]
    server.client().set_bucket_versioning(request["buckets"][2]["name"], VersioningConfig(ENABLED))
    assert found[0] == "bucket nowhere-to-be is not there"
    assert found[2].endswith("has versioning Suspended")
    assert "cannot be used" in found[1]
