"""The companion file with the corresponding source of the MinIO build: every module, our build files, how to rebuild.

Deterministic, and kept in the cache by its inputs, so that the next bundle only copies it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle import modules
from bundle.errors import IntegrityError
from bundle.host import write_file
from bundle.recipes import content_key, file_digest, tree
from bundle.run import Progress

CHUNK = 4 << 20
FORM = 2
REBUILD = """#!/bin/sh
# Build MinIO again from nothing but this folder: sh rebuild.sh [TARGET]. Needs GNU patch and the Go that go.mod names.
# The same release of Go for the same machine gives the same bytes as the program in the image.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${1:-$here/minio.built}
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cp -R "$here/minio/." "$work/"
cd "$work"
export GOPATH="$work/go" GOCACHE="$work/cache" GOENV=off GOPROXY="file://$here/proxy" GOSUMDB=off
export GOFLAGS=-mod=readonly CGO_ENABLED=0
sed '/^export /d' build >build.here
sh ./build.here
cp minio "$target"
sha256sum "$target" 2>/dev/null || shasum -a 256 "$target"
"""
README = """# Source of the MinIO server in tracking-bundle {version} ({arch})

MinIO is under the GNU Affero General Public License, version 3 or later. This is the complete corresponding source of
the program `usr/local/bin/minio` in the bundle's image `minio`:

- `minio/`: our go.mod and go.sum (which name every module by version and sum), the build script, and `patches/`: our
  changes to MinIO, each with its reason above it; the build lays them over the module;
- `proxy/`: every module of that build, MinIO's own among them, in the form of a Go module proxy;
- `rebuild.sh`: builds it again without a network. It needs Go {toolchain} and GNU patch; Go itself checks by go.sum.

The compiler is Go {toolchain} as published by the Go project; it is a general tool and not part of this source.
"""


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A finished companion file."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of the companion, with its digest."""

    path: str
    content: bytes | Path
    sha256: str
    mode: int = 0o644

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def text(path: str, data: bytes, mode: int = 0o644) -> Part:
    """A part that is made here."""
    return Part(path=path, content=data, sha256=hashlib.sha256(data).hexdigest(), mode=mode)


def parts(
    recipe: Path, wanted: Sequence[modules.Wanted], store: modules.Store, version: str, arch: str
) -> list[Part]:
    """Everything that the companion holds, sorted by path."""
    lines = (line.split() for line in (recipe / "go.mod").read_text("utf-8").splitlines())
    toolchain = next((words[1] for words in lines if words[:1] == ["toolchain"]), "of go.mod")
    readme = README.format(version=version, arch=arch, toolchain=toolchain.removeprefix("go"))
    found = [
        text("README.md", readme.encode()),
        text("rebuild.sh", REBUILD.encode(), 0o755),
        *(text(f"minio/{name}", data) for name, data in tree(recipe)),
    ]
    for item in wanted:
        place, digest = f"proxy/{item.place}", store.proven(item)
        found.append(Part(path=place, content=store.file(item), sha256=digest))
        if item.kind == "zip":
            info = json.dumps({"Version": item.version}).encode()
            found.append(text(f"{place.removesuffix('.zip')}.info", info))
    return sorted(found, key=lambda part: part.path)


def write(out: Path, notes: Path, name: str, found: Sequence[Part], created: int) -> Companion:
    """Write `out`/`name`.tar, unless it is there already as it would be written; moved in place last.

    Raises IntegrityError when a module in the cache is not what it was.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.tar"
    named = [(part.path, f"{part.mode} {part.sha256}".encode()) for part in found]
    note = notes / f"{content_key([(f'{FORM} {name} {created}', b''), *named])}.json"
    if known := _known(path, note):
        return known
    partial = path.with_name(path.name + ".partial")
    progress = Progress(f"writing {path.name}", sum(part.size for part in found))
    try:
        with partial.open("wb") as file:
            for chunk in _chunks(name, found, created):
                file.write(chunk)
                progress.add(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        digest = file_digest(partial)
        partial.replace(path)
    finally:
        progress.close()
        partial.unlink(missing_ok=True)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_file(note, json.dumps({"sha256": digest}).encode())
    return Companion(path=path, sha256=digest, size=path.stat().st_size)


def _known(path: Path, note: Path) -> Companion | None:
    """The companion that lies at `path`, when it is the one that was written from the same parts."""
    try:
        digest = str(json.loads(note.read_text("utf-8"))["sha256"])
        if file_digest(path) != digest:
            return None
    except (OSError, ValueError, KeyError):
        return None
    return Companion(path=path, sha256=digest, size=path.stat().st_size)


def _chunks(name: str, found: Sequence[Part], created: int) -> Iterator[bytes]:
    for part in found:
        info = tarfile.TarInfo(f"{name}/{part.path}")
        info.size, info.mtime, info.mode = part.size, created, part.mode
        yield info.tobuf(tarfile.GNU_FORMAT)
        digest = hashlib.sha256()
        for chunk in _content(part.content):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != part.sha256:
            hint = "Remove that file from the cache, then run this again."
            message = "a cached module is not what it was"
            raise IntegrityError(message, where=str(part.content), hint=hint)
        yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _content(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
