"""Bring the images of a bundle into the engine, streamed from the file; what is there and right is not sent again.

The engine pulls all of them at once from the bundle's own door. An engine that cannot reach this host's loopback
gets the same blobs as one archive that is made while it is sent. Killed anywhere, run again finishes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import delta, stock, store, unseal
from bundle.door import places, serve
from bundle.engine import Engine
from bundle.errors import CommandError, IntegrityError, PreconditionError
from bundle.manifest import MANIFEST_TYPE, PRODUCT, Manifest, SealedImage, blob_path
from bundle.pulls import pull_all, turns
from bundle.push import push_images
from bundle.registry import Registry
from bundle.run import Progress, log, step

LEFT_OVER = re.compile(rf"127\.0\.0\.1:\d+/{PRODUCT}/.+")
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Imported:
    """One row of the closing table; `how`: present, pulled or loaded."""

    name: str
    reference: str
    size: int
    how: str
    seconds: float


def import_images(
    bundle: Path,
    manifest: Manifest,
    engine: Engine,
    known: Sequence[Manifest] = (),
    registry: Registry | None = None,
) -> tuple[Imported, ...]:
    """Make every image of `manifest` known to `engine` under its reference, and look at each afterwards.

    `known`: the releases that were unpacked before, whose layers the engine may have. With the site's `registry` the
    images are pushed there first, and the engine pulls them from it.

    Raises IntegrityError when an image is not what was sealed, CommandError when the engine cannot take it,
    PreconditionError before anything is changed when a delta's base is not here.
    """
    _clear_left_overs(engine)
    missing = [image for image in manifest.images if not is_right(engine, image)]
    done: dict[str, Imported] = {}
    if missing and manifest.base:
        here = (
            stock.in_registry(registry, manifest, known)
            if registry
            else stock.in_engine(engine, manifest, known)
        )
        if gone := delta.gone(manifest, here, missing):
            raise PreconditionError.of([delta.refusal(manifest.base.version, gone)])
    if missing and registry:
        done = _by_registry(bundle, manifest, missing, engine, known, registry)
    elif missing:
        done = _by_door(bundle, manifest, missing, engine, known)
    wrong = [image.reference for image in missing if not is_right(engine, image)]
    if wrong:
        hint = "Check the bundle again: sh bootstrap.sh FILE --check; then run this again."
        raise IntegrityError(
            f"the engine holds other layers than were sealed: {', '.join(wrong)}", hint=hint
        )
    return tuple(done.get(image.name) or _row(image, "present") for image in manifest.images)


def _by_registry(
    bundle: Path,
    manifest: Manifest,
    images: Sequence[SealedImage],
    engine: Engine,
    known: Sequence[Manifest],
    registry: Registry,
) -> dict[str, Imported]:
    with step(f"pushing {len(images)} images to {registry.address}"):
        names = {one.name for release in (*known, manifest) for one in release.images}
        sent = push_images(bundle, manifest, images, registry, sorted(names))
        log.info("  %.1f MB were not there", sent / 1e6)
    with step(f"pulling {len(images)} images from {registry.address}"):
        base = f"{registry.address}/{registry.repository('')}"
        waits = _waits(manifest, images, engine, known)
        done, errors = pull_all(manifest, images, engine, base, waits, registry.header)
    if errors:
        raise errors[0]
    return _pulled(images, done)


def _by_door(
    bundle: Path,
    manifest: Manifest,
    images: Sequence[SealedImage],
    engine: Engine,
    known: Sequence[Manifest],
) -> dict[str, Imported]:
    """Let the engine pull from the file; send it an archive of what it could not.

    That is all of them when the engine never came to the door, and any for which it asked what it has: an engine
    knows a layer by its compressed digest only when it was pulled, and a delta does not carry the layer again.
    """
    with step(f"importing {len(images)} images"):
        waits = _waits(manifest, images, engine, known)
        with serve(bundle, manifest) as shelf:
            base = f"{shelf.address}/{PRODUCT}/"
            pulled, errors = pull_all(manifest, images, engine, base, waits)
        if not shelf.visits:
            log.info("  the engine cannot reach this host's loopback: sending an archive instead")
        elif errors and not shelf.refused:
            raise errors[0]
        done = _pulled(images, pulled)
        rest = [image for image in images if image.name not in done]
        if rest:
            here = delta.present(stock.in_engine(engine, manifest, known), rest)
            done |= _load_all(bundle, manifest, rest, engine, here)
    return done


def _waits(
    manifest: Manifest, images: Sequence[SealedImage], engine: Engine, known: Sequence[Manifest]
) -> dict[str, set[str]]:
    """Which of `images` wait for which, so that the engine unpacks each layer once."""
    here = stock.in_engine(engine, manifest, known)
    return {} if here.store == "graphdriver" else turns(images, here.chains)


def _pulled(images: Sequence[SealedImage], seconds: Mapping[str, float]) -> dict[str, Imported]:
    found = [image for image in images if image.name in seconds]
    return {image.name: _row(image, "pulled", seconds[image.name]) for image in found}


def is_right(engine: Engine, image: SealedImage) -> bool:
    """Whether the engine has exactly this image under its reference: both kinds of image store name it their way."""
    facts = store.inspect(engine, image.reference)
    if facts is None or tuple(facts["RootFS"]["Layers"]) != image.diff_ids:
        return False
    return facts["Id"] in (image.config, image.manifest)


def _row(image: SealedImage, how: str, seconds: float = 0.0) -> Imported:
    return Imported(
        name=image.name, reference=image.reference, size=image.size, how=how, seconds=seconds
    )


def _clear_left_overs(engine: Engine) -> None:
    """Take away the names of a door that was open when an import was killed; layers stay for this one."""
    for reference in store.references(engine):
        if LEFT_OVER.fullmatch(reference):
            store.untag(engine, reference)


def _load_all(
    bundle: Path,
    manifest: Manifest,
    images: Sequence[SealedImage],
    engine: Engine,
    here: Set[str],
) -> dict[str, Imported]:
    start = time.monotonic()
    progress = Progress("sending images", sum(_blobs(manifest, images, here).values()))
    store.load(engine, archive(bundle, manifest, images, progress.add, here))
    progress.close()
    seconds = time.monotonic() - start
    return {image.name: _row(image, "loaded", seconds) for image in images}


def _blobs(
    manifest: Manifest, images: Sequence[SealedImage], here: Set[str] = frozenset()
) -> dict[str, int]:
    digests = {d for image in images for d in (image.manifest, image.config, *image.layers)} - here
    return {digest: manifest.size_of(digest) for digest in sorted(digests)}


def archive(
    bundle: Path,
    manifest: Manifest,
    images: Sequence[SealedImage],
    tick: Callable[[int], None],
    here: Set[str] = frozenset(),
) -> Iterator[bytes]:
    """An image archive that both kinds of image store take, made while it is read; layers that are `here` stay out."""
    where = places(bundle)
    for name, document in _indexes(manifest, images).items():
        yield from _entry(name, json.dumps(document).encode(), manifest.mtime)
    with unseal.Reader(bundle) as file:
        for digest, size in _blobs(manifest, images, here).items():
            yield unseal.header(blob_path(digest), size, 0o644, manifest.mtime)
            at, end = where[digest][0], where[digest][0] + size
            while at < end:
                chunk = file.read(min(CHUNK, end - at), at)
                if not chunk:
                    raise CommandError("the bundle file has become shorter", where=str(bundle))
                yield chunk
                tick(len(chunk))
                at += len(chunk)
            yield bytes(unseal.padded(size) - size)
    yield bytes(2 * unseal.BLOCK)


def _entry(name: str, data: bytes, mtime: int) -> Iterator[bytes]:
    yield unseal.header(name, len(data), 0o644, mtime)
    yield data + bytes(unseal.padded(len(data)) - len(data))


def _indexes(manifest: Manifest, images: Sequence[SealedImage]) -> dict[str, Any]:
    """One image store reads index.json, the other manifest.json."""
    entries = [
        {
            "mediaType": MANIFEST_TYPE,
            "digest": image.manifest,
            "size": manifest.size_of(image.manifest),
            "annotations": {"io.containerd.image.name": f"docker.io/{image.reference}"},
        }
        for image in images
    ]
    plain = [
        {
            "Config": blob_path(image.config),
            "RepoTags": [image.reference],
            "Layers": [blob_path(layer) for layer in image.layers],
        }
        for image in images
    ]
    return {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {"schemaVersion": 2, "manifests": entries},
        "manifest.json": plain,
    }
