"""The last look before the seal: every member, every file inside layers and wheels, for what must not travel.

Streams; a member is read once for the same rules, since what was found in it is kept by its digest.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, cast

from bundle import crew, leaks, streams
from bundle.errors import BROKEN_ARCHIVE, IntegrityError, Problem
from bundle.files import keep_newest, write_file
from bundle.leaks import Allowed, Find, Rule
from bundle.run import Progress
from bundle.words import say

CHUNK, OVERLAP = 1 << 20, 8 << 10
WORTH = 1 << 20  # the size of a member that is worth a way to another process
ZSTD, ZIP, GZIP, XZ = b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ\x00"
DEEPEST = 3  # archives in archives
IN_MEMORY, LARGEST = 8 << 20, 4 << 30
MOST_SHOWN = 40
KEPT = 12  # sets of rules whose results are kept
CLOSED = "an archive that cannot be looked into"

Tick = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Travelling:
    """One member of the bundle on its way into the file."""

    path: str
    size: int
    sha256: str
    content: bytes | Path


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """The rules, and where results are kept by the digest of what was read."""

    rules: Sequence[Rule]
    notes: Path

    @property
    def folder(self) -> Path:
        """Where the results under these rules lie."""
        return self.notes / leaks.rules_key(self.rules)

    def note(self, sha256: str) -> Path:
        """Where it is written what was found in the member `sha256`."""
        return self.folder / f"{sha256}.json"

    def known(self, sha256: str) -> tuple[Find, ...] | None:
        """What was found in the member `sha256`; None when it was not read."""
        try:
            data = json.loads(self.note(sha256).read_text("utf-8"))
            return tuple(Find(**find) for find in data)
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, sha256: str, finds: Sequence[Find]) -> None:
        """Write it down."""
        path = self.note(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps([asdict(find) for find in finds]).encode())


def scan(
    members: Iterable[Travelling], rules: Sequence[Rule], allowed: Sequence[Allowed], notes: Path
) -> None:
    """Look at every member.

    Raises IntegrityError naming each member, and the file inside it, that has what must not travel.
    """
    scanner = Scanner(rules=rules, notes=notes)
    scanner.folder.mkdir(parents=True, exist_ok=True)
    os.utime(scanner.folder)
    keep_newest(notes.iterdir(), KEPT)
    finds: dict[str, tuple[Find, ...]] = {}
    fresh = []
    for member in members:
        known = scanner.known(member.sha256)
        if known is None:
            fresh.append(member)
        else:
            finds[member.path] = known
    progress = Progress(say("looking for secrets", "비밀 값 검사"), sum(m.size for m in fresh))
    with contextlib.closing(_look_at_all(fresh, rules)) as looks:
        for member, found in looks:
            finds[member.path] = found
            scanner.keep(member.sha256, found)
            progress.add(member.size)
    progress.close()
    left = leaks.remaining(finds, allowed)
    if left:
        raise refusal(left)


def _look_at_all(
    members: Iterable[Travelling], rules: Sequence[Rule]
) -> Generator[tuple[Travelling, tuple[Find, ...]], None, None]:
    """What is found in each of `members`, in no order: large ones on all cores, the largest first."""
    large = [member for member in members if member.size >= WORTH]
    large.sort(key=lambda member: member.size, reverse=True)
    for member in members:
        if member.size < WORTH:
            yield member, finds_in(member, rules)
    yield from crew.spread(partial(finds_in, rules=rules), large)


def finds_in(member: Travelling, rules: Sequence[Rule]) -> tuple[Find, ...]:
    """Everything that is found in one member, each once."""
    return tuple(sorted(set(read_member(member, rules))))


def refusal(left: Sequence[tuple[str, Find]]) -> IntegrityError:
    """What was found and where, never the thing itself."""
    hint = say(
        "Take it out, or, if it was looked at and is none, add it to leaks/allowed.toml with the reason"
        " (of a site's own: to the file that extras.allowed names).",
        "해당 파일을 빼거나, 검토 결과 비밀이 아니면 이유와 함께 leaks/allowed.toml에 추가하세요"
        " (사이트의 것은 extras.allowed가 가리키는 파일에).",
    )
    shown, more = left[:MOST_SHOWN], len(left) - MOST_SHOWN
    problems = [
        Problem(
            message=say(f"{find.rule} found, not sealed", f"{find.rule} 발견, 봉인하지 않음")
            + f" (sha256 {find.sha256})",
            where=f"{member} → {find.path}" if find.path else member,
        )
        for member, find in shown
    ]
    if more > 0:
        problems.append(Problem(message=say(f"and {more} more", f"그 외 {more}건")))
    problems[-1] = replace(problems[-1], hint=hint)
    return cast("IntegrityError", IntegrityError.of(problems))


def read_member(member: Travelling, rules: Sequence[Rule]) -> Iterator[Find]:
    """Everything that is found in one member."""
    content = member.content
    if isinstance(content, bytes):
        yield from look(io.BytesIO(content), "", rules)
        return
    with content.open("rb") as file:
        layer = file.read(4) == ZSTD
        file.seek(0)
        if not layer:
            yield from look(file, "", rules, itself=True)
    if layer:
        with streams.layer(content) as archive:
            yield from look_into(archive, rules)


def look_into(archive: tarfile.TarFile, rules: Sequence[Rule]) -> Iterator[Find]:
    """Everything that is found in a layer: in names, links, owners' names and files."""
    for entry in archive:
        name = entry.name.removeprefix("./")
        words = "\n".join((name, entry.linkname, entry.uname, entry.gname)).encode(
            "utf-8", "replace"
        )
        yield from _named(hits(words, rules), name)
        file = archive.extractfile(entry) if entry.isreg() else None
        if file:
            yield from look(file, name, rules)


def hits(data: bytes, rules: Iterable[Rule]) -> set[tuple[str, str]]:
    """The rules that `data` breaks, each with the digest of what was found."""
    return {(rule.name, digest) for rule in rules for digest in rule.finds(data)}


def _named(found: Iterable[tuple[str, str]], path: str) -> Iterator[Find]:
    for rule, digest in sorted(found):
        yield Find(rule=rule, path=path, sha256=digest)


def look(
    file: IO[bytes], path: str, rules: Sequence[Rule], depth: int = 0, *, itself: bool = False
) -> Iterator[Find]:
    """Everything that is found in one file, and in the files that it packs.

    `itself`: the file can be read twice, so that what is packed needs no copy.
    """
    digest, kept, found = hashlib.sha256(), b"", set[tuple[str, str]]()
    chunk = file.read(CHUNK)
    packed = depth < DEEPEST and chunk.startswith((ZIP, GZIP, XZ))
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as spool:
        while chunk:
            if packed:
                digest.update(chunk)
            found |= hits(kept + chunk, rules)
            if packed and not itself:
                spool.write(chunk)
            kept = chunk[-OVERLAP:]
            chunk = file.read(CHUNK)
        yield from _named(found, path)
        if packed:
            again = file if itself else cast("IO[bytes]", spool)
            again.seek(0)
            inside = list(_unpack(again, path, rules, depth))
            closed = Find(rule=CLOSED, path=path, sha256=digest.hexdigest())
            yield from (closed if find.rule == CLOSED else find for find in inside)


def _unpack(spool: IO[bytes], path: str, rules: Sequence[Rule], depth: int) -> Iterator[Find]:
    """What is found inside a packed file; one that only looks like one is none."""
    start = spool.read(4)
    spool.seek(0)
    inside = f"{path}!" if path else ""
    try:
        if start == ZIP:
            yield from _unzip(spool, inside, rules, depth)
        else:
            opener = gzip.open if start[:2] == GZIP else lzma.open
            with opener(spool, "rb") as stream:
                limited = cast("IO[bytes]", _Limited(cast("IO[bytes]", stream)))
                yield from look(limited, inside, rules, depth + 1)
    except _TooLargeError:
        yield Find(rule=CLOSED, path=path, sha256="")
    except BROKEN_ARCHIVE:
        return


def _unzip(spool: IO[bytes], inside: str, rules: Sequence[Rule], depth: int) -> Iterator[Find]:
    with zipfile.ZipFile(spool) as archive:
        for info in archive.infolist():
            name = f"{inside}{info.filename}"
            words = info.filename.encode("utf-8", "replace")
            yield from _named(hits(words, rules), name)
            if info.flag_bits & 1:
                yield Find(rule=CLOSED, path=name, sha256="")
            elif not info.is_dir():
                with archive.open(info) as file:
                    yield from look(file, name, rules, depth + 1)


class _TooLargeError(Exception):
    """More comes out of an archive than anyone looks at."""


class _Limited(io.RawIOBase):
    """A stream that ends with an error where a bomb would go on."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, LARGEST

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise _TooLargeError
        return data
