"""docs/bundle-format.md is enough: a reader that was written from it alone reads the real bundle, down to its files."""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import reader
from tests.e2e.stack import Sealed

DOCUMENT = Path(__file__).parents[2] / "docs/bundle-format.md"
IMAGES = {"postgres", "minio", "mlflow", "phoenix", "gateway", "ops"}


@pytest.fixture(scope="module")
def bundle(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> reader.Bundle:
    return reader.read(sealed.path, sealed.fingerprint, tmp_path_factory.mktemp("signature"))


def test_every_key_of_the_manifest_is_in_the_document(bundle: reader.Bundle) -> None:
    text = DOCUMENT.read_text("utf-8")
    keys = set(bundle.manifest) | {key for image in bundle.manifest["images"] for key in image}
    keys |= {key for member in bundle.manifest["members"] for key in member}
    assert not [key for key in keys if f"`{key}`" not in text and f'"{key}"' not in text]


def test_manifest_can_be_read_by_lines(bundle: reader.Bundle) -> None:
    lines = bundle.content("MANIFEST.json").decode().splitlines()
    assert f'"checker_sha256": "{bundle.manifest["checker_sha256"]}",' in lines
    assert sum(line.startswith('  {"path": ') for line in lines) >= len(bundle.manifest["members"])


def test_images_are_whole(bundle: reader.Bundle) -> None:
    images = {image["name"]: image for image in bundle.manifest["images"]}
    assert set(images) >= IMAGES
    for image in images.values():
        document = json.loads(bundle.content(bundle.blob(image["manifest"])))
        config = json.loads(bundle.content(bundle.blob(image["config"])))
        assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        assert document["config"]["digest"] == image["config"]
        assert [layer["digest"] for layer in document["layers"]] == image["layers"]
        for layer in document["layers"]:
            assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
            assert layer["size"] == bundle.offsets[bundle.blob(layer["digest"])][1]
        assert config["rootfs"]["diff_ids"] == image["diff_ids"]
        if image["name"] in IMAGES:
            known = {"architecture", "os", "config", "rootfs", "history", "created"}
            assert set(config) == known
            assert {step["created"] for step in config["history"]} == {config["created"]}
    blobs = {m["path"] for m in bundle.manifest["members"] if m["path"].startswith("blobs/")}
    used = {
        bundle.blob(digest)
        for image in images.values()
        for digest in (image["manifest"], image["config"], *image["layers"])
    }
    assert blobs == used


def test_wheels_are_there_for_every_python(bundle: reader.Bundle) -> None:
    for python in ("3.10", "3.11", "3.12", "3.13", "3.14"):
        assert {f"wheels/{name}" for name in bundle.manifest["wheels"][python]} <= set(
            bundle.offsets
        )


def test_layers_have_the_one_form(bundle: reader.Bundle) -> None:
    """Order, links, times, owners and headers as the document says; no bytecode in them follows a time."""
    created = {
        digest: json.loads(bundle.content(bundle.blob(image["config"])))["created"]
        for image in bundle.manifest["images"]
        if image["name"] in IMAGES
        for digest in zip(image["layers"], image["diff_ids"], strict=True)
    }
    assert created
    for (digest, diff_id), moment in created.items():
        check_layer(bundle, digest, diff_id, moment)


class Hashed:
    """A stream whose digest is taken while it is read."""

    def __init__(self, file: Any) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        data: bytes = self.file.read(size)
        self.digest.update(data)
        return data


def check_layer(bundle: reader.Bundle, digest: str, diff_id: str, created: str) -> None:
    """One layer; `created` is the time of its image."""
    offset, size = bundle.offsets[bundle.blob(digest)]
    pipe = f"tail -c +{offset + 1} {bundle.path} | head -c {size} | zstd -dc"
    with subprocess.Popen(["sh", "-c", pipe], stdout=subprocess.PIPE) as child:
        stream: Any = Hashed(child.stdout)
        found = list(reader.entries(stream))
    assert f"sha256:{stream.digest.hexdigest()}" == diff_id
    paths = [tuple(entry.head.path.strip("/").encode().split(b"/")) for entry in found]
    assert paths == sorted(set(paths)), "order"
    moment = datetime.datetime.strptime(created, "%Y-%m-%dT%H:%M:%S%z")
    seen = set()
    for entry in found:
        head = entry.head
        age = int.from_bytes(entry.digest[:3], "big") if head.kind == "0" else 0
        if head.kind == "1":
            assert head.link in seen, f"{head.path} comes before {head.link}"
        else:
            assert head.mtime == moment.timestamp() - age, head.path
        assert head.path.endswith("/") == (head.kind == "5")
        known = {"path", "linkpath", "uid", "gid"}
        assert not [k for k in head.pax if k not in known and not k.startswith("SCHILY.xattr.")]
        if head.path.endswith(".pyc"):
            assert entry.start[4:8] == b"\x01\0\0\0", f"{head.path} follows a time"
        assert not head.mode & 0o6000 or head.kind == "5", f"{head.path} is privileged"
        seen.add(head.path)
