"""Compressed layers and archives read as streams: entries with their names, nothing unpacked to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bundle.errors import CommandError
from bundle.run import describe_exit, popen

CHUNK = 1 << 20


@contextmanager
def plain(blob: Path) -> Iterator[IO[bytes]]:
    """The bytes of a zstd blob, uncompressed while they are read.

    Raises CommandError when it cannot be decompressed to its end.
    """
    with popen(["zstd", "--quiet", "--decompress", "--stdout", str(blob)]) as child:
        assert child.stdout is not None
        ended = False
        try:
            yield child.stdout
            ended = not child.stdout.read(1)
        finally:
            if not ended:
                child.kill()
            child.stdout.close()
            code = child.wait(timeout=60)
    if ended and code != 0:
        raise CommandError(f"reading {blob.name}: zstd {describe_exit(code)}")


@contextmanager
def layer(blob: Path) -> Iterator[tarfile.TarFile]:
    """A zstd layer as a tar stream.

    Raises CommandError when it is damaged.
    """
    with plain(blob) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                yield archive
                while stream.read(CHUNK):
                    pass
        except tarfile.TarError as error:
            raise CommandError(f"reading the layer {blob.name}: {error}") from error


def find(blob: Path, path: str, marker: bytes, size: int) -> bytes | None:
    """The `size` bytes at `marker` in the file `path` of a layer; None when the layer or the file has no such thing."""
    with layer(blob) as archive:
        for member in archive:
            if member.name.removeprefix("./") == path and member.isreg():
                file = archive.extractfile(member)
                return _at(file, marker, size) if file else None
    return None


def _at(file: IO[bytes], marker: bytes, size: int) -> bytes | None:
    kept = b""
    while chunk := file.read(CHUNK):
        data = kept + chunk
        place = data.find(marker)
        if place >= 0:
            return data[place:] + file.read(max(0, size - len(data) + place))
        kept = data[-len(marker) :]
    return None


def members(blob: Path, wanted: set[str]) -> dict[str, bytes]:
    """The files `wanted` of a layer, those that it has."""
    found = {}
    with layer(blob) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            file = archive.extractfile(member) if name in wanted and member.isreg() else None
            if file:
                found[name] = file.read()
    return found
