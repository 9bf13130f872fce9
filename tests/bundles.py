"""Small bundles for tests: real seal, real checker, a made-up tool and made-up blobs."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundle import delta, manifest, seal, unseal
from bundle.cutting import Form
from bundle.keys import load_key
from bundle.manifest import Added, Manifest, SealedImage
from bundle.packing import PackedImage

TOP = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CREATED = 1_790_000_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """A bundle, and what the trust sheet says about it."""

    path: Path
    digest: str
    fingerprint: str
    manifest: Manifest


def tar_of(files: dict[str, bytes]) -> io.BytesIO:
    """A plain tar of `files`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    data.seek(0)
    return data


def wheel(folder: Path, name: str = "demo") -> Path:
    """A wheel with one module and one command."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        commands = (
            f"[console_scripts]\n{name} = {name}:main\n\n[other]\nnot-a-command = {name}:main\n"
        )
        for inner, text in (
            (f"{name}/__init__.py", "def main():\n    print('hello from demo')\n"),
            (f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n"),
            (f"{name}-1.0.dist-info/entry_points.txt", commands),
            (f"{name}-1.0.data/purelib/{name}_extra.py", ""),
            (f"{name}-1.0.data/scripts/nothing", ""),
            ("../escape.py", ""),
        ):
            file.writestr(
                zipfile.ZipInfo(inner), text
            )  # no date of today: made again it is the same
    return path


def packed(folder: Path, name: str, *layers: bytes) -> PackedImage:
    """An image of made-up blobs."""
    blobs: dict[str, Path] = {}

    def keep(data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = folder / digest.replace(":", "-")
        blobs[digest].write_bytes(data)
        return digest

    kept = tuple(keep(layer) for layer in layers)
    config = keep(json.dumps({"config": name}).encode())
    document = keep(json.dumps({"manifest": name, "layers": kept}).encode())
    image = SealedImage(
        name=name,
        reference=f"tracking-bundle/{name}:1.0",
        manifest=document,
        config=config,
        layers=kept,
        diff_ids=kept,
        size=sum(map(len, layers)),
        sizes=tuple(map(len, layers)),
    )
    return PackedImage(image=image, blobs=blobs)


def tree(folder: Path) -> Path:
    """A source tree with the real checker and the real bootstrap script."""
    for name in (
        "scripts/bootstrap.sh",
        "bundle/unseal.py",
        *(f"bundle/{name}.py" for name in ("arrive", "kept", "parts", "unpack")),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((TOP / name).read_bytes())
    (folder / "tasks.py").write_text("# a task\n")
    (folder / "scripts" / "quickstart").write_text("#!/bin/sh\n")
    (folder / "scripts" / "quickstart").chmod(0o755)
    (folder / "bundle" / "__pycache__").mkdir(exist_ok=True)
    (folder / "bundle" / "__pycache__" / "left.pyc").write_bytes(b"junk")
    return folder


def make(
    folder: Path,
    *,
    version: str = "1.0",
    created: int = CREATED,
    expires: int | None = 4_000_000_000,
    key: Path | None = None,
    base: delta.Inventory | None = None,
    added: Added = seal.NOTHING,
    extra_images: Sequence[PackedImage] = (),
    old_key: Path | None = None,
    form: Form = seal.ONE_FILE,
    wheels: Sequence[Path] = (),
) -> Made:
    """Seal a bundle of a few hundred kilobytes in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    top = tree(folder / "tree")
    (top / "README.md").write_text(f"version {version}\n")
    shared = bytes(range(256)) * 300
    images = [packed(folder, name, shared, name.encode() * 9999) for name in ("one", "two")]
    sealed = seal.write_bundle(
        out=folder / "dist",
        top=top,
        version=version,
        arch=unseal_arch(),
        created=created,
        expires=expires,
        images=[*images, *extra_images],
        wheels={python: (wheel(folder), *wheels) for python in PYTHONS},
        key=replace(
            load_key(key or folder / "key" / "sign.key", make=True),
            follows=load_key(old_key) if old_key else None,
        ),
        form=form,
        base=base,
        added=added,
    )
    first = sealed.path.with_suffix(".001") if form.only else sealed.path
    raw = unseal.manifest_bytes(first)
    return Made(
        path=sealed.path,
        digest=hashlib.sha256(raw).hexdigest(),
        fingerprint=sealed.fingerprint,
        manifest=manifest.parse(raw),
    )


def unseal_arch() -> str:
    """This machine's architecture, as the bundle says it."""
    import platform

    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def split(path: Path) -> list[tuple[bytes, bytes]]:
    """The members of a bundle as (header, padded content)."""
    data = io.BytesIO(path.read_bytes())
    found = []
    while (header := data.read(512)) != bytes(512):
        found.append((header, data.read(unseal.padded(int(header[124:135], 8)))))
    return found


def join(path: Path, members: list[tuple[bytes, bytes]]) -> None:
    """Write `members` as a file with the ending that a bundle has."""
    data = b"".join(header + content for header, content in members)
    path.write_bytes(data + bytes(unseal.file_end(len(data)) - len(data)))


def member(path: str, data: bytes, kind: bytes = b"0", link: str = "") -> tuple[bytes, bytes]:
    """A member that a tar program would take, whatever its kind."""
    header = bytearray(unseal.header(path, len(data), 0o644, CREATED))
    header[156:157] = kind
    header[157 : 157 + len(link)] = link.encode()
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header), data + bytes(unseal.padded(len(data)) - len(data))


def index(members: list[tuple[bytes, bytes]], name: str) -> int:
    """Where the member `name` stands."""
    return next(i for i, (head, _) in enumerate(members) if head.startswith(name.encode() + b"\0"))
