"""Image blobs for a bundle: layers out of the engine, in one form, compressed once, kept in the cache for good.

A layer is read while the one before it is compressed; what is read lies in a temporary file of the cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from bundle import layers, store
from bundle.blobs import LEVEL, Cache, Kept, rewrite_config
from bundle.engine import Engine
from bundle.errors import CommandError, PreconditionError
from bundle.layers import BLOCK, CHUNK, Entry, Exactly, Layer, LayerError
from bundle.manifest import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, SealedImage
from bundle.model import Image
from bundle.run import Progress, describe_exit, popen, step

MAX_JSON = 4 << 20
THREADS = 4  # at most: each has a window of its own
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, kw_only=True)
class PackedImage:
    """An image as it is sealed, with the file of each of its blobs (sha256:… → path).

    `became`: what travels for each of the engine's layers (by its diffID there).
    """

    image: SealedImage
    blobs: Mapping[str, Path]
    became: Mapping[str, Kept] = field(default_factory=dict)


def export_blobs(
    images: Sequence[Image],
    engine: Engine,
    cache: Path,
    level: int = LEVEL,
    *,
    epoch: int | None = None,
    names: Mapping[str, str] | None = None,
    below: Sequence[PackedImage] = (),
) -> tuple[PackedImage, ...]:
    """The blobs of `images`, exported and compressed where `cache` misses them.

    `epoch` is the time that normalised layers bear; without it layers stay as they are, but for those of the images
    `below`, which are packed already. `names` says how images are called where they run (image name → reference);
    without it as in this engine.

    Raises PreconditionError when an image or zstd is not there, CommandError when the export fails.
    """
    ours = {layer: kept for one in below for layer, kept in one.became.items()}
    kept = Cache(root=cache, level=level, epoch=epoch, ours=ours)
    facts = {image.reference: _facts(engine, image) for image in images}
    missing = [reference for reference, fact in facts.items() if not _is_cached(kept, fact)]
    if missing:
        with step(f"exporting and compressing {len(missing)} images"):
            _export(kept, engine, {name: facts[name] for name in missing})
    called = {image.name: (names or {}).get(image.name, image.reference) for image in images}
    return tuple(_pack(kept, image, facts[image.reference], called[image.name]) for image in images)


def _facts(engine: Engine, image: Image) -> dict[str, Any]:
    facts = store.inspect(engine, image.reference)
    if facts is None:
        message = f"the engine has no image {image.reference}"
        raise PreconditionError(
            message, where=image.name, hint="Build the images first: invoke bundle."
        )
    return facts


def _is_cached(cache: Cache, fact: Mapping[str, Any]) -> bool:
    return bool(cache.config_of(fact["Id"], cache.stands_for(fact["RootFS"]["Layers"])))


def _bytes_to_do(cache: Cache, engine: Engine, facts: Mapping[str, Any]) -> int:
    """What the layers measure that must be compressed, each once, as far as the engine tells them apart."""
    sizes: dict[str, int] = {}
    for reference, fact in facts.items():
        named, steps = fact["RootFS"]["Layers"], store.layer_sizes(engine, reference)
        known = dict(zip(named, steps, strict=True)) if len(steps) == len(named) else {}
        sizes |= known or {reference: int(fact["Size"])}
    return sum(size for layer, size in sizes.items() if cache.stands_for([layer]) == [None])


def _groups(facts: Mapping[str, Any]) -> list[list[str]]:
    """Images that share more than their base stand together, few layers first.

    In one call the engine gives out a layer once, but nothing before it has copied all; so the next group is asked for
    while this one is packed.
    """
    groups: list[tuple[set[str], list[str]]] = []
    for reference, fact in facts.items():
        own, names = set(fact["RootFS"]["Layers"][1:]), [reference]
        for group in [group for group in groups if group[0] & own]:
            groups.remove(group)
            own, names = own | group[0], group[1] + names
        groups.append((own, names))
    return [names for _, names in sorted(groups, key=lambda group: len(group[0]))]


def _export(cache: Cache, engine: Engine, facts: Mapping[str, Any]) -> None:
    wanted = {diff_id for fact in facts.values() for diff_id in fact["RootFS"]["Layers"]}
    progress = Progress("exporting images", _bytes_to_do(cache, engine, facts))
    ahead, worker = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    # each call has a connection of its own
    calls = [
        ahead.submit(store.save, dataclasses.replace(engine), group) for group in _groups(facts)
    ]
    try:
        for call in calls:
            with call.result() as stream:
                small = _read_archive(cache, stream, wanted, worker, progress)
            for entry in json.loads(small["manifest.json"]):
                for reference in set(entry["RepoTags"] or ()) & set(facts):
                    _keep_config(cache, facts[reference], small[entry["Config"]])
    except LayerError as error:
        hint = "Build the images again; if that does not help, look at the engine's log."
        raise CommandError(f"the engine's export: {error}", hint=hint) from error
    finally:
        for pool in (ahead, worker):
            pool.shutdown(cancel_futures=True)
        for call in calls:
            if not call.cancelled() and not call.exception():
                call.result().close()  # one that was not read
        progress.close()


def _read_archive(
    cache: Cache,
    stream: IO[bytes],
    wanted: set[str],
    worker: ThreadPoolExecutor,
    progress: Progress,
) -> dict[str, bytes]:
    """Keep every wanted layer of the archive; its small documents by name."""
    small: dict[str, bytes] = {}
    before: Future[None] | None = None
    for info, content in layers.entries(io.BufferedReader(cast("Any", stream), CHUNK)):
        named = "sha256:" + info.name.rpartition("/")[2]
        if not content.left or (named in wanted and cache.stands_for([named]) != [None]):
            continue
        start = content.read(content.left if content.left < MAX_JSON else BLOCK)
        if start[:1] in (b"{", b"["):
            small[info.name] = start
        elif start[:2] == GZIP or start[:4] == ZSTD or info.size % BLOCK == 0:
            spilled = _spill(cache, _plain(start, content))
            with contextlib.ExitStack() as stack:
                stack.enter_context(spilled.spill)
                if before:
                    before.result()  # at most one waits while one is read
                before = worker.submit(_keep_layer, cache, spilled, progress)
                stack.pop_all()  # now it is closed there
    if before:
        before.result()
    return small


class _Joined(io.RawIOBase):
    """Bytes that were read already, then the rest of the member."""

    def __init__(self, start: bytes, rest: Exactly) -> None:
        self.start, self.rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self.start:
            return self.rest.readinto(buffer)
        count = min(len(buffer), len(self.start))
        buffer[:count], self.start = self.start[:count], self.start[count:]
        return count


def _plain(start: bytes, rest: Exactly) -> IO[bytes]:
    """A layer uncompressed: some image stores give out what they got."""
    joined = io.BufferedReader(_Joined(start, rest), CHUNK)
    if start[:4] == ZSTD:
        hint = "Build the images on this engine instead of importing them."
        raise PreconditionError("the engine gives out layers in zstd form", hint=hint)
    if start[:2] == GZIP:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=cast("Any", joined)))
    return cast("IO[bytes]", joined)


class _Hashed(io.RawIOBase):
    """A stream whose digest is taken while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        self.digest.update(data)
        self.size += len(data)
        return len(data)


@dataclass(frozen=True, kw_only=True)
class _Spilled:
    """A layer that was read into a temporary file; `entries` is None where that holds the layer as it is."""

    diff_id: str
    size: int
    spill: IO[bytes]
    entries: tuple[Entry, ...] | None = field(repr=False)


def _spill(cache: Cache, plain: IO[bytes]) -> _Spilled:
    hashed = _Hashed(plain)
    source = cast("IO[bytes]", io.BufferedReader(hashed, CHUNK))
    cache.root.mkdir(parents=True, exist_ok=True)
    spill = cast("IO[bytes]", tempfile.TemporaryFile(dir=cache.root))  # noqa: SIM115  # closed by _keep_layer
    entries = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(spill)
        if cache.epoch is None:
            while chunk := source.read(CHUNK):
                spill.write(chunk)
            spill.flush()
        else:
            entries = layers.normalise(source, spill)
        stack.pop_all()
    diff_id = "sha256:" + hashed.digest.hexdigest()
    return _Spilled(diff_id=diff_id, size=hashed.size, spill=spill, entries=entries)


def _keep_layer(cache: Cache, spilled: _Spilled, progress: Progress) -> None:
    folder = cache.root / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f".layer-{os.getpid()}"
    try:
        with spilled.spill:
            layer = _compress(cache, spilled, target, progress)
        frozen = cache.layer(
            layer.diff_id
        )  # the same files, built anew: its blob stays what it was
        blob = frozen.blob if frozen else "sha256:" + _digest(target)
        if not frozen:
            target.replace(cache.blob(blob))
    finally:
        target.unlink(missing_ok=True)
    kept = Kept(blob=blob, diff_id=layer.diff_id, size=layer.size)
    for diff_id in {layer.diff_id, spilled.diff_id}:
        cache.remember(cache.layers, diff_id, kept)


class _Sink:
    """The compressor's input, counted."""

    def __init__(self, pipe: IO[bytes], progress: Progress) -> None:
        self.pipe, self.progress = pipe, progress

    def write(self, data: bytes, /) -> None:
        self.pipe.write(data)
        self.progress.add(len(data))


def _compress(cache: Cache, spilled: _Spilled, target: Path, progress: Progress) -> Layer:
    """Compress the layer into `target` while it is written."""
    threads = f"-T{min(os.cpu_count() or 1, THREADS)}"  # any number gives the same; --single-thread does not
    command = ["zstd", "--quiet", "--force", f"-{cache.level}", threads, "-o", str(target)]
    reader, writer = os.pipe()
    layer = Layer(diff_id=spilled.diff_id, size=spilled.size)
    with contextlib.ExitStack() as stack:
        pipe = stack.enter_context(os.fdopen(writer, "wb"))
        with os.fdopen(reader, "rb") as source:
            child = stack.enter_context(popen(command, stdin=source))
        sink = _Sink(pipe, progress)
        with contextlib.suppress(BrokenPipeError):  # its exit code says more
            if spilled.entries is not None and cache.epoch is not None:
                layer = layers.write(spilled.entries, spilled.spill, cache.epoch, sink)
            else:
                spilled.spill.seek(0)
                while chunk := spilled.spill.read(CHUNK):
                    sink.write(chunk)
            pipe.flush()
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        code = child.wait(timeout=600)
    if code != 0:
        raise CommandError(f"{' '.join(command)}: {describe_exit(code)}")
    return layer


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep_config(cache: Cache, fact: Mapping[str, Any], raw: bytes) -> None:
    """Keep the configuration of an image, of its normalised layers where they were normalised."""
    found = cache.stands_for(fact["RootFS"]["Layers"])
    data = rewrite_config(raw, [kept.diff_id for kept in found if kept], cache.epoch)
    blob = cache.keep(data)
    cache.remember(cache.configs, fact["Id"], Kept(blob=blob, diff_id="", size=len(data)))


def _pack(cache: Cache, image: Image, fact: Mapping[str, Any], reference: str) -> PackedImage:
    found = cache.stands_for(fact["RootFS"]["Layers"])
    config, kept = cache.config_of(fact["Id"], found), [layer for layer in found if layer]
    if not config:
        message = "the engine exported other layers than it names"
        raise CommandError(message, where=image.reference, hint="Build the images again.")

    def descriptor(media_type: str, digest: str) -> dict[str, Any]:
        size = cache.blob(digest).stat().st_size
        return {"mediaType": media_type, "digest": digest, "size": size}

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, layer.blob) for layer in kept],
    }
    manifest = cache.keep(json.dumps(document, separators=(",", ":")).encode())
    sealed = SealedImage(
        name=image.name,
        reference=reference,
        manifest=manifest,
        config=config,
        layers=tuple(layer.blob for layer in kept),
        diff_ids=tuple(layer.diff_id for layer in kept),
        size=sum(layer.size for layer in kept),
        sizes=tuple(layer.size for layer in kept),
    )
    blobs = {digest: cache.blob(digest) for digest in (manifest, config, *sealed.layers)}
    became = dict(zip(fact["RootFS"]["Layers"], kept, strict=True))
    return PackedImage(image=sealed, blobs=blobs, became=became)
