"""A made-up inventory with one of each kind, and its texts."""

from __future__ import annotations

import hashlib

from bundle.components import INLINE, MAGIC, TOOL, Component, Inventory, Patch, Text

TEXTS = {
    hashlib.sha256(text).hexdigest(): text for text in (b"one licence\n", b"another licence\n")
}
ONE, ANOTHER = sorted(TEXTS)


def build_info(lines: str) -> bytes:
    """What a Go program carries, with these lines as its list of modules."""
    go, table = b"go1.26.11", b"\x30" * 16 + lines.encode() + b"\xf9" * 16
    sizes = [_number(len(part)) + part for part in (go, table)]
    return (MAGIC + bytes((8, INLINE))).ljust(32, b"\0") + b"".join(sizes)


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


BUILD_INFO = build_info(
    "path\tgithub.com/minio/minio\n"
    "mod\tgithub.com/minio/minio\tv0.0.0-20260212201848-7aac2a2c5b7c\th1:aaa=\n"
    "dep\tgolang.org/x/sys\tv0.47.0\th1:bbb=\n"
    "build\t-trimpath=true\n"
)
INVENTORY = Inventory(
    version="1.0",
    arch="amd64",
    created=1_790_000_000,
    suite="trixie",
    images={"minio": "sha256:" + "1" * 64, "phoenix": "sha256:" + "2" * 64},
    components=(
        Component(
            kind="deb",
            name="libstdc++6",
            version="14.2.0-19",
            arch="amd64",
            sha256="3" * 64,
            source="gcc-14",
            source_version="14.2.0-19",
            licence="GPL-3.0-or-later AND LicenseRef-own",
            texts=(Text(name="libstdc++6/copyright", sha256=ONE),),
            places=("minio", "phoenix"),
        ),
        Component(
            kind="golang",
            name="github.com/minio/minio",
            version="v0.0.0-20260212201848-7aac2a2c5b7c",
            h1="h1:aaa=",
            sha256="4" * 64,
            licence="AGPL-3.0-or-later",
            texts=(Text(name="LICENSE", sha256=ANOTHER),),
            places=("minio",),
            patches=(
                Patch(name="patches/1.patch", sha256="8" * 64, closes=("CVE-2026-1", "GHSA-1-2-3")),
                Patch(name="patches/2.patch", sha256="9" * 64, closes=()),
            ),
        ),
        Component(
            kind="golang",
            name="stdlib",
            version="1.26.11",
            licence="BSD-3-Clause",
            places=("minio",),
        ),
        Component(
            kind="pypi",
            name="arize-phoenix",
            version="20.26.1",
            sha256="5" * 64,
            licence="Elastic-2.0",
            texts=(Text(name="LICENSE", sha256=ANOTHER),),
            places=("phoenix",),
        ),
        Component(
            kind="pypi",
            name="cffi",
            version="2.1.0",
            sha256="6" * 64,
            stated="own words",
            places=(TOOL,),
        ),
        Component(
            kind="pypi",
            name="cffi",
            version="2.1.0",
            sha256="7" * 64,
            stated="own words",
            places=(TOOL,),
        ),
    ),
)
