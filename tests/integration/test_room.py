"""What takes the room, out of real blobs."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from bundle import room
from bundle.errors import CommandError
from bundle.manifest import SealedImage
from bundle.packing import PackedImage


def packed(folder: Path) -> PackedImage:
    """An image of two layers, compressed as they are in the cache."""
    blobs = {}
    for number, size in enumerate((3_000_000, 2_000_000)):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            info = tarfile.TarInfo(f"opt/file-{number}")
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
        blob = subprocess.run(
            ["zstd", "-q"], input=data.getvalue(), capture_output=True, check=True, timeout=60
        ).stdout
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        blobs[digest] = folder / digest.removeprefix("sha256:")
        blobs[digest].write_bytes(blob)
    image = SealedImage(
        name="one",
        reference="one:1",
        manifest="",
        config="",
        layers=tuple(blobs),
        diff_ids=(),
        size=0,
    )
    return PackedImage(image=image, blobs=blobs)


def test_report_is_written_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    image = packed(tmp_path / "blobs")
    before = {path.name: path.read_bytes() for path in image.blobs.values()}
    target = tmp_path / "dist.sizes.txt"
    assert room.write(target, [image]) == target
    assert {path.name: path.read_bytes() for path in (tmp_path / "blobs").iterdir()} == before
    lines = [line.split() for line in target.read_text("utf-8").splitlines()]
    assert ["one", "2", "2", "0.0", "MB", "5.0", "MB"] in lines
    assert ["/opt/file-0", "file", "0.0", "MB", "3.0", "MB"] in lines


def test_damaged_blob_is_said(tmp_path: Path) -> None:
    image = packed(tmp_path)
    next(iter(image.blobs.values())).write_bytes(b"no zstd")
    with pytest.raises(CommandError, match="zstd"):
        room.write(tmp_path / "x", [image])
