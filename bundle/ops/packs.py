"""Packs: the bytes of object versions one after the other, and an index that says what they are.

A version never changes, so each is in one pack of a chain and in no later one. What was there at a point is, for each
key, its last version in the chain: a point's packs hold what was written before it, and nothing of after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import IO

from bundle.ops.restic import PackError

CHUNK = 1 << 20
HEAD = b"tracking-bundle pack 1\n"
"""What a pack begins with: restic takes a stream without a byte for a failure, and marks of deletions have none."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version in a pack: its key, what a reader gets, where its bytes are; `gone` marks a deletion."""

    bucket: str
    key: str
    version: str
    at: str
    offset: int = 0
    size: int = 0
    sha256: str = ""
    headers: dict[str, str] | None = None
    gone: bool = False

    @property
    def name(self) -> tuple[str, str]:
        """Bucket and key."""
        return self.bucket, self.key


def dump(entries: Iterable[Entry]) -> bytes:
    """An index as text: one line a version."""
    lines = (
        json.dumps({k: v for k, v in asdict(e).items() if v or k == "key"}, ensure_ascii=True)
        for e in entries
    )
    return "".join(f"{line}\n" for line in lines).encode()


def parse(data: bytes, digest: str) -> list[Entry]:
    """The entries of an index whose sha256 is `digest`.

    Raises PackError when it is another one.
    """
    if hashlib.sha256(data).hexdigest() != digest:
        raise PackError("an index is not the one that the ledger names")
    return [Entry(**json.loads(line)) for line in data.splitlines()]


def current(chain: Iterable[Iterable[Entry]]) -> dict[tuple[str, str], tuple[int, Entry]]:
    """What was there at the point: each key with the number of its pack and its version."""
    found = {entry.name: (n, entry) for n, entries in enumerate(chain) for entry in entries}
    return {name: (number, entry) for name, (number, entry) in found.items() if not entry.gone}


def state(there: Iterable[Entry]) -> str:
    """One digest of all objects: bucket, key and content of each."""
    whole = hashlib.sha256()
    for entry in sorted(there, key=lambda one: one.name):
        line = json.dumps([entry.bucket, entry.key, entry.sha256])
        whole.update(line.encode() + b"\n")
    return whole.hexdigest()


def wanted(there: dict[tuple[str, str], tuple[int, Entry]]) -> dict[int, list[Entry]]:
    """What is read of each pack, in the order of its bytes."""
    found: dict[int, list[Entry]] = {}
    for number, entry in there.values():
        found.setdefault(number, []).append(entry)
    return {number: sorted(found[number], key=lambda one: one.offset) for number in sorted(found)}


class Part:
    """The bytes of one version in a stream, as a file that is read once; its digest is known at its end."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size
        self._digest = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes.

        Raises PackError when the stream ends before.
        """
        wanted = self.left if count < 0 else min(count, self.left)
        data = self.file.read(wanted) if wanted else b""
        if len(data) < wanted:
            raise PackError("a pack ends before its index does")
        self.left -= len(data)
        self._digest.update(data)
        return data

    def digest(self) -> str:
        """The sha256 of the whole; what was not read is read."""
        while self.left:
            self.read(CHUNK)
        return self._digest.hexdigest()


def parts(file: IO[bytes], entries: Iterable[Entry]) -> Iterator[tuple[Entry, Part]]:
    """Each of `entries` (in the order of their offsets) with its bytes, out of the stream of a whole pack.

    Raises PackError for one whose bytes are others.
    """
    place = 0
    for entry in entries:
        Part(file, entry.offset - place).digest()
        part = Part(file, entry.size)
        yield entry, part
        if part.digest() != entry.sha256:
            raise PackError(f"{entry.bucket}/{entry.key}: other bytes than were saved")
        place = entry.offset + entry.size
