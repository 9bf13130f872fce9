"""What takes the room: files find their package, and the tables add up."""

from __future__ import annotations

import io

import pytest

from bundle import room
from bundle.layers import LayerError
from bundle.manifest import SealedImage
from tests import bundles

SITE = "opt/venv/lib/python3.13/site-packages"
STATUS = (
    "Package: libc6\nStatus: install ok installed\nVersion: 2.41-12\n\nPackage: x\nVersion: 1\n"
)


FILES = {
    f"{SITE}/demo/__init__.py": b"x" * 100,
    f"{SITE}/demo/__pycache__/__init__.cpython-313.pyc": b"y" * 50,
    "opt/venv/bin/demo": b"z" * 7,
    f"{SITE}/demo-1.0.dist-info/RECORD": (
        b"demo/__init__.py,sha256=x,100\n../../../bin/demo,,\ndemo-1.0.dist-info/RECORD,,\n"
    ),
    "usr/lib/x86_64-linux-gnu/libc.so.6": b"l" * 1000,
    "var/lib/dpkg/info/libc6:amd64.list": b"/.\n/usr\n/usr/lib/x86_64-linux-gnu/libc.so.6\n",
    "var/lib/dpkg/status": STATUS.encode(),
    "usr/local/bin/big": bytes(room.ALONE),
    "etc/passwd": b"root\n",
}


def test_every_file_finds_its_package() -> None:
    found = room.look(bundles.tar_of(FILES), 4242)
    record = len(FILES[f"{SITE}/demo-1.0.dist-info/RECORD"])
    assert found.packages["demo 1.0", "wheel"] == 157 + record
    assert found.packages["libc6 2.41-12", "deb"] == 1000
    assert found.packages["/usr/local/bin/big", "file"] == room.ALONE
    assert found.files == len(FILES)
    assert found.unpacked == sum(map(len, FILES.values()))
    assert sum(found.share(package) for package in found.packages) == pytest.approx(4242)


def test_shared_layer_counts_once_among_the_packages() -> None:
    contents = {
        "sha256:a": room.look(bundles.tar_of({"etc/a": b"1" * 2_000_000}), 1_000_000),
        "sha256:b": room.look(bundles.tar_of({"etc/b": b"1" * 4_000_000}), 3_000_000),
    }
    images = [
        SealedImage(
            name=name, reference=name, manifest="", config="", layers=layers, diff_ids=(), size=0
        )
        for name, layers in {"one": ("sha256:a",), "two": ("sha256:a", "sha256:b")}.items()
    ]
    lines = [line.split() for line in room.tell(images, contents).splitlines()]
    assert ["one", "1", "1", "1.0", "MB", "2.0", "MB"] in lines
    assert ["two", "2", "2", "4.0", "MB", "6.0", "MB"] in lines
    assert ["all", "4.0", "MB", "6.0", "MB"] in lines
    assert ["/etc/b", "file", "3.0", "MB", "4.0", "MB"] in lines


def test_what_is_no_layer_is_said() -> None:
    with pytest.raises(LayerError):
        room.look(io.BytesIO(b"no tar" * 200), 1)
