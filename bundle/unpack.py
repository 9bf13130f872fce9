"""Unpack the small part of a checked bundle: the tool under releases/ and its .venv from the carried wheels.

Standard library only. unseal.py loads this file out of the bundle once it has found every byte of it right, and
lends itself as `bundle.unseal`; nothing else of the package is there yet, and neither pip nor ensurepip is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import lzma
import os
import platform
import re
import shlex
import shutil
import sys
import sysconfig
import venv
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundle.kept import check_needs, kept, parts
from bundle.unseal import Reader, SealError, damaged, manifest_bytes, members, say

PRECONDITION, BUSY = 3, 7
MAX_SMALL = 512 << 20
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def unpack(path: Path, manifest: dict[str, Any], root: Path, record: dict[str, Any]) -> Path:
    """Unpack the tool under `root`/releases, make its .venv from the carried wheels, point `current` at it.

    Twice is a no-op; killed anywhere, run again finishes. Raises SealError.
    """
    wheels = _wheels_for_here(manifest)
    check_needs(manifest, root)
    releases = root / "releases"
    releases.mkdir(parents=True, exist_ok=True)
    home: Path = releases / manifest["version"]
    record = {**record, "python": platform.python_version(), "installed_wheels": wheels}
    with _lock(root):
        _clear(releases)
        there = _is_there(home, manifest, record)
        if not there:
            _check_room(manifest, root)
        _keep_wheels(path, manifest, root / "wheels")
        if not there:
            staging = releases / f"{manifest['version']}.staging-{os.getpid()}"
            try:
                _fill(path, manifest, wheels, staging, home)
                os.sync()  # a power cut after the rename must not leave empty files
                if home.exists():
                    home.rename(releases / f"{manifest['version']}.old-{os.getpid()}")
                staging.rename(home)
            finally:
                _clear(releases)
        (root / "request.json").unlink(missing_ok=True)
        _write_json(home / "release.json", record)
        _write_json(
            releases / "installed.json", {key: manifest[key] for key in ("counter", "version")}
        )
        link = root / ".current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("releases") / manifest["version"])
        link.replace(root / "current")
    return home


def _clear(releases: Path) -> None:
    """Take away what a killed run left; a release that it had only put aside comes back, a delta may stand on it."""
    for old in releases.glob("*.old-*"):
        home = releases / old.name.rpartition(".old-")[0]
        shutil.rmtree(old, ignore_errors=True) if home.exists() else old.rename(home)
    for staging in releases.glob("*.staging-*"):
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    with open(root / ".lock", "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = say(
                f"another task is at work in {root}", f"{root}에서 다른 작업이 실행 중입니다"
            )
            hint = say(
                "Wait until it has ended, then run this again.", "끝난 뒤에 다시 실행하세요."
            )
            raise SealError(BUSY, [problem], hint) from error
        yield


def _wheels_for_here(manifest: dict[str, Any]) -> list[str]:
    """The carried wheels for this interpreter and machine."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    carried, arch = manifest["wheels"], MACHINES.get(platform.machine(), platform.machine())
    problems = []
    if arch != manifest["arch"]:
        made = manifest["arch"]
        problems.append(
            say(
                f"the bundle is for {made}, this host is {arch}",
                f"번들은 {made}용, 이 호스트는 {arch}입니다",
            )
        )
    elif here not in carried or sysconfig.get_config_var("Py_GIL_DISABLED"):
        problems.append(
            say(
                f"no wheels are carried for this Python {here}",
                f"이 Python {here}용 휠이 번들에 없습니다",
            )
        )
    else:
        problems += [f"{name}: {_unfit(name)}" for name in carried[here] if _unfit(name)]
    if problems:
        text = ", ".join(carried)
        hint = say(
            f"Run it on a host of that architecture with glibc and one of these Pythons: {text}.",
            f"아키텍처가 같고 glibc와 다음 Python 중 하나가 있는 호스트에서 실행하세요: {text}.",
        )
        raise SealError(PRECONDITION, problems, hint)
    return list(carried[here])


def _unfit(name: str) -> str:
    """Why the wheel `name` cannot run here; nothing: an empty text."""
    python, abi, platforms = name.removesuffix(".whl").split("-")[-3:]
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    pure = "py3" in python.split(".") and abi == "none"
    stable = (
        abi == "abi3" and python.startswith("cp3") and int(python[3:]) <= sys.version_info.minor
    )
    if not (pure or stable or (python, abi) == (here, here)):
        return say(f"not for {here}", f"{here}용이 아님")
    library, version = platform.libc_ver()
    glibc = tuple(int(part) for part in version.split(".")[:2]) if library == "glibc" else (0, 0)
    for tag in platforms.replace("manylinux2014", "manylinux_2_17").split("."):
        found = re.fullmatch(r"manylinux_(\d+)_(\d+)_(\w+)", tag)
        if tag == "any" or (
            found and found[3] == platform.machine() and (int(found[1]), int(found[2])) <= glibc
        ):
            return ""
    return say(
        f"needs another system than {library} {version}", f"{library} {version}에서는 쓸 수 없음"
    )


def _is_there(home: Path, manifest: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether `home` is exactly this bundle's small part, with a .venv made by this Python."""
    try:
        there = json.loads((home / "release.json").read_bytes())
        same = all(
            there[key] == record[key] for key in ("sha256_manifest", "python", "installed_wheels")
        )
        return (
            same
            and os.access(home / ".venv/bin/python", os.X_OK)
            and all(
                hashlib.sha256((home / part["path"][6:]).read_bytes()).hexdigest() == part["sha256"]
                for part in parts(manifest, "small/")
            )
        )
    except (OSError, ValueError, KeyError):
        return False


def _fill(
    path: Path, manifest: dict[str, Any], wheels: list[str], staging: Path, home: Path
) -> None:
    places, raw = members(path), manifest_bytes(path)
    chosen = [part for part in parts(manifest, "wheels/") if part["path"][7:] in wheels]
    root = home.parents[1]
    staging.mkdir()
    with Reader(path) as file:
        for part in parts(manifest, "small/"):
            mode, here = int(part.get("mode", "0644"), 8), part["path"] in places
            data = _member(file, part, places) if here else kept(root, part)
            _write(staging / part["path"][6:], data or b"", mode)
        _write(staging / "MANIFEST.json", raw, 0o644)
        venv.EnvBuilder(symlinks=True, with_pip=False).create(staging / ".venv")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = staging / ".venv/lib" / version / "site-packages"
    room = manifest["unpacked"]
    for part in chosen:
        room = _unzip(part["path"], kept(root, part) or b"", site, room)
    for script in (staging / ".venv" / "bin").glob("[Aa]ctivate*"):
        script.write_text(script.read_text("utf-8").replace(str(staging), str(home)), "utf-8")
    _write_commands(site, staging / ".venv" / "bin", home / ".venv" / "bin" / "python")


def _check_room(manifest: dict[str, Any], root: Path) -> None:
    small = sum(m["size"] for m in manifest["members"] if m["path"].startswith("small/"))
    wheels = sum(m["size"] for m in manifest["members"] if m["path"].startswith("wheels/"))
    need, free = small + wheels + manifest["unpacked"], shutil.disk_usage(root).free
    if need > free or need > MAX_SMALL:
        problem = say(
            f"{root} has {free / 1e6:.0f} MB free, {need / 1e6:.0f} MB are needed",
            f"{root}에 {free / 1e6:.0f} MB가 남았고 {need / 1e6:.0f} MB가 필요합니다",
        )
        hint = say("Make room, or choose another --root.", "공간을 비우거나 --root를 바꾸세요.")
        raise SealError(PRECONDITION, [problem], hint)


def _keep_wheels(path: Path, manifest: dict[str, Any], store: Path) -> None:
    """Put the carried wheels into the store, and take out those that no release here is made of."""
    store.mkdir(mode=0o755, exist_ok=True)
    places, used = members(path), {part["sha256"] for part in parts(manifest, "wheels/")}
    with Reader(path) as file:
        for member in manifest["members"]:
            if member["path"].startswith("wheels/") and kept(store.parent, member) is None:
                staging = store / ".new"
                _write(staging, _member(file, member, places), 0o644)
                staging.replace(store / member["sha256"])
    for other in store.parent.glob("releases/*/MANIFEST.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            used |= {part["sha256"] for part in parts(json.loads(other.read_bytes()), "wheels/")}
    for wheel in store.iterdir():
        if wheel.name not in used:
            wheel.unlink()


def _member(file: Reader, member: dict[str, Any], places: dict[str, tuple[int, int]]) -> bytes:
    offset, size = places[member["path"]]
    data = file.read(size, offset)
    if hashlib.sha256(data).hexdigest() != member["sha256"]:
        raise damaged(
            f"{member['path']}: {say('changed since it was checked', '검사한 뒤에 변경됨')}"
        )
    return data


# All but OSError, which is this host's disk; RuntimeError: it is encrypted. ValueError: it names no place.
UNSOUND = (
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


def _unzip(path: str, data: bytes, site: Path, room: int) -> int:
    """Unpack a wheel; what is left of the `room` in bytes that was sealed for all of them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as wheel:
            room -= sum(
                info.file_size for info in wheel.infolist()
            )  # a zip gives no more than that
            if room >= 0:
                _unzip_into(site, wheel)
                return room
        why = say("unpacks to more than was sealed", "봉인된 한도보다 크게 풀림")
    except UNSOUND as error:
        why = say(f"is no sound wheel ({error})", f"온전한 휠이 아님 ({error})")
    raise damaged(f"{path}: {why}")


def _unzip_into(site: Path, wheel: zipfile.ZipFile) -> None:
    for info in wheel.infolist():
        folder, _, rest = info.filename.partition("/")
        if folder.endswith(".data"):  # only <name>.data/purelib and platlib hold modules
            kind, _, name = rest.partition("/")
            if kind not in ("purelib", "platlib"):
                continue
        else:
            name = info.filename
        if not info.is_dir() and ".." not in name.split("/") and not name.startswith("/"):
            _write(site / name, b"", 0o644)
            with wheel.open(info) as packed, open(site / name, "wb") as file:
                shutil.copyfileobj(packed, file)  # little by little


def _write_commands(site: Path, folder: Path, python: Path) -> None:
    """Write the console scripts of what lies in `site`; sh starts them, since a #! line cannot hold a blank."""
    for file in sorted(site.glob("*.dist-info/entry_points.txt")):
        section = ""
        for line in file.read_text("utf-8").splitlines():
            section = line.strip() if line.startswith("[") else section
            name, equals, target = (part.strip() for part in line.partition("="))
            if section != "[console_scripts]" or not equals or not re.fullmatch(r"[\w.-]+", name):
                continue
            module, _, function = target.partition("[")[0].strip().partition(":")
            text = (
                f"#!/bin/sh\n'''exec' {shlex.quote(str(python))} \"$0\" \"$@\"\n' '''\n"
                f"import sys\nfrom {module} import {function.split('.')[0]}\nsys.exit({function}())\n"
            )
            _write(folder / name, text.encode(), 0o755)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    staging = path.with_name(
        f".{path.name}.new"
    )  # one name: a killed run leaves nothing behind the next
    _write(staging, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode(), 0o644)
    with open(staging, "rb") as file:
        os.fsync(file.fileno())
    staging.replace(path)
