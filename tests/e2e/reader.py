"""A reader of bundles that was written from docs/bundle-format.md only: nothing of the product is imported here."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

BLOCK, ZEROS = 512, bytes(512)


def text(block: bytes, at: int, size: int) -> str:
    """A field that is filled up with zero bytes."""
    raw = block[at : at + size]
    value = raw.rstrip(b"\0")
    assert b"\0" not in value
    return value.decode()


def number(block: bytes, at: int, digits: int) -> int:
    """Octal digits, all of them, and one zero byte."""
    raw = block[at : at + digits + 1]
    assert raw[-1:] == b"\0", raw
    return int(raw[:-1], 8)


@dataclass(frozen=True)
class Header:
    """A header's fields; what both kinds of header must say alike was checked."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: str
    link: str
    device: tuple[int, int]
    pax: dict[str, bytes] = field(default_factory=dict)


def header(block: bytes) -> Header:
    """The fields of one block, by the table of the document."""
    spaces = block[:148] + b" " * 8 + block[156:]
    assert block[148:156] == b"%06o\0 " % sum(spaces), "checksum"
    assert block[257:265] == b"ustar\x0000", "magic"
    assert not any(block[265:329]), "names of owners"
    assert not any(block[500:512])
    prefix = text(block, 345, 155)
    name = text(block, 0, 100)
    return Header(
        path=f"{prefix}/{name}" if prefix else name,
        mode=number(block, 100, 7),
        uid=number(block, 108, 7),
        gid=number(block, 116, 7),
        size=number(block, 124, 11),
        mtime=number(block, 136, 11),
        kind=chr(block[156]),
        link=text(block, 157, 100),
        device=(number(block, 329, 7), number(block, 337, 7)),
    )


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found right."""

    path: Path
    manifest: dict[str, Any]
    offsets: dict[str, tuple[int, int]]

    def content(self, path: str) -> bytes:
        """A whole member."""
        offset, size = self.offsets[path]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def blob(self, digest: str) -> str:
        """The member that is the blob `digest`."""
        kind, _, digits = digest.partition(":")
        assert kind == "sha256"
        return f"blobs/sha256/{digits}"


def read(path: Path, fingerprint: str, work: Path) -> Bundle:
    """Check everything that the document says of the file; AssertionError when it is otherwise."""
    found: dict[str, tuple[Header, int, str]] = {}
    with open(path, "rb") as file:
        while (block := file.read(BLOCK)) != ZEROS:
            head = header(block)
            offset, digest = file.tell(), hashlib.sha256()
            left = head.size
            while left:
                chunk = file.read(min(left, 1 << 20))
                digest.update(chunk)
                left -= len(chunk)
            assert not any(file.read(-head.size % BLOCK)), "padding"
            assert head.path not in found
            found[head.path] = (head, offset, digest.hexdigest())
        end = file.tell() - BLOCK
        rest = file.read()
    assert not any(rest)
    length = end + BLOCK + len(rest)
    assert length % 10240 == 0
    assert 1024 <= length - end < 1024 + 10240
    offsets = {name: (offset, head.size) for name, (head, offset, _) in found.items()}
    raw = Bundle(path, {}, offsets).content("MANIFEST.json")
    manifest = json.loads(raw)
    check_members(manifest, found)
    check_signature(path, fingerprint, manifest, work)
    return Bundle(path, manifest, offsets)


def check_members(manifest: dict[str, Any], found: dict[str, tuple[Header, int, str]]) -> None:
    """Every member is the one that is listed, in the order of the list."""
    assert (manifest["format"], manifest["product"]) == (1, "tracking-bundle")
    names = [member["path"] for member in manifest["members"]]
    order = [names[0], "MANIFEST.json", "MANIFEST.sig", *names[1:]]
    assert list(found) == order
    first = ["bootstrap.sh", "MANIFEST.json", "MANIFEST.sig", "key.pem", "unseal.py"]
    assert order[:5] == first
    groups = ("rotation.", "small/", "wheels/", "blobs/sha256/", "extras/")
    ranks = [next(i for i, g in enumerate(groups) if name.startswith(g)) for name in order[5:]]
    assert ranks == sorted(ranks)
    for group in groups:
        inside = [name.encode() for name in order if name.startswith(group)]
        first_of_all = b"small/bundle/parts.py"
        if group != "rotation.":
            assert inside == sorted(inside, key=lambda name: (name != first_of_all, name))
    for member in manifest["members"]:
        head, _, digest = found[member["path"]]
        assert (head.size, digest) == (member["size"], member["sha256"]), member["path"]
        assert f"{head.mode:04o}" == member["mode"]
    for head, _, _ in found.values():
        assert head.mode in (0o644, 0o755)
        assert (head.kind, head.link, head.uid, head.gid) == ("0", "", 0, 0)
        assert (head.mtime, head.device) == (manifest["mtime"], (0, 0))
    checker = next(m for m in manifest["members"] if m["path"] == "unseal.py")
    assert checker["sha256"] == manifest["checker_sha256"]


def check_signature(path: Path, fingerprint: str, manifest: dict[str, Any], work: Path) -> None:
    """The commands of the document, by the host's own tar and openssl."""
    lines = [
        f"tar -xf {path} --occurrence=1 MANIFEST.json MANIFEST.sig key.pem unseal.py",
        "openssl pkey -pubin -in key.pem -outform DER | openssl dgst -sha256",
        "openssl dgst -sha256 -verify key.pem -signature MANIFEST.sig MANIFEST.json",
        "openssl dgst -sha256 unseal.py",
    ]
    said = [
        subprocess.run(
            ["sh", "-c", line], cwd=work, check=True, capture_output=True, text=True, timeout=60
        ).stdout
        for line in lines
    ]
    assert said[1].split()[-1] == fingerprint
    assert said[2].strip() == "Verified OK"
    assert said[3].split()[-1] == manifest["checker_sha256"]


@dataclass(frozen=True)
class Entry:
    """One entry of a layer; `start` are the first bytes of its content."""

    head: Header
    digest: bytes
    start: bytes


def records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header."""
    found = {}
    while data:
        length = int(data[: data.index(b" ")])
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        found[key.decode()] = value
        data = data[length:]
    assert list(found) == sorted(found)
    return found


def entries(stream: IO[bytes]) -> Iterator[Entry]:
    """The entries of an uncompressed layer."""
    pax: dict[str, bytes] = {}
    while (block := stream.read(BLOCK)) != ZEROS:
        head = header(block)
        data, digest, left, start = b"", hashlib.sha256(), head.size, b""
        while left:
            data = stream.read(min(left, 1 << 20))
            start = start or data[:16]
            digest.update(data)
            left -= len(data)
        assert not any(stream.read(-head.size % BLOCK))
        if head.kind == "x":
            assert (head.path, head.mode, head.mtime) == ("././@PaxHeader", 0o644, 0)
            pax = records(data)
            assert "size" not in pax, "this small reader does not read files of 8 GiB"
            continue
        given = {"path": pax.get("path"), "link": pax.get("linkpath")}
        values: dict[str, Any] = {k: v.decode() for k, v in given.items() if v is not None}
        values |= {key: int(pax[key]) for key in ("uid", "gid") if key in pax}
        yield Entry(Header(**{**vars(head), **values, "pax": pax}), digest.digest(), start)
        pax = {}
    assert stream.read() == ZEROS
