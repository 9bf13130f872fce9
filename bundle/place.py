"""Put the site's files and wheels where they belong on the closed host, streamed from the bundle, each checked.

What is equal is not written again; what we placed and no bundle has any more goes; what others put there stays.
Killed anywhere, run again finishes.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle import site, unseal
from bundle.errors import IntegrityError, PreconditionError
from bundle.host import Host, make_folder, write_file
from bundle.manifest import EXTRA, Manifest, Member, Need, as_bundle_error
from bundle.run import Progress
from bundle.words import say

STAGING = ".new"
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What was done, in files: `written` from the bundle, `kept` as they were, `removed`."""

    written: int
    kept: int
    removed: int


def is_right(host: Host, part: Need) -> bool:
    """Whether a file is there with its bytes and, as far as the bundle says, its mode."""
    place = host.path(part.path)
    if site.digest_of(place) != part.sha256:
        return False
    return not isinstance(part, Member) or place.stat().st_mode & 0o7777 == part.mode


def bytes_missing(host: Host, manifest: Manifest) -> int:
    """The room that the files still take, by their sizes only."""
    total = 0
    for path, part in site.extra_files(manifest).items():
        place = host.path(path)
        total += 0 if place.is_file() and place.stat().st_size == part.size else part.size
    return total


def put(host: Host, bundle: Path, manifest: Manifest) -> Placed:
    """Make `<root>/extras` what `manifest` says.

    Raises IntegrityError when the bundle gives other bytes than were sealed, PreconditionError when a delta needs a
    file that is not here any more, or when there is no room.
    """
    host.path("extras", STAGING).unlink(missing_ok=True)  # of a run that was killed
    try:
        return _put(host, bundle, manifest)
    except OSError as error:
        raise PreconditionError(
            say(f"cannot be written: {error.strerror}", f"쓸 수 없습니다: {error.strerror}"),
            where=str(error.filename or host.path("extras")),
            hint=say(
                "Make room there or give it back its rights, then run this again.",
                "공간이나 권한을 마련한 뒤 다시 실행하십시오.",
            ),
        ) from error


def _put(host: Host, bundle: Path, manifest: Manifest) -> Placed:
    before, parts = site.placed(host), site.extra_files(manifest)
    missing = [part for part in parts.values() if not is_right(host, part)]
    if parts or before:
        make_folder(host.path("extras"), 0o755)
        # What is about to be there is written down first: a run that is killed leaves nothing that nobody knows.
        _note(host, {**before, **{path: part.sha256 for path, part in parts.items()}})
    _write(host, bundle, manifest, missing, before)
    gone = [path for path in before if path not in parts]
    for path in gone:
        _take(host, path)
    if parts or before:
        _index(host, parts)
        _note(host, {path: part.sha256 for path, part in parts.items()})
    return Placed(written=len(missing), kept=len(parts) - len(missing), removed=len(gone))


def clear(host: Host) -> list[str]:
    """Take away all that we placed; returns the folder when it is gone."""
    before, folder = site.placed(host), host.path("extras")
    if not before:
        return []
    for path in before:
        _take(host, path)
    _index(host, {})
    (folder / STAGING).unlink(missing_ok=True)
    (folder / site.PLACED).unlink(missing_ok=True)
    if any(folder.iterdir()):  # of somebody else
        return []
    folder.rmdir()
    return [str(folder)]


def _note(host: Host, digests: Mapping[str, str]) -> None:
    text = json.dumps(dict(sorted(digests.items())), ensure_ascii=False, indent=1) + "\n"
    path = host.path("extras", site.PLACED)
    if not path.exists() or path.read_text("utf-8") != text:
        write_file(path, text.encode())


def _write(
    host: Host, bundle: Path, manifest: Manifest, missing: list[Need], before: Mapping[str, str]
) -> None:
    if not missing:
        return
    try:
        places = unseal.members(bundle)
    except unseal.SealError as error:
        raise as_bundle_error(error) from error
    modes = {member.path: member.mode for member in manifest.members}
    sources = {
        path: _elsewhere(host, path, part, before) for path, part in _needed(missing, places)
    }
    if lost := sorted(path for path, source in sources.items() if source is None):
        raise PreconditionError(
            say(
                f"the delta needs files that are not here any more: {', '.join(lost)}",
                f"델타에 필요한 파일이 더는 없습니다: {', '.join(lost)}",
            ),
            where=str(host.path("extras")),
            hint=say("Bring the full bundle.", "전체 번들을 반입하십시오."),
        )
    progress = Progress(say("placing files", "파일 배치"), sum(part.size for part in missing))
    for part in missing:
        source = sources.get(part.path)
        chunks = _of_file(source) if source else _of_bundle(bundle, *places[part.path])
        mode = source.stat().st_mode & 0o777 if source else modes[part.path]
        _place(host, part, mode, chunks, progress)
    progress.close()


def _needed(missing: list[Need], places: Mapping[str, object]) -> list[tuple[str, Need]]:
    return [(part.path, part) for part in missing if part.path not in places]


def _elsewhere(host: Host, path: str, part: Need, before: Mapping[str, str]) -> Path | None:
    """Another place of ours with the same bytes: a delta does not carry what only moved."""
    for other, digest in before.items():
        if other != path and digest == part.sha256 and site.digest_of(host.path(other)) == digest:
            return host.path(other)
    return None


def _of_file(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _of_bundle(bundle: Path, offset: int, size: int) -> Iterator[bytes]:
    with unseal.Reader(bundle) as file:
        while size and (chunk := file.read(min(CHUNK, size), offset)):
            offset, size = offset + len(chunk), size - len(chunk)
            yield chunk


def _place(host: Host, part: Need, mode: int, chunks: Iterator[bytes], progress: Progress) -> None:
    """Write one file beside its place, check it, move it there."""
    target, staging = host.path(part.path), host.path("extras", STAGING)
    for name in reversed(target.relative_to(host.root).parents[:-1]):
        folder = host.path(str(name))
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        make_folder(folder, 0o755)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    digest = hashlib.sha256()
    try:
        with open(staging, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
                progress.add(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != part.sha256:
            hint = say(
                "Check the bundle again: sh bootstrap.sh FILE --check; then run this again.",
                "번들을 다시 검사하십시오: sh bootstrap.sh FILE --check. 그 뒤 다시 실행하십시오.",
            )
            message = say("is not what was sealed", "봉인된 내용과 다릅니다")
            raise IntegrityError(message, where=part.path, hint=hint)
        staging.chmod(mode)
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def _take(host: Host, path: str) -> None:
    """Remove a file that we placed, and the folders above that it leaves empty."""
    place = host.path(path)
    if ".." in path.split("/") or not path.startswith(EXTRA):
        return
    place.unlink(missing_ok=True)
    for folder in place.relative_to(host.root).parents[:-2]:
        try:
            host.path(str(folder)).rmdir()
        except OSError:
            return


def _index(host: Host, parts: Mapping[str, Need]) -> None:
    """A page that pip takes for --find-links, as an index of one folder (PEP 503)."""
    path = host.path("extras", "wheels", "index.html")
    wheels = [part for name, part in parts.items() if name.startswith(f"{EXTRA}wheels/")]
    if not wheels:
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
        return
    lines = ["<!DOCTYPE html>", "<html><head><title>extras</title></head><body>"]
    for part in wheels:
        name = html.escape(part.path.rpartition("/")[2])
        lines.append(f'<a href="{name}#sha256={part.sha256}">{name}</a><br>')
    text = "\n".join([*lines, "</body></html>"]) + "\n"
    if not path.exists() or path.read_text("utf-8") != text:
        write_file(path, text.encode())
