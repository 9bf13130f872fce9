"""The registry that a bundle is for its engine: routes, ranges, stray TLS; and the archive for other engines."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle import door, intake, pulls
from tests import bundles


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def client(made: bundles.Made) -> Iterator[socket.socket]:
    """One end of a connection whose other end the door serves."""
    ours, theirs = socket.socketpair()
    images = {(image.name, "1.0"): image.manifest for image in made.manifest.images}
    shelf = door.Shelf(file=made.path, blobs=door.places(made.path), images=images)
    handler = type("Bound", (door.Handler,), {"shelf": shelf})

    def serve() -> None:
        with theirs:
            handler(theirs, ("here", 0), None)

    thread = threading.Thread(target=serve)
    thread.start()
    ours.settimeout(10)
    yield ours
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def ask(
    client: socket.socket, method: str, path: str, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    response = http.client.HTTPResponse(client, method=method)
    response.begin()
    return response, response.read()


def test_version_route_answers(client: socket.socket) -> None:
    response, body = ask(client, "GET", "/v2/")
    assert (response.status, body) == (200, b"{}")


def test_manifest_is_found_by_tag_and_by_digest(client: socket.socket, made: bundles.Made) -> None:
    image = made.manifest.images[0]
    for reference in ("1.0", image.manifest):
        response, body = ask(client, "GET", f"/v2/tracking-bundle/one/manifests/{reference}")
        assert response.getheader("Content-Type") == "application/vnd.oci.image.manifest.v1+json"
        assert response.getheader("Docker-Content-Digest") == image.manifest
        assert json.loads(body)["manifest"] == "one"


def test_head_gives_the_length_and_no_body(client: socket.socket, made: bundles.Made) -> None:
    layer = made.manifest.images[0].layers[0]
    response, body = ask(client, "HEAD", f"/v2/tracking-bundle/one/blobs/{layer}")
    assert (response.getheader("Content-Length"), body) == (str(256 * 300), b"")
    assert ask(client, "HEAD", "/v2/")[1] == b""
    assert ask(client, "HEAD", "/v2/nothing")[0].status == 404


def test_blob_is_sent_whole_and_in_part(client: socket.socket, made: bundles.Made) -> None:
    layer = made.manifest.images[0].layers[0]
    path = f"/v2/tracking-bundle/one/blobs/{layer}"
    whole = bytes(range(256)) * 300
    assert ask(client, "GET", path)[1] == whole
    response, body = ask(client, "GET", path, Range="bytes=1000-1999")
    assert (response.status, body) == (206, whole[1000:2000])
    assert response.getheader("Content-Range") == f"bytes 1000-1999/{len(whole)}"
    assert ask(client, "GET", path, Range="bytes=76000-")[1] == whole[76000:]
    assert ask(client, "GET", path, Range="bytes=99999999-")[1] == whole
    assert ask(client, "GET", path, Range="lines=1")[1] == whole


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/_catalog",
        "/v2/other/one/manifests/1.0",
        "/v2/tracking-bundle/one/manifests/2.0",
        "/v2/tracking-bundle/one/blobs/sha256:" + "0" * 64,
        "/v2/tracking-bundle/one/blobs/../../etc/passwd",
    ],
)
def test_what_is_not_in_the_bundle_is_not_found(client: socket.socket, path: str) -> None:
    response, body = ask(client, "GET", path)
    assert response.status == 404
    assert json.loads(body)["errors"][0]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(client: socket.socket, method: str) -> None:
    assert ask(client, method, "/v2/tracking-bundle/one/blobs/uploads/")[0].status == 501


def test_tls_hello_is_answered_in_plain_http(client: socket.socket) -> None:
    client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
    assert client.recv(100).startswith(b"HTTP/1.0 400")
    assert client.recv(100) == b""


def test_archive_is_what_both_kinds_of_store_read(made: bundles.Made) -> None:
    counted: list[int] = []
    images = made.manifest.images
    data = b"".join(intake.archive(made.path, made.manifest, images, counted.append))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:

        def document(name: str) -> Any:
            file = archive.extractfile(name)
            assert file is not None
            return json.load(file)

        names = archive.getnames()
        plain, index = document("manifest.json"), document("index.json")
        assert document("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    assert [entry["RepoTags"] for entry in plain] == [[image.reference] for image in images]
    assert [entry["digest"] for entry in index["manifests"]] == [image.manifest for image in images]
    assert len(names) == len(set(names)) == 3 + 7  # the shared layer once
    assert sum(counted) == sum(made.manifest.size_of("sha256:" + name[13:]) for name in names[3:])


def test_gauge_counts_each_layer_once(made: bundles.Made) -> None:
    gauge = pulls._Gauge(made.manifest, made.manifest.images)
    total = gauge.progress.total
    layer = made.manifest.images[0].layers[0]
    size = made.manifest.size_of(layer)
    for status, current in (("Downloading", 10), ("Downloading", 6), ("Extracting", 20)):
        detail = {"current": current}
        gauge.note({"id": layer[7:19], "status": status, "progressDetail": detail})
    assert gauge.progress.done == (size + 20) // 2
    gauge.note({"id": layer[7:19], "status": "Download complete"})
    assert gauge.progress.done == (size + 20) // 2
    gauge.note({"status": "Pulling from x", "id": "unknown"})
    for image in made.manifest.images:
        gauge.finish(image)
    assert gauge.progress.done == total


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("127.0.0.1:4711/tracking-bundle/one@sha256:00", True),
        ("127.0.0.1:4711/tracking-bundle/one:1.0", True),
        ("127.0.0.1:5000/someone/tracking-bundle/x:1", False),
        ("tracking-bundle/one:1.0", False),
    ],
)
def test_only_names_of_a_door_are_left_overs(name: str, ours: bool) -> None:
    assert bool(intake.LEFT_OVER.fullmatch(name)) is ours


def test_damaged_head_is_an_integrity_error(tmp_path: Path) -> None:
    from bundle.errors import IntegrityError

    (tmp_path / "x").write_bytes(bytes(9999))
    with pytest.raises(IntegrityError):
        door.places(tmp_path / "x")
