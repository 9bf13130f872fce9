"""What differs between two bundles: members, and in a layer the files and what of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIGNATURE = "MANIFEST.sig"
FACTS = ("type", "mode", "uid", "gid", "mtime", "linkname", "size", "devmajor", "devminor")


def differences(left: Path, right: Path) -> list[str]:
    """One line for each member that differs, the signature aside, and one for each file of a layer that does."""
    if left.stat().st_size != right.stat().st_size:
        found = [f"the files have {left.stat().st_size} and {right.stat().st_size} bytes"]
    else:
        found = []
    ours, theirs = _members(left), _members(right)
    if list(ours) != list(theirs):
        found += [f"{name}: only in one of them" for name in sorted(ours.keys() ^ theirs.keys())]
    both = ours.keys() & theirs.keys() - {SIGNATURE}
    found += [f"{name}: differs" for name in sorted(both) if ours[name] != theirs[name]]
    return found + list(_layers(left, right))


def _members(bundle: Path) -> dict[str, tuple[Any, ...]]:
    """Every member's header fields and digest."""
    found = {}
    with tarfile.open(bundle, "r:") as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            found[info.name] = (*(getattr(info, fact) for fact in FACTS), digest)
    return found


def _layers(left: Path, right: Path) -> Iterator[str]:
    pairs = zip(_images(left), _images(right), strict=True)
    seen = set()
    for ours, theirs in pairs:
        for index, names in enumerate(zip(ours["layers"], theirs["layers"], strict=False)):
            if names[0] != names[1] and names not in seen:
                seen.add(names)
                yield f"image {ours['name']}, layer {index}: differs"
                yield from (
                    f"  /{line}" for line in _files(_blob(left, names[0]), _blob(right, names[1]))
                )


def _images(bundle: Path) -> list[dict[str, Any]]:
    with tarfile.open(bundle, "r:") as archive:
        file = archive.extractfile("MANIFEST.json")
        assert file is not None
        images: list[dict[str, Any]] = json.load(file)["images"]
    return images


def _blob(bundle: Path, digest: str) -> dict[str, tuple[Any, ...]]:
    """Every entry of a layer: what is said of it, and its digest."""
    command = ["sh", "-c", 'tar -xOf "$0" "$1" | zstd -dc', str(bundle)]
    command.append("blobs/" + digest.replace(":", "/"))
    found = {}
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as child,
        tarfile.open(fileobj=child.stdout, mode="r|") as layer,
    ):
        for info in layer:
            file = layer.extractfile(info) if info.isreg() else None
            digest = hashlib.sha256(file.read() if file else b"").hexdigest()
            facts = {fact: getattr(info, fact) for fact in FACTS}
            found[info.name] = (*facts.items(), ("pax", info.pax_headers), ("content", digest))
    return found


def _files(ours: dict[str, tuple[Any, ...]], theirs: dict[str, tuple[Any, ...]]) -> Iterator[str]:
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            yield f"{name}: only in one of them"
        elif ours[name] != theirs[name]:
            what = [a[0] for a, b in zip(ours[name], theirs[name], strict=True) if a != b]
            yield f"{name}: {', '.join(what)}"
