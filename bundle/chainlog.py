"""A chain of signed lines on disk: files of about 16 MiB in one folder, each called by the number of its first line.

One writer at a time, by the lock of whoever owns the chain. What a killed writer left of a line is cut away by the next
one, which says so in a line of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from bundle import chained
from bundle.chained import Head

FILE_BYTES = 16 << 20
TAIL = 1 << 17


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `file`; whoever comes second waits."""
    with open(file, "a", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def files(folder: Path) -> list[Path]:
    """The files of the chain, oldest first."""
    return sorted(folder.glob("*.jsonl"))


def append(
    folder: Path, key: ec.EllipticCurvePrivateKey, records: Sequence[Mapping[str, Any]], at: str
) -> Head:
    """Write `records`, each as a line that follows the last one, to the disk; the head after them. The caller has the
    lock; `at` is the time of a repair.

    Raises OSError when they cannot be written.
    """
    head, repair = _end(folder, at)
    lines = []
    for record in [*repair, *records]:
        lines.append(chained.make_line(key, head, record))
        head = Head(seq=head.seq + 1, digest=chained.digest_of(lines[-1]))
    if lines:
        _write(folder, head.seq - len(lines) + 1, b"".join(lines))
    return head


def _write(folder: Path, first: int, data: bytes) -> None:
    there = files(folder)
    path = there[-1] if there else None
    if path is None or path.stat().st_size >= FILE_BYTES:
        path = folder / f"{first:012}.jsonl"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if path not in there:
        around = os.open(path.parent, os.O_RDONLY)
        os.fsync(around)
        os.close(around)


def _end(folder: Path, at: str) -> tuple[Head, list[dict[str, Any]]]:
    """The last whole line; half a line after it is cut away, and what to say of that."""
    repair: list[dict[str, Any]] = []
    for path in reversed(files(folder)):
        size = path.stat().st_size
        with open(path, "r+b") as file:
            whole, half = _tail(file, size)
            if half:
                file.truncate(size - len(half))
                os.fsync(file.fileno())
                digest = hashlib.sha256(half).hexdigest()
                repair = [{"at": at, "kind": "repair", "bytes": len(half), "sha256": digest}]
        if whole:
            entry = chained.parse_line(whole)
            seq = entry["seq"] if entry else _count(path)
            return Head(seq=seq, digest=chained.digest_of(whole)), repair
    return Head(), repair


def _tail(file: Any, size: int) -> tuple[bytes, bytes]:
    """The last whole line of a file (empty: there is none), and what stands behind it."""
    reach = TAIL
    while True:
        file.seek(max(0, size - reach))
        data = file.read()
        whole, newline, half = data.rpartition(b"\n")
        line = whole.rpartition(b"\n")[2]
        if reach >= size or len(line) < len(whole):
            return (line + newline if newline else b""), half
        reach *= 8


def _count(path: Path) -> int:
    """The number of a file's last line, by counting: for a line that somebody has made unreadable."""
    with open(path, "rb") as file:
        return int(path.stem) - 1 + sum(1 for _ in file)


def read(folder: Path, newest: int = 0) -> Iterator[tuple[str, bytes]]:
    """Every line with its place; of the `newest` files only, when that is not 0."""
    for path in files(folder)[-newest:]:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path.name}:{number}", line


def last(folder: Path) -> Head:
    """The last whole line; nothing is repaired by looking."""
    for path in reversed(files(folder)):
        with open(path, "rb") as file:
            whole, _ = _tail(file, path.stat().st_size)
        if whole:
            entry = chained.parse_line(whole)
            seq = entry["seq"] if entry else _count(path)
            return Head(seq=seq, digest=chained.digest_of(whole))
    return Head()
