"""Real images made without an engine: layers, configuration and manifest as a registry has them, sealed in a bundle."""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import delta, manifest, seal
from bundle.cutting import Form
from bundle.manifest import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, Added, Manifest, SealedImage
from bundle.packing import PackedImage
from tests import bundles


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A blob of an image: its digest, and where it lies."""

    digest: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer: its compressed blob and the digest of what is in it."""

    blob: Blob
    diff_id: str
    size: int


def keep(folder: Path, data: bytes) -> Blob:
    """Write a blob of `data` into `folder`."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    path = folder / digest.removeprefix("sha256:")
    path.write_bytes(data)
    return Blob(digest=digest, path=path)


def layer(folder: Path, name: str, megabytes: float = 0.1, files: int = 20) -> Layer:
    """A layer of `files` files that do not compress; the same name and size give the same layer."""
    chance, stream = random.Random(name), io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"{name}/{number}")
            info.size = int(megabytes * 1e6 / files)
            tar.addfile(info, io.BytesIO(chance.randbytes(info.size)))
    plain = stream.getvalue()
    packed = subprocess.run(
        ["zstd", "-1", "-q", "-c"], input=plain, capture_output=True, check=True
    ).stdout
    digest = "sha256:" + hashlib.sha256(plain).hexdigest()
    return Layer(blob=keep(folder, packed), diff_id=digest, size=len(plain))


def image(folder: Path, name: str, version: str, layers: Sequence[Layer]) -> PackedImage:
    """An image of `layers` that a container could be made of."""
    config = keep(
        folder,
        json.dumps(
            {
                "architecture": bundles.unseal_arch(),
                "os": "linux",
                "config": {"Cmd": [f"/{name}"]},
                "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
            }
        ).encode(),
    )

    def descriptor(kind: str, blob: Blob) -> dict[str, Any]:
        return {"mediaType": kind, "digest": blob.digest, "size": blob.path.stat().st_size}

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, one.blob) for one in layers],
    }
    top = keep(folder, json.dumps(document).encode())
    sealed = SealedImage(
        name=name,
        reference=f"tracking-bundle/{name}:{version}",
        manifest=top.digest,
        config=config.digest,
        layers=tuple(one.blob.digest for one in layers),
        diff_ids=tuple(one.diff_id for one in layers),
        size=sum(one.size for one in layers),
        sizes=tuple(one.size for one in layers),
    )
    blobs = (top, config, *(one.blob for one in layers))
    return PackedImage(image=sealed, blobs={blob.digest: blob.path for blob in blobs})


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A sealed bundle and its manifest."""

    path: Path
    manifest: Manifest


def carry(
    folder: Path,
    version: str,
    images: Mapping[str, Sequence[Layer]],
    base: delta.Inventory | None = None,
    form: Form = seal.ONE_FILE,
    added: Added = seal.NOTHING,
) -> Carried:
    """Seal `images` (name → layers) and what a site `added` as the bundle `version`; with `base` as a delta."""
    folder.mkdir(parents=True, exist_ok=True)
    sealed = seal.write_bundle(
        out=folder / "dist",
        top=bundles.tree(folder / "tree"),
        version=version,
        arch=bundles.unseal_arch(),
        created=bundles.CREATED,
        images=[image(folder, name, version, layers) for name, layers in images.items()],
        wheels={},
        key=seal.load_key(folder / "sign.key", make=True),
        base=base,
        form=form,
        added=added,
    )
    return Carried(path=sealed.path, manifest=manifest.read(sealed.path))
