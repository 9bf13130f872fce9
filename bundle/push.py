"""Put the images of a bundle into the site's own registry, streamed from the file; what is there is not sent again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bundle import store, unseal
from bundle.door import places
from bundle.engine import Engine
from bundle.errors import CommandError, IntegrityError, PreconditionError, Problem
from bundle.manifest import Manifest, SealedImage
from bundle.registry import Registry
from bundle.run import Progress
from bundle.words import say

CHUNK = 1 << 20


def trouble(registry: Registry, engine: Engine) -> Problem | None:
    """Why images cannot be put into `registry`, or not be pulled from there; nothing is changed by looking."""
    try:
        registry.check()
        store.check_login(engine, registry.header)
    except CommandError as error:
        problem, name = error.problems[0], registry.address
        if not any(word in problem.message for word in ("x509", "certificate", "tls:")):
            return replace(problem, where=name)
        place = f"/etc/docker/certs.d/{name}/ca.crt"
        hint = say(
            f"Make the engine trust it: install -D -m 644 CA.pem {place}",
            f"엔진이 신뢰하게 하십시오: install -D -m 644 CA.pem {place}",
        )
        return replace(problem, where=name, hint=hint)
    except PreconditionError as error:
        return error.problems[0]
    return None


def push_images(
    bundle: Path,
    manifest: Manifest,
    images: Sequence[SealedImage],
    registry: Registry,
    names: Sequence[str],
) -> int:
    """Make `images` so in `registry`, each under its tag when all of it is there; returns the bytes that were sent.

    `names`: the images that may lie there already, whose layers are taken from them.

    Raises PreconditionError when the registry cannot be used, CommandError when it refuses, IntegrityError when the
    file lacks what the registry lacks.
    """
    where, sent = places(bundle), 0
    digests = {digest for image in images for digest in (*image.layers, image.config)}
    progress = Progress("pushing images", sum(manifest.size_of(digest) for digest in digests))
    for image in images:
        for digest in dict.fromkeys((*image.layers, image.config)):
            if not _is_there(registry, image.name, digest, names):
                place = _place(where, digest, bundle)
                registry.send(image.name, digest, place[1], _chunks(bundle, *place, progress))
                sent += place[1]
        document = b"".join(_chunks(bundle, *_place(where, image.manifest, bundle)))
        registry.publish(image, document)
    progress.close()
    return sent


def _is_there(registry: Registry, image: str, digest: str, names: Sequence[str]) -> bool:
    if registry.has(image, digest):
        return True
    others = (other for other in names if other != image and registry.has(other, digest))
    return any(registry.mount(image, digest, other) for other in others)


def _place(where: Mapping[str, tuple[int, int]], digest: str, bundle: Path) -> tuple[int, int]:
    if digest not in where:
        hint = "Bring the full bundle, or a delta made with a new inventory: invoke inventory."
        raise IntegrityError(
            f"the registry lacks {digest}, and the file does not carry it",
            where=str(bundle),
            hint=hint,
        )
    return where[digest]


def _chunks(
    bundle: Path, offset: int, size: int, progress: Progress | None = None
) -> Iterator[bytes]:
    with unseal.Reader(bundle) as file:
        end = offset + size
        while offset < end:
            chunk = file.read(min(CHUNK, end - offset), offset)
            if not chunk:
                raise CommandError("the bundle file has become shorter", where=str(bundle))
            yield chunk
            offset += len(chunk)
            if progress:
                progress.add(len(chunk))
