"""A layer in its one form: the same files give the same bytes, whoever built it, where and when.

Names are sorted, a file of several names comes under the first of them, times follow from the content, owners are
numbers, and nothing optional is left but extended attributes. Content is spilled into a file: no layer is in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

BLOCK, CHUNK = 512, 1 << 20
FORM = 1  # of what is written here; another form gives other digests, so it has a number
MAX_EXTRA = 1 << 20
LONG_NAME, LONG_LINK = b"L", b"K"
XATTR = "SCHILY.xattr."
REGULAR, LINK, FOLDER = b"0", b"1", b"5"
ZEROS = bytes(BLOCK)


class LayerError(Exception):
    """A stream that is not a layer."""


class Sink(Protocol):
    """Where the bytes of a layer go."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a layer; the content of a file lies in the spill at `offset`."""

    name: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    offset: int = 0
    age: int = 0

    @property
    def key(self) -> tuple[bytes, ...]:
        """Its place: folders before what is in them, names in the order of their bytes."""
        return tuple(os.fsencode(self.name).split(b"/")) if self.name else ()


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What was written: its digest (sha256:…) and its bytes."""

    diff_id: str
    size: int


class Exactly(io.RawIOBase):
    """The next `size` bytes of a stream; what nobody reads is skipped by `skip`."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def readable(self) -> bool:
        """It can be read."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes.

        Raises LayerError when the stream ends before its time.
        """
        wanted = min(size, self.left) if size >= 0 else self.left
        data = self.file.read(wanted)
        if wanted and not data:
            raise LayerError("the stream is cut off")
        self.left -= len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` as far as there is something."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def skip(self) -> None:
        """Go to the end."""
        while self.left:
            self.read(CHUNK)


def entries(file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, Exactly]]:
    """The members of a tar stream, each with its content, which must be read before the next one is asked for.

    Of a pax header the names, numbers and extended attributes count; `TarInfo.pax_headers` has the latter as bytes.

    Raises LayerError when it is not a tar stream, or cut off.
    """
    extra: dict[str, Any] = {}
    while (block := file.read(BLOCK)) != ZEROS:
        if len(block) < BLOCK and not block:
            return  # some writers leave out the end mark
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise LayerError(f"not a tar stream ({error})") from error
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, LONG_NAME, LONG_LINK):
            data = _extra(file, info.size)
            if info.type == tarfile.XHDTYPE:
                extra |= _records(data)
            elif info.type != tarfile.XGLTYPE:
                extra["path" if info.type == LONG_NAME else "linkpath"] = data.rstrip(b"\0")
            continue
        _apply(info, extra)
        extra = {}
        has_content = info.type in (*tarfile.REGULAR_TYPES, b"\0")
        size = info.size if has_content else 0
        content = Exactly(file, size)
        yield info, content
        content.skip()
        Exactly(file, -size % BLOCK).skip()
    for _ in iter(lambda: file.read(CHUNK), b""):
        pass  # padding after the end mark belongs to the digest of the stream


def _extra(file: IO[bytes], size: int) -> bytes:
    if not 0 <= size <= MAX_EXTRA:
        raise LayerError(f"a name or its attributes have {size} bytes")
    data = file.read(size + -size % BLOCK)
    if len(data) < size:
        raise LayerError("the stream is cut off")
    return data[:size]


def _records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header: `length key=value\\n`, one after another."""
    found, at = {}, 0
    try:
        while at < len(data):
            space = data.index(b" ", at)
            end = at + int(data[at:space])
            key, _, value = data[space + 1 : end - 1].partition(b"=")
            if end <= space + 1 or end > len(data):
                raise ValueError("length")
            found[key.decode()] = value
            at = end
    except ValueError as error:
        raise LayerError("a pax header has a wrong form") from error
    return found


def _apply(info: tarfile.TarInfo, extra: dict[str, bytes]) -> None:
    info.name = os.fsdecode(extra["path"]) if "path" in extra else info.name
    info.linkname = os.fsdecode(extra["linkpath"]) if "linkpath" in extra else info.linkname
    for key in ("size", "uid", "gid"):
        if key in extra:
            setattr(info, key, int(extra[key]))
    xattrs: dict[str, Any] = {key: v for key, v in extra.items() if key.startswith(XATTR)}
    info.pax_headers = xattrs
    if info.size < 0 or any(key.startswith("GNU.sparse") for key in extra):
        raise LayerError(f"{info.name}: a file of a form that layers do not have")


def normalise(source: IO[bytes], spill: IO[bytes]) -> tuple[Entry, ...]:
    """Read a layer, its content into `spill`; the entries in the order in which `write` puts them.

    Raises LayerError when `source` is not a layer.
    """
    found: dict[tuple[bytes, ...], Entry] = {}
    offset = 0
    for info, content in entries(source):
        digest, start = hashlib.sha256(), offset
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            offset += spill.write(chunk)
        entry = _entry(info, start, int.from_bytes(digest.digest()[:3], "big"))
        found[entry.key] = entry
    spill.flush()
    return tuple(_linked(dict(sorted(found.items()))))


def _entry(info: tarfile.TarInfo, offset: int, age: int) -> Entry:
    name = _plain(info.name)
    regular = info.type in (*tarfile.REGULAR_TYPES, b"\0")
    kind = REGULAR if regular else info.type
    return Entry(
        name=name,
        kind=kind,
        mode=info.mode & 0o7777,
        uid=info.uid,
        gid=info.gid,
        size=info.size if regular else 0,
        link=_plain(info.linkname) if kind == LINK else info.linkname,
        device=(info.devmajor, info.devminor) if kind in b"34" else (0, 0),
        xattrs=tuple(sorted(info.pax_headers.items())),  # type: ignore[arg-type]  # bytes, see entries
        offset=offset,
        age=age if regular else 0,
    )


def _plain(name: str) -> str:
    """The name from the root: neither `./` in front nor `/` around; the root itself is empty."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _linked(found: dict[tuple[bytes, ...], Entry]) -> Iterator[Entry]:
    """Each file of several names under the first of them, the others as links to it."""
    by_name = {entry.name: entry for entry in found.values()}
    first: dict[str, str] = {}
    for entry in found.values():
        target = entry.link if entry.kind == LINK else entry.name
        first.setdefault(target, entry.name)
    for entry in found.values():
        target = entry.link if entry.kind == LINK else entry.name
        if target not in by_name or by_name[target].kind == LINK:
            yield entry  # its file is in a layer below
        elif first[target] == entry.name:
            yield dataclasses.replace(by_name[target], name=entry.name)
        else:
            yield dataclasses.replace(
                by_name[target], name=entry.name, kind=LINK, link=first[target], size=0, xattrs=()
            )


def write(wanted: tuple[Entry, ...], spill: IO[bytes], epoch: int, sink: Sink) -> Layer:
    """Write the layer of `wanted`, whose content `normalise` put into `spill`.

    A file's time is `epoch` less a number made of its content, all else has `epoch`: what changed has another time,
    even when its size is the same (servers answer `not modified` by size and time).
    """
    digest, size, pending = hashlib.sha256(), 0, bytearray()

    def put(data: bytes | memoryview) -> None:
        nonlocal size
        pending.extend(data)
        if len(pending) >= CHUNK:
            size += len(pending)
            digest.update(pending)
            sink.write(bytes(pending))
            pending.clear()

    for entry in wanted:
        put(header(entry, epoch - entry.age))
        at, end = entry.offset, entry.offset + entry.size
        while at < end:
            chunk = os.pread(spill.fileno(), min(CHUNK, end - at), at)
            if not chunk:
                raise LayerError("the spill has become shorter")
            put(chunk)
            at += len(chunk)
        put(bytes(-entry.size % BLOCK))
    pending.extend(2 * ZEROS)
    size += len(pending)
    digest.update(pending)
    sink.write(bytes(pending))
    return Layer(diff_id="sha256:" + digest.hexdigest(), size=size)


def header(entry: Entry, mtime: int) -> bytes:
    """The header blocks of `entry`: ustar, with a pax header before it only where ustar cannot say it."""
    name = os.fsencode(entry.name or ".") + (b"/" if entry.kind == FOLDER else b"")
    link = os.fsencode(entry.link)
    records = dict(entry.xattrs)
    prefix, short = _split(name)
    if short is None:
        records["path"], short = name, name[:100]
    if len(link) > 100 or not link.isascii():
        records["linkpath"] = link
    numbers = {
        "uid": (entry.uid, 1 << 21),
        "gid": (entry.gid, 1 << 21),
        "size": (entry.size, 1 << 33),
    }
    records |= {key: b"%d" % value for key, (value, limit) in numbers.items() if value >= limit}
    uid, gid, size = (0 if value >= limit else value for value, limit in numbers.values())
    front = b""
    if records:
        data = b"".join(_record(key, value) for key, value in sorted(records.items()))
        front = _block(b"././@PaxHeader", b"x", 0o644, (0, 0), len(data), 0, b"", (0, 0), b"")
        front += data + bytes(-len(data) % BLOCK)
    return front + _block(
        short, entry.kind, entry.mode, (uid, gid), size, mtime, link[:100], entry.device, prefix
    )


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """ustar's prefix and name; no name when they cannot hold it."""
    if not name.isascii():
        return b"", None
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut < 1 or len(name) - cut - 1 > 100:
        return b"", None
    return name[:cut], name[cut + 1 :]


def _record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    return b"%d" % (len(body) + len(str(length))) + body


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
    prefix: bytes,
) -> bytes:
    front = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        mode,
        *owner,
        size,
        mtime,
    )
    back = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64)
    back += b"%07o\0%07o\0" % device + prefix.ljust(155, b"\0") + bytes(12)
    return front + b"%06o\0 " % (sum(front) + sum(back) + 8 * 32) + back
