"""Image blobs for a bundle: layers out of the engine, compressed once with zstd, kept in the cache for good."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from bundle import store
from bundle.engine import Engine
from bundle.errors import CommandError, PreconditionError
from bundle.host import write_file
from bundle.manifest import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, SealedImage, blob_path
from bundle.model import Image
from bundle.run import Progress, describe_exit, popen, step

CHUNK = 1 << 20
MAX_JSON = 4 << 20
LEVEL = 10


@dataclass(frozen=True, kw_only=True)
class PackedImage:
    """An image as it is sealed, with the file of each of its blobs (sha256:… → path)."""

    image: SealedImage
    blobs: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Frozen blobs by digest, and which blob a layer (by diffID) or an image (by engine ID) became."""

    root: Path
    level: int = LEVEL

    @property
    def layers(self) -> str:
        """The kind of note that names layers compressed in this way."""
        return f"layers-zstd{self.level}"

    def blob(self, digest: str) -> Path:
        """Where the blob `digest` lies."""
        return self.root / blob_path(digest)

    def note(self, kind: str, digest: str) -> Path:
        """Where it is written what `digest` became."""
        return self.root / kind / f"{digest.removeprefix('sha256:')}.json"

    def layer(self, diff_id: str) -> str:
        """The compressed blob of the layer `diff_id`; empty when there is none."""
        return self._look(self.layers, diff_id)

    def config(self, image_id: str) -> str:
        """The configuration's digest of the engine's image `image_id`; empty when it is not known."""
        return self._look("configs", image_id)

    def _look(self, kind: str, digest: str) -> str:
        try:
            blob = str(json.loads(self.note(kind, digest).read_text("utf-8"))["blob"])
        except (OSError, ValueError, KeyError):
            return ""
        return blob if self.blob(blob).is_file() else ""

    def keep(self, data: bytes) -> str:
        """Keep the small blob `data`; its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        if not self.blob(digest).is_file():
            write_file(self.blob(digest), data)
        return digest

    def remember(self, kind: str, digest: str, blob: str) -> None:
        """Write down that `digest` became `blob`."""
        path = self.note(kind, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps({"blob": blob}).encode())


def export_blobs(
    images: Sequence[Image], engine: Engine, cache: Path, level: int = LEVEL
) -> tuple[PackedImage, ...]:
    """The blobs of `images`, exported and compressed where `cache` misses them.

    Raises PreconditionError when an image or zstd is not there, CommandError when the export fails.
    """
    kept = Cache(root=cache, level=level)
    facts = {image.reference: _facts(engine, image) for image in images}
    missing = [reference for reference, fact in facts.items() if not _is_cached(kept, fact)]
    if missing:
        with step(f"exporting and compressing {len(missing)} images"):
            _export(kept, engine, {name: facts[name] for name in missing})
    return tuple(_pack(kept, image, facts[image.reference]) for image in images)


def _facts(engine: Engine, image: Image) -> dict[str, Any]:
    facts = store.inspect(engine, image.reference)
    if facts is None:
        message = f"the engine has no image {image.reference}"
        raise PreconditionError(
            message, where=image.name, hint="Build the images first: invoke bundle."
        )
    return facts


def _is_cached(cache: Cache, fact: Mapping[str, Any]) -> bool:
    return bool(cache.config(fact["Id"])) and all(map(cache.layer, fact["RootFS"]["Layers"]))


def _bytes_to_do(cache: Cache, engine: Engine, facts: Mapping[str, Any]) -> int:
    """What the layers measure that must be compressed, each once, as far as the engine tells them apart."""
    sizes: dict[str, int] = {}
    for reference, fact in facts.items():
        layers, steps = fact["RootFS"]["Layers"], store.layer_sizes(engine, reference)
        known = dict(zip(layers, steps, strict=True)) if len(steps) == len(layers) else {}
        sizes |= known or {reference: int(fact["Size"])}
    return sum(size for layer, size in sizes.items() if not cache.layer(layer))


def _export(cache: Cache, engine: Engine, facts: Mapping[str, Any]) -> None:
    wanted = {diff_id for fact in facts.values() for diff_id in fact["RootFS"]["Layers"]}
    small: dict[str, bytes] = {}
    progress = Progress("exporting images", _bytes_to_do(cache, engine, facts))
    with (
        store.save(engine, list(facts)) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is None:
                continue
            named = "sha256:" + member.name.rpartition("/")[2]
            if named in wanted and cache.layer(named):
                continue
            data = file.read() if member.size < MAX_JSON else b""
            if data[:1] in (b"{", b"["):
                small[member.name] = data
            elif member.size:
                _keep_layer(cache, io.BytesIO(data) if data else file, progress)
    progress.close()
    for entry in json.loads(small["manifest.json"]):
        blob = cache.keep(small[entry["Config"]])
        for reference in set(entry["RepoTags"] or ()) & set(facts):
            cache.remember("configs", facts[reference]["Id"], blob)


def _plain(file: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """The first bytes of a layer and the rest, uncompressed: some image stores give out what they got."""
    start = file.read(4)
    if start[:2] == b"\x1f\x8b":
        return b"", cast("IO[bytes]", gzip.GzipFile(fileobj=_Joined(start, file)))
    if start == b"\x28\xb5\x2f\xfd":
        hint = "Build the images on this engine instead of importing them."
        raise PreconditionError("the engine gives out layers in zstd form", hint=hint)
    return start, file


class _Joined(io.RawIOBase):
    """Bytes that were read already, then the rest of the file."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self.start, self.file = start, file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self.start:
            data, self.start = self.start, b""
            return data
        return self.file.read(size)


def _keep_layer(cache: Cache, file: IO[bytes], progress: Progress) -> None:
    start, plain = _plain(file)
    folder = cache.root / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f".layer-{os.getpid()}"
    try:
        diff_id = _compress(start, plain, target, cache.level, progress)
        blob = "sha256:" + _digest(target)
        target.replace(cache.blob(blob))
    finally:
        target.unlink(missing_ok=True)
    cache.remember(cache.layers, diff_id, blob)


def _compress(start: bytes, plain: IO[bytes], target: Path, level: int, progress: Progress) -> str:
    """Compress `plain` into `target` while it is read; the digest of what was read."""
    command = [
        "zstd",
        "--quiet",
        "--force",
        f"-{level}",
        "-T0",
        "-o",
        str(target),
    ]  # -T0: as -T1, not --single-thread
    reader, writer = os.pipe()
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(os.fdopen(writer, "wb"))
        with os.fdopen(reader, "rb") as source:
            child = stack.enter_context(popen(command, stdin=source))
        digest, chunk = hashlib.sha256(), start
        with contextlib.suppress(BrokenPipeError):  # its exit code says more
            while chunk := chunk or plain.read(CHUNK):
                digest.update(chunk)
                progress.add(sink.write(chunk))
                chunk = b""
            sink.flush()
        with contextlib.suppress(BrokenPipeError):
            sink.close()
        code = child.wait(timeout=600)
    if code != 0:
        raise CommandError(f"{' '.join(command)}: {describe_exit(code)}")
    return "sha256:" + digest.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _pack(cache: Cache, image: Image, fact: Mapping[str, Any]) -> PackedImage:
    config = cache.config(fact["Id"])
    diff_ids = tuple(fact["RootFS"]["Layers"])
    layers = tuple(cache.layer(diff_id) for diff_id in diff_ids)
    if not config or not all(layers) or _diff_ids(cache, config) != diff_ids:
        message = "the engine exported other layers than it names"
        raise CommandError(message, where=image.reference, hint="Build the images again.")

    def descriptor(media_type: str, digest: str) -> dict[str, Any]:
        return {
            "mediaType": media_type,
            "digest": digest,
            "size": cache.blob(digest).stat().st_size,
        }

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, layer) for layer in layers],
    }
    manifest = cache.keep(json.dumps(document, separators=(",", ":")).encode())
    sealed = SealedImage(
        name=image.name,
        reference=image.reference,
        manifest=manifest,
        config=config,
        layers=layers,
        diff_ids=diff_ids,
        size=int(fact["Size"]),
    )
    blobs = {digest: cache.blob(digest) for digest in (manifest, config, *layers)}
    return PackedImage(image=sealed, blobs=blobs)


def _diff_ids(cache: Cache, config: str) -> tuple[str, ...]:
    document = json.loads(cache.blob(config).read_bytes())
    return tuple(document["rootfs"]["diff_ids"])
