"""A bundle in parts: which parts are damaged and what to ask for again; a copy that takes up where it broke off.

Standard library only: unseal.py loads this file out of the bundle by its sealed digest, and lends itself as
`bundle.unseal`. The table of parts beside the file only helps to name; what is right is decided by the seal alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bundle.unseal import (
    BLOCK,
    CHUNK,
    PRECONDITION,
    USAGE,
    Progress,
    Reader,
    SealError,
    check,
    file_end,
    header,
    members,
    padded,
    parts_of,
    say,
    tell,
)

AGAIN_FROM, SYNC_EVERY = 64 << 20, 64 << 20
"""A broken copy is taken up this far before its end, since a power cut damages what was written last."""
MAX_TABLE = 1 << 20


def explain(error: SealError, options: argparse.Namespace, manifest: dict[str, Any]) -> None:
    """Put before what the check found which parts are the cause, and write the request for them if one is wanted."""
    path: Path = options.bundle
    places = members(path)
    total = file_end(max(offset + padded(size) for offset, size in places.values()))
    table = _table(path, options.manifest, total)
    with Reader(path) as file:
        split = table[0]["size"] if table else file.slot
        known = table is not None or _is_sure(file, total)
    faults = _by_table(path, table) if table else _by_size(path, split, total)
    if not faults or not table:  # a table that calls every part right is itself wrong
        faults |= {part: text for part, text in _by_members(path, manifest, places, split)
                   if part not in faults}  # fmt: skip
    names = sorted(part.name for part in faults)
    error.problems[:0] = [f"{part.name}: {faults[part]}" for part in sorted(faults)]
    wanted = [name for part, name in zip(sorted(faults), names, strict=True)
              if part.name in {p.name for p in _expected(path, split, total)}]  # fmt: skip
    listed = " ".join(wanted or names)
    error.hint = say(
        f"Bring only these parts again: {listed}. --request FILE writes that down for the connected side.",
        f"다음 파트만 다시 가져오세요: {listed}. --request FILE을 붙이면 연결망 쪽에 줄 요청 파일을 씁니다.",
    )
    if not known:
        error.hint = say(
            f"Bring {path.name[:-4]}.parts.json too, to tell which parts are right; or bring all parts again.",
            f"어느 파트가 맞는지 알려면 {path.name[:-4]}.parts.json도 가져오거나, 모든 파트를 다시 가져오세요.",
        )
    elif options.request and wanted:
        _write_request(Path(options.request), path.name[:-4], options.manifest, split, wanted)
        error.hint = say(
            f"Give {options.request} to the connected side: invoke bundle --parts makes exactly {listed} again.",
            f"{options.request} 파일을 연결망 쪽에 전달하세요. invoke bundle --parts가 {listed} 만 다시 만듭니다.",
        )


def _write_request(target: Path, file: str, manifest: str, split: int, parts: list[str]) -> None:
    data = {"format": 1, "file": file, "manifest": manifest, "split": split, "parts": parts}
    target.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _expected(path: Path, split: int, total: int) -> list[Path]:
    return [path.with_name(f"{path.name[:-4]}.{n:03d}") for n in range(1, -(-total // split) + 1)]


def _is_sure(file: Reader, total: int) -> bool:
    """Whether the size of a part is known without the table: parts agree, or they make the whole."""
    return file.size == total or file.sizes[:-1].count(file.slot) > 1


def _table(path: Path, manifest: str, total: int) -> list[dict[str, Any]] | None:
    """The table of parts beside the file, if it is of this bundle and makes sense."""
    place = path.with_name(path.name[:-4] + ".parts.json")
    try:
        if place.stat().st_size > MAX_TABLE:
            return None
        table = json.loads(place.read_bytes())
        parts: list[dict[str, Any]] = table["parts"]
        sizes = [part["size"] for part in parts]
        names = [part["name"] for part in parts]
        sound = (
            all(type(size) is int and size > 0 for size in sizes)
            and set(sizes[:-1]) <= {sizes[0]}
            and sum(sizes) == total
            and names == [part.name for part in _expected(path, sizes[0], total)]
            and all(type(part["sha256"]) is str for part in parts)
        )
        return parts if sound and table["manifest"] == manifest else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _by_size(path: Path, split: int, total: int) -> dict[Path, str]:
    """Missing, cut off, too long or too many, by the sizes alone."""
    expected, faults = _expected(path, split, total), dict[Path, str]()
    for number, part in enumerate(expected):
        size = min(split, total - number * split)
        found = part.stat().st_size if part.is_file() else None
        if found is None:
            faults[part] = say("missing", "없음")
        elif found < size:
            faults[part] = say(f"cut off at {found} of {size}", f"{size} 중 {found}에서 잘림")
        elif found > size:
            faults[part] = say(f"too long, {found} instead of {size}", f"{size}가 아니라 {found}임")
    for part in parts_of(path)[len(expected) :]:
        if part.is_file():
            faults[part] = say("extra, it belongs to another bundle", "여분, 다른 번들의 파트임")
    return faults


def _by_table(path: Path, table: list[dict[str, Any]]) -> dict[Path, str]:
    """Also changed or in another's place, by the digests of the table."""
    faults = _by_size(path, table[0]["size"], sum(part["size"] for part in table))
    by_digest = {part["sha256"]: part["name"] for part in table}
    for part in table:
        file = path.with_name(part["name"])
        if file in faults:
            continue
        digest = _digest(file)
        if digest in by_digest and digest != part["sha256"]:
            other = by_digest[digest]
            faults[file] = say(f"this is {other}, renamed", f"이름이 바뀐 {other}임")
        elif digest != part["sha256"]:
            faults[file] = say("changed, or of another bundle", "변경되었거나 다른 번들의 파트임")
    return faults


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as handle:
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        return str(error.strerror)
    return digest.hexdigest()


def _by_members(
    path: Path, manifest: dict[str, Any], places: dict[str, tuple[int, int]], split: int
) -> Iterator[tuple[Path, str]]:
    """Every part in which a damaged member has bytes: one of those of a member is damaged, perhaps not each."""
    text = say("damaged, or its neighbour", "손상됨 (또는 이웃 파트가 손상됨)")
    sealed = {member["path"]: member for member in manifest["members"]}
    end = max(start + padded(size) for start, size in places.values())
    with Reader(path) as file:
        stretches = [
            (start - BLOCK, start + padded(size))
            for name, (start, size) in places.items()
            if not _is_right(file, name, start, size, sealed.get(name, {}), manifest["mtime"])
        ]
        tail = file_end(end) - end
        if file.read(tail, end) != bytes(tail):
            stretches.append((end, end + tail))
    for start, stop in stretches:
        for number in range(start // split, (stop - 1) // split + 1):
            yield path.with_name(f"{path.name[:-4]}.{number + 1:03d}"), text


def _is_right(
    file: Reader, name: str, start: int, size: int, sealed: dict[str, Any], mtime: int
) -> bool:
    """Whether header, content and padding of a member are what was sealed."""
    digest, at, end = hashlib.sha256(), start, start + size
    while at < end and (data := file.read(min(CHUNK, end - at), at)):
        digest.update(data)
        at += len(data)
    rest = padded(size) - size
    return (
        at == end
        and file.read(BLOCK, start - BLOCK)
        == header(name, size, int(sealed.get("mode", "0644"), 8), mtime)
        and digest.hexdigest() == sealed.get("sha256", digest.hexdigest())
        and file.read(rest, end) == bytes(rest)
    )


def copy(options: argparse.Namespace) -> None:
    """Copy the file or its parts to the folder `options.copy`, then read it all back and compare it with the seal.

    What an earlier run brought there stays; what came out wrong is written again. Raises SealError.
    """
    folder = Path(options.copy)
    source: list[Path] = parts_of(options.bundle)
    _look(source, folder)
    progress = Progress(sum(part.stat().st_size for part in source), say("copied", "복사함"))
    for part in source:
        _copy_one(part, folder / part.name, progress)
    progress.show("\n")
    table = options.bundle.with_name(options.bundle.name[:-4] + ".parts.json")
    if options.bundle.name.endswith(".001") and table.is_file():
        shutil.copyfile(table, folder / table.name)
    target = folder / options.bundle.name
    progress = Progress(sum(part.stat().st_size for part in source), say("checked", "검사함"))
    try:
        manifest = check(target, options.manifest, progress)
    except SealError:
        if not _mend(source, folder):  # the same bytes: then the source is damaged
            raise
        manifest = check(target, options.manifest)
    progress.show("\n")
    version = manifest["version"]
    tell(
        say(f"copied and complete: {version} in {folder}", f"복사와 확인 완료: {version}, {folder}")
    )


def _look(source: list[Path], folder: Path) -> None:
    """Whether every part is there, and room for it."""
    problems = [f"{part.name}: {say('missing', '없음')}" for part in source if not part.is_file()]
    if problems:
        hint = say("Connect the medium with that part.", "그 파트가 담긴 매체를 연결하세요.")
        raise SealError(PRECONDITION, problems, hint)
    if source[0].parent.resolve() == folder.resolve():
        problem = say(
            f"--copy {folder} is where the file lies", f"--copy {folder}는 원본 폴더입니다"
        )
        raise SealError(USAGE, [problem], say("Choose another folder.", "다른 폴더를 고르세요."))
    folder.mkdir(parents=True, exist_ok=True)
    there = [folder / part.name for part in source] + [_partial(folder / p.name) for p in source]
    have = sum(file.stat().st_size for file in there if file.is_file())
    need = sum(part.stat().st_size for part in source) - have
    free = shutil.disk_usage(folder).free
    if need > free:
        problem = say(
            f"{folder} has {free / 1e6:.0f} MB free, {need / 1e6:.0f} MB are needed",
            f"{folder}에 {free / 1e6:.0f} MB가 남았고 {need / 1e6:.0f} MB가 필요합니다",
        )
        hint = say("Make room, or choose another folder.", "공간을 비우거나 다른 폴더를 고르세요.")
        raise SealError(PRECONDITION, [problem], hint)


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _copy_one(part: Path, target: Path, progress: Progress) -> None:
    size, partial = part.stat().st_size, _partial(target)
    if target.is_file() and target.stat().st_size == size:
        progress(size)
        return
    start = max(partial.stat().st_size - AGAIN_FROM, 0) if partial.is_file() else 0
    start = min(start, size)
    progress(start)
    with open(part, "rb", buffering=0) as source, open(partial, "ab") as handle:
        handle.truncate(start)
        source.seek(start)
        since = 0
        while data := source.read(CHUNK):
            handle.write(data)
            progress(len(data))
            since += len(data)
            if since >= SYNC_EVERY:
                _to_medium(handle)
                since = 0
        _to_medium(handle)
    partial.replace(target)


def _to_medium(handle: BinaryIO) -> None:
    """Write it out, and forget it here, so that the check reads what the medium holds."""
    handle.flush()
    os.fsync(handle.fileno())
    os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _mend(source: list[Path], folder: Path) -> int:
    """Write again what differs from the source; how many megabytes that were."""
    mended = 0
    for part in source:
        with open(part, "rb") as right, open(folder / part.name, "r+b") as wrong:
            while data := right.read(CHUNK):
                at = wrong.tell()
                if wrong.read(len(data)) != data:
                    wrong.seek(at)
                    wrong.write(data)
                    mended += 1
            _to_medium(wrong)
    if mended:
        tell(say(f"  written again: {mended} MB", f"  다시 쓴 분량: {mended} MB"))
    return mended
