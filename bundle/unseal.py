"""Check a bundle file in place: one file, standard library only, Python 3.10 or newer.

bootstrap.sh runs it as `python3 -I -S unseal.py FILE --manifest SHA256 …` after the host's own openssl has found the
signature over MANIFEST.json and the digest of this very file right; the tool imports its reading functions. Nothing is
parsed, unpacked or written before every byte of the file is accounted for: a bundle has exactly one form (members in
the order of the manifest, each header and each padding byte given by it), so any flipped bit is found and named.
Only then are the next steps, arrive.py and unpack.py, taken out of the bundle and run.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import errno
import hashlib
import io
import itertools
import json
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

BLOCK, RECORD, CHUNK, AHEAD, MOST_WORKERS = 512, 10240, 1 << 20, 8 << 20, 4
MAX_MANIFEST, MAX_SIGNATURE, MAX_MEMBERS, MAX_SHOWN = 16 << 20, 4096, 100_000, 40
MAX_RATIO = 100  # unpacked to packed; ours are near 4
UNLISTED = ("MANIFEST.json", "MANIFEST.sig")
ZEROS = bytes(BLOCK)
HEX = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")
MOMENT = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")
LOCALE = [os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
KOREAN = next(filter(None, LOCALE), "").startswith("ko")
INTEGRITY, PRECONDITION, USAGE = 5, 3, 2

Tick = Callable[[int], None]
_Found = tuple[str, int, dict[str, Any]]  # path, where the content begins, what was sealed


class SealError(Exception):
    """Why this bundle is not taken: an exit code, one line a problem, and what to do next."""

    def __init__(self, code: int, problems: list[str], hint: str) -> None:
        super().__init__("\n".join(problems))
        self.code, self.problems, self.hint = code, problems, hint


def say(english: str, korean: str) -> str:
    """The text in the operator's language."""
    return korean if KOREAN else english


def header(path: str, size: int, mode: int, mtime: int) -> bytes:
    """The one ustar header that a member may have: plain file, owner 0, nothing optional.

    Raises ValueError when ustar cannot hold the path or the size.
    """
    prefix, name = b"", path.encode()
    if len(name) > 100:
        cut = name.rfind(b"/", 0, 156)
        prefix, name = name[: max(cut, 0)], name[cut + 1 :]
    if len(name) > 100 or len(prefix) > 155 or size >= 1 << 33:
        raise ValueError(f"{path}: the path or the file is too long for the bundle's format")
    nobody = b"0000000\0" * 2
    front = name.ljust(100, b"\0") + b"%07o\0" % mode + nobody + b"%011o\0%011o\0" % (size, mtime)
    back = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + nobody
    back += prefix.ljust(155, b"\0") + bytes(12)
    return front + b"%06o\0 " % (sum(front) + sum(back) + 8 * 32) + back


def read_header(block: bytes) -> tuple[str, bytes, int]:
    """Path, kind and size of a member as its header says; only `header` says what it must be.

    Raises ValueError when it is none.
    """
    total = int(block[148:156].strip(b" \0"), 8)
    size = int(block[124:136].strip(b" \0") or b"0", 8)
    if len(block) < BLOCK or total != sum(block) - sum(block[148:156]) + 8 * 32 or size < 0:
        raise ValueError("not a header")
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    path = prefix + b"/" + name if prefix else name
    return path.decode("utf-8", "surrogateescape"), block[156:157], size


def padded(size: int) -> int:
    """The room that `size` bytes take in the file."""
    return -(-size // BLOCK) * BLOCK


def file_end(offset: int) -> int:
    """The length of a bundle file whose last member ends at `offset`."""
    return -(-(offset + 2 * BLOCK) // RECORD) * RECORD


def damaged(problem: str) -> SealError:
    """The refusal of a file that is not what was sealed."""
    hint = say(
        "Copy the file again from its source; compare `openssl dgst -sha256` with the trust sheet.",
        "원본에서 파일을 다시 복사한 뒤 `openssl dgst -sha256` 값을 확인서(trust sheet)와 비교하세요.",
    )
    return SealError(INTEGRITY, [problem], hint)


def parts_of(path: Path) -> list[Path]:
    """The files that hold the bundle `path`: itself, or when it is a first part every part up to the last one there."""
    stem, ending = path.name[:-4], path.name[-4:]
    if ending != ".001":
        return [path]
    others = (name[-3:] for name in os.listdir(path.parent) if name[:-3] == f"{stem}.")
    last = max(int(number) for number in ("001", *others) if re.fullmatch("[0-9]{3}", number))
    return [path.with_name(f"{stem}.{number:03d}") for number in range(1, last + 1)]


class Reader:
    """The bytes of a bundle file, or of its parts, read as one; what a part lacks reads as nothing.

    Raises OSError when the file, or the first part, is not there.
    """

    def __init__(self, path: Path) -> None:
        self.paths = parts_of(path)
        found = [self.paths[0], *(part for part in self.paths[1:] if part.is_file())]
        self.files = {self.paths.index(part): open(part, "rb", buffering=0) for part in found}  # noqa: SIM115
        sizes = {number: os.fstat(file.fileno()).st_size for number, file in self.files.items()}
        self.sizes = [sizes.get(number, 0) for number in range(len(self.paths))]
        equal = self.sizes[:-1] or self.sizes  # every part but the last has one size
        self.slot = max(equal, key=lambda size: (equal.count(size) * (size > 0), size)) or 1
        over = (max(size - self.slot, 0) for size in self.sizes[:-1])
        self.size = self.slot * (len(self.paths) - 1) + self.sizes[-1] + sum(over)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def pieces(self, offset: int, size: int) -> Iterator[tuple[BinaryIO, int, int]]:
        """Where `size` bytes from `offset` on lie: file, offset in it, count."""
        while size > 0:
            number, at = divmod(offset, self.slot)
            count = min(size, self.slot - at, max(self.sizes[number : number + 1], default=0) - at)
            if count <= 0:
                return
            yield self.files[number], at, count
            offset, size = offset + count, size - count

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer where something is missing."""
        found = self.pieces(offset, size)
        return b"".join(os.pread(file.fileno(), count, at) for file, at, count in found)


def _head(file: Reader) -> tuple[bytes, int, int]:
    """MANIFEST.json, the size of MANIFEST.sig, and where the members after it begin."""
    offset, raw, size = 0, b"", 0
    limits = (("bootstrap.sh", CHUNK), (UNLISTED[0], MAX_MANIFEST), (UNLISTED[1], MAX_SIGNATURE))
    for name, limit in limits:
        try:
            found, kind, size = read_header(file.read(BLOCK, offset))
        except ValueError:
            found, kind = "", b""
        if found != name or kind != b"0" or size > limit:
            problem = say(f"{name} is not where it must be", f"{name} 파일이 제자리에 없습니다")
            raise damaged(problem)
        raw = file.read(size, offset + BLOCK) if name == UNLISTED[0] else raw
        offset += BLOCK + padded(size)
    return raw, size, offset


def parse_manifest(raw: bytes) -> dict[str, Any]:
    """The manifest as plain values, its form checked and within limits.

    Raises SealError.
    """
    try:
        manifest = json.loads(raw) if len(raw) <= MAX_MANIFEST else None
        _check_form(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        english, korean = "has a wrong form", "형식이 잘못되었습니다"
        raise damaged(f"MANIFEST.json {say(english, korean)}: {error}") from error
    assert isinstance(manifest, dict)
    return manifest


def _check_form(manifest: Any) -> None:
    if manifest["format"] != 1 or manifest["product"] != "tracking-bundle":
        raise ValueError("unknown format")
    if not VERSION.fullmatch(manifest["version"]):
        raise ValueError("version")
    if not all(
        type(manifest[key]) is int and 0 <= manifest[key] < 1 << 33 for key in ("counter", "mtime")
    ):
        raise ValueError("counter or mtime")
    for key in ("created", "expires"):
        if not MOMENT.fullmatch(manifest[key]):
            raise ValueError(key)
        datetime.datetime.fromisoformat(manifest[key][:-1])
    members, seen = manifest["members"], set(UNLISTED)
    if not isinstance(manifest["arch"], str) or not 0 < len(members) <= MAX_MEMBERS:
        raise ValueError("arch or members")
    for member in members:
        _check_member(member, seen)
        if member["mode"] not in ("0644", "0755"):
            raise ValueError(f"mode of {member['path']}")
        header(member["path"], member["size"], int(member["mode"], 8), manifest["mtime"])
    _check_delta(manifest, seen)
    if members[0]["path"] != "bootstrap.sh" or not isinstance(manifest["images"], list):
        raise ValueError("bootstrap.sh must be first")
    if not all(f"wheels/{name}" in seen for names in manifest["wheels"].values() for name in names):
        raise ValueError("wheels")
    _check_unpacked(manifest)


def _check_member(member: dict[str, Any], seen: set[str]) -> None:
    path, size = member["path"], member["size"]
    if (
        path in seen
        or any(part in ("", ".", "..") for part in path.split("/"))
        or not path.isprintable()
        or "\\" in path
    ):
        raise ValueError(f"member {path!r}")
    if type(size) is not int or size < 0 or not HEX.fullmatch(member["sha256"]):
        raise ValueError(f"size or sha256 of {path}")
    seen.add(path)


def _check_unpacked(manifest: Any) -> None:
    """What is said to come out of wheels and layers must be in a sound relation to what goes in."""
    sizes = {m["path"]: m["size"] for m in [*manifest["members"], *manifest.get("needs", [])]}
    wheels = sum(size for path, size in sizes.items() if path.startswith("wheels/"))
    if type(manifest["unpacked"]) is not int or manifest["unpacked"] > MAX_RATIO * wheels:
        raise ValueError("unpacked")
    for image in manifest["images"]:
        packed = sum(sizes["blobs/" + layer.replace(":", "/")] for layer in image["layers"])
        each = image.get("sizes") or [image["size"]]
        sound = all(type(size) is int and size >= 0 for size in each)
        if not sound or sum(each) != image["size"] or image["size"] > MAX_RATIO * packed:
            raise ValueError(f"size of the image {image['name']}")


def _check_delta(manifest: Any, seen: set[str]) -> None:
    """What a delta stands on, and what it needs from there: layers, wheels and files, none of which it carries."""
    base, needs = manifest.get("base"), manifest.get("needs", [])
    if len(needs) > MAX_MEMBERS or (needs and base is None):
        raise ValueError("needs")
    if base is not None and not (
        VERSION.fullmatch(base["version"]) and HEX.fullmatch(base["inventory"])
    ):
        raise ValueError("base")
    for need in needs:
        _check_member(need, seen)
        if not need["path"].startswith(("blobs/sha256/", "wheels/", "small/", "extras/")):
            raise ValueError(f"needs {need['path']}")


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest inside the bundle `path`; its signature is not looked at here.

    Raises SealError.
    """
    return parse_manifest(manifest_bytes(path))


def manifest_bytes(path: Path) -> bytes:
    """MANIFEST.json as it lies in the bundle `path`.

    Raises SealError.
    """
    try:
        with Reader(path) as file:
            return _head(file)[0]
    except OSError as error:
        why = error.strerror
        problem = say(f"cannot read {path}: {why}", f"{path} 파일을 읽을 수 없습니다: {why}")
        hint = say("Give the path of the bundle file.", "번들 파일의 경로를 지정하세요.")
        raise SealError(USAGE, [problem], hint) from error


def members(path: Path) -> dict[str, tuple[int, int]]:
    """Where each member lies in the bundle `path`: name → (offset, size), computed from its manifest.

    Raises SealError.
    """
    with Reader(path) as file:
        raw, signature, _ = _head(file)
    found = _places(parse_manifest(raw), len(raw), signature)
    return {name: (offset + BLOCK, size) for name, offset, size in found}


def _places(manifest: dict[str, Any], raw: int, signature: int) -> Iterator[tuple[str, int, int]]:
    sizes = [(member["path"], member["size"]) for member in manifest["members"]]
    sizes[1:1] = [(UNLISTED[0], raw), (UNLISTED[1], signature)]
    offset = 0
    for name, size in sizes:
        yield name, offset, size
        offset += BLOCK + padded(size)


def signed_manifest(path: Path, digest: str) -> dict[str, Any]:
    """The manifest of the bundle `path`, when its sha256 is `digest`.

    Raises SealError.
    """
    raw = manifest_bytes(path)
    if hashlib.sha256(raw).hexdigest() == digest:
        return parse_manifest(raw)
    english, korean = "is not the one that was signed", "이 서명된 것과 다릅니다"
    raise damaged(say(f"MANIFEST.json {english}", f"MANIFEST.json{korean}"))


def check(path: Path, digest: str, tick: Tick = lambda _: None) -> dict[str, Any]:
    """Compare every byte of the bundle `path` with its manifest, whose sha256 must be `digest`; return the manifest.

    Raises SealError, with every missing, changed and extra member named.
    """
    manifest = signed_manifest(path, digest)
    with Reader(path) as file:
        raw, signature, _ = _head(file)
        found = _find_problems(file, manifest, len(raw), signature, tick)
        problems = list(itertools.islice(found, MAX_MEMBERS))
    if problems:
        refusal = damaged(problems[0])
        refusal.problems = problems
        raise refusal
    return manifest


def _find_problems(
    file: Reader, manifest: dict[str, Any], raw: int, signature: int, tick: Tick
) -> Iterator[str]:
    """Walk the file header by header: what is no member or out of place, what is missing or trails, what changed."""
    expected = {member["path"]: member for member in manifest["members"]}
    unlisted = zip(UNLISTED, (raw, signature), strict=True)
    expected |= {name: {"size": size, "mode": "0644"} for name, size in unlisted}
    places = {offset: name for name, offset, _ in _places(manifest, raw, signature)}
    last = max(places)
    end = last + BLOCK + padded(expected[places[last]]["size"])
    length, offset, seen, faulty, sound = file.size, 0, set[str](), False, list[_Found]()
    while offset + BLOCK <= length and (block := file.read(BLOCK, offset)) != ZEROS:
        start = offset
        try:
            name, _, size = read_header(block)
        except ValueError:  # go on where the manifest says that the next member begins
            name = places.get(start, f"@{start}")
            offset = min((place for place in places if place > start), default=end)
            fault = say("changed (its header)", "변경됨 (헤더)")
        else:
            offset = start + BLOCK + padded(size)
            moved = not faulty and places.get(start) != name
            fault = _misfit(block, expected.get(name), name in seen, moved, manifest["mtime"])
        seen.add(name)
        if fault:
            faulty = True
            yield f"{name if name.isprintable() else ascii(name)[:200]}: {fault}"
        else:
            sound.append((name, start + BLOCK, expected[name]))
    missing = [name for name in expected if name not in seen]
    yield from (f"{name}: {say('missing', '없음')}" for name in missing)
    if length < end:
        of = file_end(end)
        yield say(f"the file is cut off at {length} of {of}", f"파일이 {of} 중 {length}에서 잘림")
    elif not missing and (length != file_end(end) or any(file.read(2 * RECORD, end))):
        yield say("extra bytes after the last member", "마지막 항목 뒤에 여분의 바이트가 있음")
    yield from _find_changed(file, sound, tick)


def _misfit(
    block: bytes, sealed: dict[str, Any] | None, again: bool, moved: bool, mtime: int
) -> str:
    """What is wrong with a member by its header, or by where that stands; nothing: an empty text."""
    name, kind, size = read_header(block)
    if sealed is None:
        return say("extra, it was not sealed", "봉인에 없는 여분의 항목")
    if again or moved:
        return say("duplicated", "중복됨") if again else say("moved", "위치가 바뀜")
    if kind != b"0":
        return say("changed (a link, a folder or a device)", "변경됨 (링크, 폴더 또는 장치)")
    if size != sealed["size"]:
        of = sealed["size"]
        return say(f"changed (size {size}, sealed {of})", f"변경됨 (크기 {size}, 봉인 시 {of})")
    right = block == header(name, size, int(sealed["mode"], 8), mtime)
    return "" if right else say("changed (its header)", "변경됨 (헤더)")


def _find_changed(file: Reader, sound: list[_Found], tick: Tick) -> Iterator[str]:
    """Read what follows the sound headers, several members at once: each counts as unread until it is found right."""
    faults = dict.fromkeys((name for name, _, _ in sound), say("cannot be read", "읽을 수 없음"))
    todo = deque(sound)

    def work() -> None:
        with contextlib.suppress(IndexError):
            while True:
                name, start, sealed = todo.popleft()
                faults[name] = _fault(file, start, sealed, tick)

    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    others = [threading.Thread(target=work, daemon=True) for _ in range(workers - 1)]
    try:
        with contextlib.suppress(RuntimeError):  # no more threads for us: then with fewer
            for other in others:
                other.start()
        work()
    finally:
        todo.clear()
        for other in filter(threading.Thread.is_alive, others):
            other.join()
    yield from (f"{name}: {fault}" for name, fault in faults.items() if fault)


def _fault(file: Reader, start: int, sealed: dict[str, Any], tick: Tick) -> str:
    """What is wrong with the content that begins at `start`; nothing: an empty text."""
    size, rest = sealed["size"], padded(sealed["size"]) - sealed["size"]
    try:
        digest = _sha256(file, start, size, tick)
        padding = file.read(rest, start + size)
    except OSError as error:
        return say(f"cannot be read: {error.strerror}", f"읽을 수 없음: {error.strerror}")
    if digest is None or len(padding) != rest:
        return say("truncated", "잘림")
    if digest != sealed.get("sha256", digest):
        return say("changed", "변경됨")
    return say("changed (padding)", "변경됨 (패딩)") if any(padding) else ""


def _sha256(reader: Reader, offset: int, size: int, tick: Tick) -> str | None:
    digest, view = hashlib.sha256(), memoryview(bytearray(min(size, CHUNK)))
    for file, at, count in reader.pieces(offset, size):
        handle, end, asked = file.fileno(), at + count, at
        while at < end:
            if at >= asked:  # so that members that are read at once cost a disk few seeks
                os.posix_fadvise(handle, at, min(end - at, AHEAD), os.POSIX_FADV_WILLNEED)
                asked = at + AHEAD
            got = os.preadv(handle, [view[: end - at]], at)
            if not got:
                return None
            digest.update(view[:got])
            at, size = at + got, size - got
            tick(got)
    return None if size else digest.hexdigest()


class Progress:
    """Megabytes done, on standard error: a moving line on a terminal, else one every ten seconds."""

    def __init__(self, total: int, did: str) -> None:
        self.total, self.did, self.done, self.live = total, did, 0, sys.stderr.isatty()
        self.start = self.shown = time.monotonic()

    def __call__(self, count: int) -> None:
        """Count what was done."""
        self.done += count
        if time.monotonic() - self.shown > (0.2 if self.live else 10):
            self.shown = time.monotonic()
            self.show("\r" if self.live else "\n")

    def show(self, end: str) -> None:
        """Show where it stands."""
        rate = self.done / 1e6 / max(time.monotonic() - self.start, 1e-3)
        total = self.total / 1e6
        tell(f"  {self.did} {self.done / 1e6:,.0f} / {total:,.0f} MB, {rate:,.0f} MB/s", end)


def tell(text: str, end: str = "\n") -> None:
    """Say `text` on standard error at once."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="unseal.py", allow_abbrev=False)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--manifest", required=True, metavar="SHA256", help="of MANIFEST.json")
    parser.add_argument("--fingerprint", default="", help="of the key that signed it")
    parser.add_argument("--root", type=Path, default=Path("/var/lib/tracking-bundle"))
    parser.add_argument("--old", default="", help="the older key that named this one")
    parser.add_argument("--copy", default="", metavar="DIR", help="copy it there and check that")
    parser.add_argument("--request", default="", metavar="FILE", help="for the damaged parts")
    parser.add_argument("--check", action="store_true", help="only check, write nothing")
    parser.add_argument("--accept-expired", action="store_true")
    parser.add_argument("--accept-rollback", action="store_true")
    options = parser.parse_args(arguments)
    root = os.path.abspath(options.root)
    if not root.isprintable() or set(root) & set("\"'$`\\:"):
        problem = say(f"--root {root!r} cannot be used", f"--root {root!r} 경로는 쓸 수 없습니다")
        signs = "\" ' $ ` \\ :"
        english = f"Choose a path without control characters and {signs}"
        hint = say(english, f"제어 문자와 {signs} 가 없는 경로를 고르세요.")
        raise SealError(USAGE, [problem], hint)
    options.root, options.bundle = Path(root), Path(os.path.abspath(options.bundle))
    return options


def _work(options: argparse.Namespace) -> None:
    manifest = signed_manifest(options.bundle, options.manifest)
    if options.copy:
        load(options.bundle, manifest, "parts").copy(options)
        return
    with Reader(options.bundle) as file:
        progress = Progress(file.size, say("checked", "검사함"))
    try:
        check(options.bundle, options.manifest, progress)
    except SealError as error:
        if options.bundle.name.endswith(".001"):
            try:
                load(options.bundle, manifest, "parts").explain(error, options, manifest)
            except SealError as itself:  # that module, which lies in the first part
                error.problems.insert(0, f"{options.bundle.name}: {itself.problems[0]}")
        raise
    progress.show("\n")
    load(options.bundle, manifest, "arrive").arrive(options, manifest, load)


def load(bundle: Path, manifest: dict[str, Any], module: str) -> Any:
    """A module of the tool out of the bundle, its digest compared; it finds this file as `bundle.unseal`.

    Raises SealError.
    """
    name = f"small/bundle/{module}.py"
    sealed = {member["path"]: member["sha256"] for member in manifest["members"]}
    offset, size = members(bundle).get(name, (0, 0))
    with Reader(bundle) as file:
        source = file.read(size, offset)
    if hashlib.sha256(source).hexdigest() != sealed.get(name):
        raise damaged(f"{name}: {say('changed since it was checked', '검사한 뒤에 변경됨')}")
    loaded = ModuleType(f"bundle.{module}")
    sys.modules |= {"bundle": ModuleType("bundle"), "bundle.unseal": sys.modules[__name__]}
    sys.modules[f"bundle.{module}"] = loaded
    exec(compile(source, name, "exec"), loaded.__dict__)
    return loaded


def _explain(error: OSError) -> SealError:
    problem = f"{error.filename or ''}: {error.strerror}".lstrip(": ")
    english, korean = (
        "Run it as root, or give another --root.",
        "root 권한으로 실행하거나 --root를 바꾸세요.",
    )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        english, korean = "Make room, then run it again.", "공간을 비우고 다시 실행하세요."
    if error.errno == errno.EIO:
        english = "The medium cannot be read; copy the file again."
        korean = "매체를 읽을 수 없습니다. 파일을 다시 복사하세요."
    return SealError(PRECONDITION, [problem], say(english, korean))


def main(arguments: list[str]) -> int:
    """Check, and unless `--check`: unpack; the exit code is the contract's."""
    os.umask(0o022)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _work(_parse(arguments))
        return 0
    except SealError as error:
        refusal = error
    except OSError as error:
        refusal = _explain(error)
    except KeyboardInterrupt:
        return 130
    for problem in refusal.problems[:MAX_SHOWN]:
        tell(f"{say('error', '오류')}: {problem}")
    more = len(refusal.problems) - MAX_SHOWN
    if more > 0:
        tell(say(f"… and {more} more", f"… 그 밖에 {more}건"))
    tell(f"  {say('hint', '조치')}: {refusal.hint}")
    return refusal.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
