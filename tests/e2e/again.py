"""The bundle under test sealed again: as a delta, or with one layer more as the next release."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from bundle import config, delta, manifest, seal, unseal
from bundle.manifest import Manifest, SealedImage, blob_path
from bundle.packing import PackedImage
from bundle.workflows.connected import SIGN_KEY
from tests import carried
from tests.e2e.stack import Sealed


def seal_again(
    sealed: Sealed,
    folder: Path,
    inventory: Path,
    *,
    version: str = "",
    images: Sequence[PackedImage] = (),
) -> Sealed:
    """A delta on `inventory` of the same small part, wheels and images (or `images` in the place of theirs)."""
    old = manifest.read(sealed.path)
    own = {image.image.name: image for image in images}
    base = delta.parse(inventory.read_bytes(), str(inventory))
    left = {blob_path(digest) for digest in delta.present(base, old.images)}
    files = {part.path: extract(sealed.path, part.path, folder, left) for part in old.members}
    made = seal.write_bundle(
        out=folder / "dist",
        top=config_top(files, folder),
        version=version or old.version,
        arch=old.arch,
        created=old.mtime,
        images=[own.get(one.name) or packed(one, files, version) for one in old.images],
        wheels={
            python: [files[f"wheels/{name}"] for name in names]
            for python, names in old.wheels.items()
        },
        key=seal.load_key(config.config_folder() / SIGN_KEY),
        small={path: file for path, file in files.items() if path.startswith("small/")},
        base=base,
    )
    return Sealed(path=made.path, fingerprint=made.fingerprint, cache=sealed.cache)


def extract(bundle: Path, name: str, folder: Path, left: set[str]) -> Path:
    """The member `name` as a file; one that a delta leaves out is only as long as it was."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    offset, size = unseal.members(bundle)[name]
    with open(path, "wb") as out:
        if name in left:
            out.truncate(size)
            return path
        with unseal.Reader(bundle) as file:
            out.write(file.read(size, offset))
    return path


def config_top(files: dict[str, Path], folder: Path) -> Path:
    """A source tree with the two members that are not of the small part."""
    top = folder / "top"
    for name, place in (("bootstrap.sh", "scripts"), ("unseal.py", "bundle")):
        (top / place).mkdir(parents=True, exist_ok=True)
        (top / place / name).write_bytes(files[name].read_bytes())
    return top


def packed(image: SealedImage, files: dict[str, Path], version: str) -> PackedImage:
    """An image of the bundle as it is sealed again."""
    digests = (image.manifest, image.config, *image.layers)
    name = image.reference.rpartition(":")[0]
    same = dataclasses.replace(image, reference=f"{name}:{version}") if version else image
    return PackedImage(image=same, blobs={one: files[blob_path(one)] for one in digests})


def with_one_layer_more(sealed: Sealed, name: str, folder: Path, version: str) -> PackedImage:
    """The image `name` of the bundle with a small layer on top, as after a package was bumped."""
    old: Manifest = manifest.read(sealed.path)
    image = next(one for one in old.images if one.name == name)
    folder.mkdir(parents=True, exist_ok=True)
    more = carried.layer(folder, "more", 0.05)
    config_data = json.loads(
        extract(sealed.path, blob_path(image.config), folder, set()).read_bytes()
    )
    config_data["rootfs"]["diff_ids"].append(more.diff_id)
    config_data["history"].append({"created_by": "one layer more"})
    document = json.loads(
        extract(sealed.path, blob_path(image.manifest), folder, set()).read_bytes()
    )
    new = carried.keep(folder, json.dumps(config_data).encode())
    document["config"] |= {"digest": new.digest, "size": new.path.stat().st_size}
    layer = {"digest": more.blob.digest, "size": more.blob.path.stat().st_size}
    document["layers"].append({**document["layers"][0], **layer})
    top = carried.keep(folder, json.dumps(document).encode())
    blobs = {new.digest: new.path, top.digest: top.path, more.blob.digest: more.blob.path}
    for digest in image.layers:  # of the right length: a delta leaves them out
        path = folder / digest.removeprefix("sha256:")
        with open(path, "wb") as out:
            out.truncate(old.size_of(digest))
        blobs[digest] = path
    sealed_image = dataclasses.replace(
        image,
        reference=f"{image.reference.rpartition(':')[0]}:{version}",
        manifest=top.digest,
        config=new.digest,
        layers=(*image.layers, more.blob.digest),
        diff_ids=(*image.diff_ids, more.diff_id),
        size=image.size + more.size,
        sizes=(*image.unpacked, more.size),
    )
    return PackedImage(image=sealed_image, blobs=blobs)
