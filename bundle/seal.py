"""Make the bundle file: image blobs compressed once and kept, one deterministic tar, a signature, a trust sheet.

Layers come out of the engine only when the cache misses one; a compressed blob is frozen and never made again, so
that the next release's bundle shares it with this one.
"""

from __future__ import annotations

import datetime
import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundle import delta, unseal
from bundle.cutting import Cutter, Form, check_form
from bundle.errors import IntegrityError
from bundle.host import write_file
from bundle.keys import SealKey as SealKey
from bundle.keys import load_key as load_key
from bundle.keys import rotation
from bundle.manifest import EXTRA, Added, Manifest, Member, Need, blob_path, dump, parse
from bundle.packing import PackedImage
from bundle.run import Progress, run
from bundle.trust import Part, trust_sheet
from bundle.words import say

SMALL = (
    "tasks.py",
    "bundle",
    "templates",
    "pki",
    "checklist.md",
    "docs",
    "README.md",
    "LICENSE",
    "scripts",
    "requirements/tool.lock",
)
LIFETIME = datetime.timedelta(days=730)
CHUNK = 1 << 20
NOTHING = Added()
ONE_FILE = Form()
PARTS = "small/bundle/parts.py"


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A finished bundle; `path` is the file or the first part, `sizes` says what takes the room, in bytes."""

    path: Path
    parts: tuple[Part, ...]
    trust: Path
    sha256: str
    size: int
    fingerprint: str
    sizes: Mapping[str, int]


def commit_date(top: Path) -> int:
    """When the last commit of the tree `top` was made, in seconds since 1970.

    Raises CommandError when it is not a git tree.
    """
    return int(run(["git", "-C", str(top), "log", "-1", "--format=%ct"], timeout=30))


def small_files(top: Path, names: Iterable[str] = SMALL) -> dict[str, Path]:
    """The files of the small part: `small/<path>` → where it lies under `top`; names that are absent are left out."""
    found = {}
    for name in names:
        paths = sorted((top / name).rglob("*")) if (top / name).is_dir() else [top / name]
        for path in paths:
            parts = path.relative_to(top).parts
            hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                found["small/" + "/".join(parts)] = path
    return found


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the bytes of a member come from."""

    member: Member
    content: bytes | Path


def write_bundle(
    *,
    out: Path,
    top: Path,
    version: str,
    arch: str,
    created: int,
    images: Sequence[PackedImage],
    wheels: Mapping[str, Sequence[Path]],
    key: SealKey,
    small: Mapping[str, bytes | Path] | None = None,
    inspect: Callable[[list[Source]], list[Source]] = list,
    expires: int | None = None,
    base: delta.Inventory | None = None,
    added: Added = NOTHING,
    form: Form = ONE_FILE,
) -> Sealed:
    """Write `out`/tracking-bundle-<version>-<arch>.tar and its trust sheet; it is moved in place last.

    Times are seconds since 1970; with `base` it is a delta; `added` is the site's own; `inspect` sees all that goes in.
    Raises IntegrityError when a cached blob is not what it was, ConfigError when it cannot be written in that `form`.
    """
    sources, needs = _leave_out(_sources(top, small, wheels, images, key, added), images, base)
    manifest = Manifest(
        version=version,
        arch=arch,
        created=_iso(created),
        counter=created,
        expires=_iso(created + int(LIFETIME.total_seconds()) if expires is None else expires),
        mtime=created,
        checker_sha256=sources[2].member.sha256,
        images=tuple(image.image for image in images),
        wheels={python: tuple(wheel.name for wheel in group) for python, group in wheels.items()},
        unpacked=_unpacked(wheels),
        base=base.mark if base else None,
        needs=needs,
        extras=added.sealed,
        members=tuple(s.member for s in sources),
    )
    return _write(out, manifest, inspect(sources), key, form)


def _sources(
    top: Path,
    small: Mapping[str, bytes | Path] | None,
    wheels: Mapping[str, Sequence[Path]],
    images: Sequence[PackedImage],
    key: SealKey,
    added: Added,
) -> list[Source]:
    """Every member that the manifest lists, in the order of the file."""
    sources = [_source("bootstrap.sh", top / "scripts/bootstrap.sh", 0o755)]
    sources += [_source("key.pem", key.pem), _source("unseal.py", top / "bundle/unseal.py", 0o644)]
    sources += [_source(path, data) for path, data in rotation(key).items()]
    small = small_files(top) if small is None else small
    sources += [_source(path, small[path]) for path in sorted(small, key=_parts_first)]
    carried = {f"wheels/{wheel.name}": wheel for group in wheels.values() for wheel in group}
    sources += [_source(path, carried[path], 0o644) for path in sorted(carried)]
    blobs = {digest: path for image in images for digest, path in image.blobs.items()}
    sources += [_blob(digest, blobs[digest]) for digest in sorted(blobs)]
    reading = Progress(
        say("reading the site's files", "사이트 파일 읽기"),
        sum(file.stat().st_size for file in added.members.values()),
    )
    sources += [_streamed(path, added.members[path], reading) for path in sorted(added.members)]
    reading.close()
    return sources


def _parts_first(path: str) -> tuple[bool, str]:
    return path != PARTS, path


def _unpacked(wheels: Mapping[str, Sequence[Path]]) -> int:
    """The most that the wheels of one Python unpack to."""
    most = 0
    for group in wheels.values():
        size = 0
        for wheel in group:
            with zipfile.ZipFile(wheel) as file:
                size += sum(info.file_size for info in file.infolist())
        most = max(most, size)
    return most


def _leave_out(
    sources: list[Source], images: Sequence[PackedImage], base: delta.Inventory | None
) -> tuple[list[Source], tuple[Need, ...]]:
    """What this file carries, and what it needs of `base`."""
    if base is None:
        return sources, ()
    members = [source.member for source in sources]
    left = delta.left_out(base, [image.image for image in images], members)
    out = [source.member for source in sources if source.member.path in left]
    needs = tuple(Need(path=part.path, size=part.size, sha256=part.sha256) for part in out)
    return [source for source in sources if source.member.path not in left], needs


def file_name(manifest: Manifest) -> str:
    """What a bundle is called."""
    name = f"tracking-bundle-{manifest.version}-{manifest.arch}"
    return f"{name}-delta-from-{manifest.base.version}.tar" if manifest.base else f"{name}.tar"


def _iso(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _source(path: str, content: bytes | Path, mode: int = 0) -> Source:
    data = content if isinstance(content, bytes) else content.read_bytes()
    run_bit = isinstance(content, Path) and content.stat().st_mode & 0o100
    digest = hashlib.sha256(data).hexdigest()
    mode = mode or (0o755 if run_bit else 0o644)
    return Source(member=Member(path=path, size=len(data), sha256=digest, mode=mode), content=data)


def _streamed(path: str, file: Path, progress: Progress) -> Source:
    """A member of any size, read twice and never held."""
    digest, size = hashlib.sha256(), 0
    for chunk in _content(file):
        digest.update(chunk)
        size += len(chunk)
        progress.add(len(chunk))
    mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
    return Source(
        member=Member(path=path, size=size, sha256=digest.hexdigest(), mode=mode), content=file
    )


def _blob(digest: str, path: Path) -> Source:
    size = path.stat().st_size
    member = Member(path=blob_path(digest), size=size, sha256=digest.removeprefix("sha256:"))
    return Source(member=member, content=path)


def _write(
    out: Path, manifest: Manifest, sources: list[Source], key: SealKey, form: Form
) -> Sealed:
    out.mkdir(parents=True, exist_ok=True)
    raw = dump(manifest)
    parse(raw)  # never seal what the checker would refuse
    unlisted = zip(unseal.UNLISTED, (raw, key.sign(raw)), strict=True)
    ordered = [sources[0], *(_source(path, data, 0o644) for path, data in unlisted), *sources[1:]]
    digest = hashlib.sha256(raw).hexdigest()
    _check_form(form, ordered, digest)
    path = out / file_name(manifest)
    progress = Progress(f"writing {path.name}", sum(source.member.size for source in ordered))
    cutter = Cutter(path, form)
    try:
        for chunk in _chunks(ordered, manifest.mtime):
            cutter.write(chunk)
            progress.add(len(chunk))
        cutter.write(bytes(unseal.file_end(cutter.size) - cutter.size))
        parts = cutter.finish()
        old = key.follows.fingerprint if key.follows else ""
        bootstrap, cut = ordered[0].member.sha256, parts if form.split else ()
        whole = cutter.whole.hexdigest()
        text = trust_sheet(path.name, whole, bootstrap, key.fingerprint, old, manifest, cut)
        write_file(path.with_suffix(".trust.txt"), text.encode())
        first = cutter.publish(digest)
    finally:
        progress.close()
        cutter.discard()
    return Sealed(
        path=first,
        parts=parts,
        trust=path.with_suffix(".trust.txt"),
        sha256=whole,
        size=cutter.size,
        fingerprint=key.fingerprint,
        sizes=size_table(manifest),
    )


def _check_form(form: Form, ordered: list[Source], manifest: str) -> None:
    """What bootstrap.sh reads with tar must lie in the first part, and what tells the other parts apart."""
    ends, offset = dict[str, int](), 0
    for source in ordered:
        offset += unseal.BLOCK + unseal.padded(source.member.size)
        ends[source.member.path] = offset
    head = ends[PARTS]
    check_form(form, total=unseal.file_end(offset), head=head, manifest=manifest)


def _chunks(sources: Iterable[Source], mtime: int) -> Iterator[bytes]:
    for source in sources:
        member = source.member
        yield unseal.header(member.path, member.size, member.mode, mtime)
        digest = hashlib.sha256()
        for chunk in _content(source.content):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != member.sha256:
            where = str(source.content) if isinstance(source.content, Path) else member.path
            if member.path.startswith(EXTRA):
                raise IntegrityError(
                    "changed while it was sealed", where=where, hint="Run this again."
                )
            hint = "Remove that file from the cache, then run this again."
            raise IntegrityError("a cached blob is not what it was", where=where, hint=hint)
        yield bytes(unseal.padded(member.size) - member.size)


def _content(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with _opened(content) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        message = say("is gone since it was packed", "압축한 뒤에 없어졌습니다")
        hint = say(
            "Leave the cache alone, and run this again.", "캐시를 건드리지 말고 다시 실행하세요."
        )
        raise IntegrityError(message, where=str(path), hint=hint) from error


def size_table(manifest: Manifest) -> dict[str, int]:
    """What takes the room: the tool, its wheels, what images share, and each image's own blobs, in bytes."""
    sizes = {member.path: member.size for member in manifest.members}
    users: dict[str, list[str]] = {}
    for image in manifest.images:
        for digest in {image.manifest, image.config, *image.layers}:
            users.setdefault(digest, []).append(image.name)
    others = ("wheels/", "blobs/", "extras/")
    table = {
        "tool": sum(size for path, size in sizes.items() if not path.startswith(others)),
        "wheels": sum(size for path, size in sizes.items() if path.startswith("wheels/")),
        "shared layers": sum(
            sizes.get(blob_path(d), 0) for d, names in users.items() if len(names) > 1
        ),
    }
    for image in manifest.images:
        own = (digest for digest, names in users.items() if names == [image.name])
        table[f"image {image.name}"] = sum(sizes.get(blob_path(digest), 0) for digest in own)
    if manifest.extras.files or manifest.extras.wheels:
        own_files = (size for path, size in sizes.items() if path.startswith("extras/"))
        table["extras: files, wheels"] = sum(own_files)
    return table
