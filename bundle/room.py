"""What takes the room in a bundle: by image, and by the package (wheel, Debian package, single file) that a file is of.

Read out of the very blobs that are sealed. Compressed bytes of a package are its share of its layers, so about.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bundle.console import table
from bundle.errors import CommandError
from bundle.host import write_file
from bundle.layers import LINK, LayerError, entries
from bundle.manifest import SealedImage
from bundle.packing import PackedImage
from bundle.run import Progress, describe_exit, popen
from bundle.words import say

RECORD = re.compile(r"(.*/site-packages)/([^/]+)\.dist-info/RECORD")
LISTED = re.compile(r"var/lib/dpkg/info/([^/:]+)(?::[a-z0-9]+)?\.list")
STATUS = "var/lib/dpkg/status"
BYTECODE = re.compile(r"__pycache__/([^/]+)\.cpython-\d+\.pyc$")
ALONE = 1 << 20  # a file of no package that is at least as big has a line of its own
REST = ("-", "")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """One layer: its compressed bytes, its files, and the bytes of each package (name, kind)."""

    blob: int
    files: int
    packages: Mapping[tuple[str, str], int]

    @property
    def unpacked(self) -> int:
        """The bytes of its files."""
        return sum(self.packages.values())

    def share(self, package: tuple[str, str]) -> float:
        """The compressed bytes of `package`, as far as all compress alike."""
        return self.blob * self.packages.get(package, 0) / max(self.unpacked, 1)


def write(target: Path, packed: Sequence[PackedImage]) -> Path:
    """Write into `target` two tables: the images, and every package by the room that it takes; returns `target`.

    Raises CommandError when a blob cannot be read.
    """
    blobs = {digest: image.blobs[digest] for image in packed for digest in image.image.layers}
    sizes = {digest: blob.stat().st_size for digest, blob in blobs.items()}
    progress, contents = Progress("looking into layers", sum(sizes.values())), {}
    for digest in sorted(blobs):
        contents[digest] = _look_into(blobs[digest])
        progress.add(sizes[digest])
    progress.close()
    write_file(target, tell([image.image for image in packed], contents).encode())
    return target


def _look_into(blob: Path) -> Contents:
    command = ["zstd", "--quiet", "--decompress", "--stdout", str(blob)]
    with popen(command) as child:
        assert child.stdout is not None
        try:
            found = look(child.stdout, blob.stat().st_size)
        except LayerError as error:
            raise CommandError(f"{blob}: {error}") from error
        if code := child.wait(timeout=60):
            raise CommandError(f"{' '.join(command)}: {describe_exit(code)}")
    return found


def look(layer: IO[bytes], blob: int) -> Contents:
    """What is in the tar stream `layer`, whose compressed form has `blob` bytes.

    Raises LayerError when it is not a layer.
    """
    sizes: dict[str, int] = {}
    owners: dict[str, tuple[str, str]] = {}
    versions: dict[str, str] = {}
    for info, content in entries(layer):
        if info.isreg() or info.type == LINK:
            sizes[info.name] = content.left
        if info.name == STATUS:
            versions = dict(_versions(content.read().decode("utf-8", "replace")))
        elif record := RECORD.fullmatch(info.name):
            name = (record[2].replace("-", " "), "wheel")
            owners |= dict.fromkeys(_recorded(record[1], content.read()), name)
        elif listed := LISTED.fullmatch(info.name):
            names = content.read().decode("utf-8", "replace").splitlines()
            owners |= dict.fromkeys((line.lstrip("/") for line in names), (listed[1], "deb"))
    packages: Counter[tuple[str, str]] = Counter()
    for path, size in sizes.items():
        owner, kind = _owner(path, size, owners)
        version = versions.get(owner, "") if kind == "deb" else ""
        packages[f"{owner} {version}".rstrip(), kind] += size
    return Contents(blob=blob, files=len(sizes), packages=packages)


def _versions(status: str) -> Iterator[tuple[str, str]]:
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version): (.*)$", stanza, re.MULTILINE))
        if len(fields) == 2:
            yield fields["Package"], fields["Version"]


def _recorded(site: str, record: bytes) -> Iterator[str]:
    for row in csv.reader(record.decode("utf-8", "replace").splitlines()):
        parts = site.split("/")
        for part in row[0].split("/") if row else ():
            parts = parts[:-1] if part == ".." else [*parts, part]
        yield "/".join(parts)


def _owner(path: str, size: int, owners: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """The package of `path`: its own, or that of the source that it was compiled from."""
    source = BYTECODE.sub(r"\1.py", path)
    alone = (f"/{path}", "file") if size >= ALONE else REST
    return owners.get(path) or owners.get(source) or alone


def tell(images: Sequence[SealedImage], contents: Mapping[str, Contents]) -> str:
    """The tables as text; a layer that several images have counts once among the packages."""
    head = say("image", "이미지"), say("layers", "레이어"), say("files", "파일 수"), *_sizes()
    rows = [_image_row(image, contents) for image in images]
    packages: Counter[tuple[str, str]] = Counter()
    shares: Counter[tuple[str, str]] = Counter()
    for layer in contents.values():
        packages.update(layer.packages)
        for package in layer.packages:
            shares[package] += round(layer.share(package))
    listed = [
        (name, kind, _mb(shares[name, kind]), _mb(packages[name, kind]))
        for name, kind in sorted(packages, key=lambda package: (-shares[package], package))
    ]
    whole = (say("all", "전체"), "", _mb(sum(shares.values())), _mb(sum(packages.values())))
    titles = (say("package", "패키지"), say("kind", "종류"), *_sizes())
    note = say(
        "Images share layers. A package's bytes in the file are its share of its layers.",
        "이미지는 레이어를 공유합니다. 패키지의 파일 내 크기는 레이어에서 차지하는 몫입니다.",
    )
    return "\n".join([table(head, rows), "", note, "", table(titles, [whole, *listed]), ""])


def _sizes() -> tuple[str, str]:
    return say("in the file", "파일 내"), say("unpacked", "풀린 크기")


def _image_row(image: SealedImage, contents: Mapping[str, Contents]) -> tuple[str, ...]:
    layers = [contents[digest] for digest in image.layers]
    files = sum(layer.files for layer in layers)
    blobs, unpacked = _total(layer.blob for layer in layers), _total(x.unpacked for x in layers)
    return image.name, str(len(layers)), f"{files:,}", blobs, unpacked


def _total(sizes: Iterable[int]) -> str:
    return _mb(sum(sizes))


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
