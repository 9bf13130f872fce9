"""What a site adds to its bundle: images, files, wheels and a compose fragment, looked at before anything is sealed.

Nothing is copied: files are sealed from where they lie. Everything that cannot be sealed is told at once.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from bundle import fragment, leaks, store, unseal
from bundle.config import BundleConfig
from bundle.engine import Engine
from bundle.errors import BundleError, ConfigError, PreconditionError, Problem
from bundle.manifest import EXTRA_IMAGE, EXTRAS_COMPOSE, Added, SealedExtras
from bundle.model import Image, Named
from bundle.run import log
from bundle.words import say

PULL_WITHIN_S = 3600
MAX_FILES = 50_000
CHUNK = 1 << 20


@dataclass(kw_only=True)
class _Gathering:
    """One look at everything: `wrong` is in bundle.toml, `missing` is on this host."""

    config: BundleConfig
    folder: Path
    engine: Engine
    arch: str
    version: str
    wrong: list[Problem] = field(default_factory=list)
    missing: list[Problem] = field(default_factory=list)

    def refuse(self, key: str, message: str, hint: str) -> None:
        self.wrong.append(Problem(where=f"extras.{key}", message=message, hint=hint))


def gather(
    config: BundleConfig, folder: Path, engine: Engine, *, arch: str, version: str
) -> tuple[tuple[Image, ...], Added]:
    """The images that `config` names, and all else; paths are relative to `folder`, where bundle.toml lies.

    Images are pulled where they are named by digest and absent, and get the name under which they will run.

    Raises ConfigError when something named cannot be sealed, PreconditionError when only an image is missing.
    """
    work = _Gathering(config=config, folder=folder, engine=engine, arch=arch, version=version)
    images = [image for entry in config.extras_images if (image := _image(work, entry))]
    members: dict[str, Path] = {}
    for entry in config.extras_files:
        members |= _files(work, entry)
    wheels = _wheels(work)
    members |= {f"extras/wheels/{name}": path for name, path in wheels.items()}
    _check_room(work, members)
    reviewed = _reviewed(work)
    compose = _fragment(work)
    if compose:
        members[EXTRAS_COMPOSE] = compose
    if work.wrong:
        raise ConfigError.of(work.wrong + work.missing)
    if work.missing:
        raise PreconditionError.of(work.missing)
    sealed = SealedExtras(
        images=tuple(entry.label for entry in config.extras_images),
        files=tuple(entry.label for entry in config.extras_files),
        wheels=tuple(sorted(wheels)),
        compose=EXTRAS_COMPOSE if compose else "",
    )
    return tuple(images), Added(members=members, sealed=sealed, reviewed=reviewed)


# --- images -----------------------------------------------------------------------------------------------------------


def _image(work: _Gathering, entry: Named) -> Image | None:
    facts, told = store.inspect(work.engine, entry.source), ""
    if facts is None and "@sha256:" in entry.source:
        log.info("  %s %s", say("pulling", "받는 중"), entry.source)
        try:
            work.engine.client(["pull", "--quiet", entry.source], timeout=PULL_WITHIN_S)
        except BundleError as error:
            told = f" ({error.problems[0].message.splitlines()[-1].strip()})"
        facts = store.inspect(work.engine, entry.source)
    where = f"extras.images: {entry.name}"
    if facts is None:
        message = say(
            f"the engine has no image {entry.source}{told}",
            f"엔진에 이미지 {entry.source}이(가) 없습니다{told}",
        )
        hint = say(
            "Build or pull it first, or name it with its digest: REGISTRY/NAME@sha256:…",
            "먼저 빌드하거나 받으십시오. 또는 다이제스트로 쓰십시오: REGISTRY/NAME@sha256:…",
        )
        work.missing.append(Problem(where=where, message=message, hint=hint))
        return None
    found = f"{facts.get('Os')}/{facts.get('Architecture')}"
    if found != f"linux/{work.arch}":
        message = say(
            f"{entry.source} is for {found}, the bundle for linux/{work.arch}",
            f"{entry.source}은(는) {found}용, 번들은 linux/{work.arch}용입니다",
        )
        hint = say("Build it for that machine.", "그 기계용으로 빌드하십시오.")
        work.missing.append(Problem(where=where, message=message, hint=hint))
        return None
    name, reference = f"{EXTRA_IMAGE}{entry.name}", f"tracking-extra/{entry.name}:{work.version}"
    work.engine.tag(entry.source, reference)
    return work.engine.image(name, reference)


# --- files ------------------------------------------------------------------------------------------------------------


def _files(work: _Gathering, entry: Named) -> dict[str, Path]:
    """Each file of one entry by its member's path."""
    top = work.folder / Path(entry.source).expanduser()
    base, key = f"extras/files/{entry.label}", f"files: {entry.label}"
    found: dict[str, Path] = {}
    try:
        for path in _walk(top):
            inner = path.relative_to(top).as_posix() if path != top else path.name
            if wrong := _unfit(path, f"{base}/{inner}"):
                hint = say("Carry plain files only.", "일반 파일만 실을 수 있습니다.")
                work.refuse(key, f"{path}: {wrong}", hint)
            elif len(found) >= MAX_FILES:
                raise OSError(
                    0, say(f"more than {MAX_FILES} files", f"파일이 {MAX_FILES}개를 넘습니다")
                )
            else:
                found[f"{base}/{inner}"] = path
    except OSError as error:
        hint = say(
            "Give a file or folder that can be read.", "읽을 수 있는 파일이나 폴더를 쓰십시오."
        )
        work.refuse(key, f"{error.filename or top}: {error.strerror}", hint)
        return {}
    if not found and not any(problem.where == f"extras.{key}" for problem in work.wrong):
        hint = say("Name what has content.", "내용이 있는 것을 쓰십시오.")
        work.refuse(key, say(f"{top} has no file in it", f"{top}에 파일이 없습니다"), hint)
    return found


def _walk(top: Path) -> Iterator[Path]:
    """`top` itself, or all that is in it, in the order of names; links are not followed.

    Raises OSError when a folder cannot be read.
    """
    if not stat.S_ISDIR(top.lstat().st_mode):
        yield top
        return
    with os.scandir(top) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield from _walk(Path(entry.path))


def _unfit(path: Path, member: str) -> str:
    """Why a file cannot be sealed as `member`; empty when it can."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return say(
            "is a symbolic link (a model cache: copy it with cp -rL)",
            "심볼릭 링크입니다 (모델 캐시는 cp -rL로 복사하십시오)",
        )
    if not stat.S_ISREG(status.st_mode):
        return say("is no plain file", "일반 파일이 아닙니다")
    if not os.access(path, os.R_OK):
        return say("cannot be read", "읽을 수 없습니다")
    if not member.isprintable() or "\\" in member:
        return say(
            f"the name {path.name!r} has a control character or a backslash",
            f"이름 {path.name!r}에 제어 문자나 역슬래시가 있습니다",
        )
    try:
        unseal.header(member, status.st_size, 0o644, 0)
    except (ValueError, UnicodeEncodeError):
        return say(
            f"the path {member!r} or its size ({status.st_size:,} bytes; at most 8 GiB) is too long",
            f"경로 {member!r}이(가) 길거나 크기({status.st_size:,}바이트, 최대 8 GiB)가 너무 큽니다",
        )
    return ""


def _check_room(work: _Gathering, members: Mapping[str, Path]) -> None:
    size, limit = sum(path.stat().st_size for path in members.values()), work.config.extras_limit_mb
    if size > limit * 1_000_000:
        message = say(
            f"files and wheels have {size / 1e6:,.0f} MB, the limit is {limit:,}",
            f"파일과 휠이 {size / 1e6:,.0f} MB인데 한도는 {limit:,}입니다",
        )
        hint = say("Name less, or raise the limit.", "줄이거나 한도를 올리십시오.")
        work.refuse("limit_mb", message, hint)


# --- wheels -----------------------------------------------------------------------------------------------------------


def _wheels(work: _Gathering) -> dict[str, Path]:
    """Each wheel by its file name."""
    found: dict[str, Path] = {}
    for entry in work.config.extras_wheels:
        path = work.folder / Path(entry).expanduser()
        group = sorted(path.glob("*.whl")) if path.is_dir() else [path]
        if not group:
            hint = say(
                "Give wheels: pip download -d FOLDER ….", "휠을 쓰십시오: pip download -d FOLDER …"
            )
            work.refuse("wheels", say(f"{path} holds no wheel", f"{path}에 휠이 없습니다"), hint)
        for wheel in group:
            wrong = wheel_problem(wheel)
            if not wrong and wheel.name in found and not _same(found[wheel.name], wheel):
                wrong = say(f"another {wheel.name} is there", f"다른 {wheel.name}이(가) 있습니다")
            if wrong:
                hint = say("Fetch or build that wheel again.", "그 휠을 다시 받거나 빌드하십시오.")
                work.refuse("wheels", f"{wheel}: {wrong}", hint)
            else:
                found[wheel.name] = wheel
    return found


def _same(one: Path, other: Path) -> bool:
    return hash_of(one) == hash_of(other)


def hash_of(path: Path) -> str:
    """The sha256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def wheel_problem(path: Path) -> str:
    """Why the file is no sound wheel: its name, or a file in it that RECORD does not account for; empty when it is."""
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        if wrong := _unfit(path, f"extras/wheels/{path.name}"):
            return wrong
        with zipfile.ZipFile(path) as wheel:
            inner = [info for info in wheel.infolist() if not info.is_dir()]
            homes = {
                info.filename.split("/")[0] for info in inner if ".dist-info/" in info.filename
            }
            home = next(iter(homes)) if len(homes) == 1 else ""
            project, _, number = home.removesuffix(".dist-info").partition("-")
            if canonicalize_name(project) != name or number.replace("_", "-") != str(version):
                return say(
                    f"its name is not that of {home or 'its metadata'}",
                    "파일 이름이 내용과 다릅니다",
                )
            record = wheel.read(f"{home}/RECORD").decode("utf-8")
            return _record_problem(wheel, inner, home, record)
    except InvalidWheelFilename:
        return say("is not named as a wheel", "휠 이름 형식이 아닙니다")
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError, ValueError) as error:
        return say(f"is no wheel: {error}", f"휠이 아닙니다: {error}")


def _record_problem(
    wheel: zipfile.ZipFile, inner: list[zipfile.ZipInfo], home: str, record: str
) -> str:
    pinned = {row[0]: row[1] for row in csv.reader(io.StringIO(record)) if len(row) == 3}
    unpinned = {f"{home}/RECORD", f"{home}/RECORD.jws", f"{home}/RECORD.p7s"}
    names = {info.filename for info in inner} - unpinned
    if odd := sorted(names ^ (set(pinned) - unpinned)):
        return say(f"RECORD and content differ: {odd[0]}", f"RECORD와 내용이 다릅니다: {odd[0]}")
    for name in sorted(names):
        kind, _, wanted = pinned[name].partition("=")
        if kind not in ("sha256", "sha384", "sha512"):
            return say(
                f"{name} has no sound digest in RECORD", f"RECORD에 {name}의 다이제스트가 없습니다"
            )
        digest = hashlib.new(kind)
        with wheel.open(name) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
        if base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() != wanted:
            return say(f"{name} is not what RECORD says", f"{name}이(가) RECORD와 다릅니다")
    return ""


# --- finds that somebody has looked at --------------------------------------------------------------------------------


def _reviewed(work: _Gathering) -> Path | None:
    if not work.config.extras_allowed:
        return None
    path = work.folder / Path(work.config.extras_allowed).expanduser()
    try:
        leaks.read_allowed(path)
    except ConfigError as error:
        work.wrong += error.problems
    return path


# --- fragment ---------------------------------------------------------------------------------------------------------


def _fragment(work: _Gathering) -> Path | None:
    """The compose fragment's file, its rules checked."""
    if not work.config.extras_compose:
        return None
    path = work.folder / Path(work.config.extras_compose).expanduser()
    try:
        fragment.parse(
            path.read_bytes(),
            str(path),
            images=[entry.label for entry in work.config.extras_images],
            files=[entry.label for entry in work.config.extras_files],
        )
    except OSError as error:
        hint = say("Give a file that can be read.", "읽을 수 있는 파일을 쓰십시오.")
        work.refuse("compose", f"{path}: {error.strerror}", hint)
    except ConfigError as error:
        work.wrong += error.problems
    return path
