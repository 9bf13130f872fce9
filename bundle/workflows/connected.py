"""What each task does on the connected host, as a list of named steps: reading this is reading half of the product."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from bundle import (
    __version__,
    blobs,
    carry,
    config,
    cutting,
    delta,
    extras,
    images,
    keys,
    lock,
    packing,
    recipes,
    rehearse,
    room,
    seal,
)
from bundle import advisories as known_vulnerabilities
from bundle.checks.stage import EXPERIMENT
from bundle.console import ask_secret, table
from bundle.engine import Engine
from bundle.errors import ConfigError
from bundle.manifest import PRODUCT
from bundle.model import Image
from bundle.run import log, step
from bundle.sources import Companion
from bundle.trust import fingerprint_of
from bundle.words import say
from bundle.workflows import documents

SIGN_KEY = "sign.key"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked of `invoke bundle`, by its options."""

    settings: str = ""
    out: Path = Path("dist")
    sign_key: str = ""
    base: str = ""
    advisories: str = ""
    sizes: bool = False
    old_key: str = ""
    split: str = ""
    parts: str = ""


def make_bundle(here: Path, order: Order) -> str:
    """Make the sealed bundle, or with `base` the delta; returns the last line: its sha256 and its path."""
    start = time.monotonic()
    conf = config.read_bundle(Path(order.settings) if order.settings else None)
    with blobs.held(conf.cache):
        sealed, companion, rows = seal_all(here, order, conf)
    blobs.clean(conf.cache, max(blobs.LARGEST, 2 * sealed.size))
    log.info("%s", report(sealed, time.monotonic() - start, companion, rows))
    return f"{sealed.sha256}  {sealed.path}"


def seal_all(
    here: Path, order: Order, conf: config.BundleConfig
) -> tuple[seal.Sealed, Companion, Path | None]:
    """Build, pack and seal what `order` asks for; the file, its companion, and the table of sizes if one is wanted."""
    known_vulnerabilities.check(order.advisories)
    key, form = signing_key(order.sign_key, order.old_key), file_form(order.split, order.parts)
    engine = Engine()
    arch = engine.api.version()["Arch"]
    inventory = read_inventory(Path(order.base), arch) if order.base else None
    with step(say("extras of the site", "사이트 추가 항목")):
        folder = Path(order.settings or "bundle.toml").parent
        more, added = extras.gather(conf, folder, engine, arch=arch, version=__version__)
    with step(say("images, from locked inputs", "이미지 (잠긴 입력에서)")):
        built = images.build_all(conf, engine, here)
    with step(say("layers, compressed once", "레이어 (한 번만 압축)")):
        packed = pack(here, conf, engine, built, more)
    with step(say("wheels of this tool for every Python", "각 파이썬용 도구 휠")):
        wheels = carry.collect(here / "requirements" / "tool.lock", conf.cache, arch)
    desk = documents.open_desk(conf, engine, here, __version__, created(here))
    papers = documents.make(desk, packed, wheels, order.advisories, order.out, added.members)
    with step(say("last look, and seal", "마지막 검사와 봉인")):
        sealed = seal.write_bundle(
            out=order.out,
            top=here,
            version=__version__,
            arch=arch,
            created=desk.created,
            images=packed,
            wheels=wheels,
            key=key,
            form=form,
            base=inventory,
            added=added,
            small={**seal.small_files(here), **papers.files},
            inspect=documents.last_look(desk, key, papers.inventory, added.reviewed),
        )
    rows = room.write(sealed.path.with_suffix(".sizes.txt"), packed) if order.sizes else None
    return sealed, papers.companion, rows


def signing_key(given: str, old: str) -> seal.SealKey:
    """The key in the file `given`, which follows the one in `old`; without one this host's own, made on first use."""
    path = Path(given) if given else config.config_folder() / SIGN_KEY
    key = keys.load_key(path, make=not given, ask=passphrase)
    follows = keys.load_key(Path(old), ask=passphrase) if old else None
    return dataclasses.replace(key, follows=follows)


def passphrase(key: Path) -> bytes | None:
    """The passphrase of the file `key`, from where the operator left it; of a key that is there it is asked for."""
    what = say(f"passphrase of {key}", f"{key}의 암호")
    return config.sign_passphrase() or (ask_secret(what) if key.exists() else None)


def file_form(split: str, parts: str) -> cutting.Form:
    """The form of the file that the options ask for.

    Raises ConfigError.
    """
    if split and parts:
        message = say(
            "--split and --parts exclude one another", "--split와 --parts는 함께 쓸 수 없습니다"
        )
        hint = say(
            "The request for parts names their size.", "파트 요청 파일에 크기가 들어 있습니다."
        )
        raise ConfigError(message, hint=hint)
    if parts:
        return cutting.read_request(Path(parts))
    return cutting.Form(split=cutting.parse_size(split) if split else 0)


def pack(
    here: Path,
    conf: config.BundleConfig,
    engine: Engine,
    built: Sequence[Image],
    more: Sequence[Image] = (),
) -> tuple[packing.PackedImage, ...]:
    """The blobs of the images that were `built` here, called as the services run them, and `more` of the site's own."""
    level = conf.compression_level
    packed = packing.export_blobs(
        built,
        engine,
        conf.cache,
        level,
        epoch=recipes.read_recipes(here).epoch,
        names={image.name: f"{PRODUCT}/{image.name}:{__version__}" for image in built},
    )
    return packed + packing.export_blobs(more, engine, conf.cache, level, below=packed)


def read_inventory(path: Path, arch: str) -> delta.Inventory:
    """The closed side's inventory in the file `path`, for a bundle for `arch`.

    Raises ConfigError when it is none, or of another product or architecture, or newer than this tool.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        message = say(f"cannot be read: {error.strerror}", f"읽을 수 없습니다: {error.strerror}")
        hint = say(
            "Give the file that invoke inventory wrote on the closed side.",
            "폐쇄망 쪽에서 invoke inventory가 쓴 파일을 지정하십시오.",
        )
        raise ConfigError(message, where=str(path), hint=hint) from error
    inventory = delta.parse(raw, str(path))
    delta.check_fits(inventory, arch, str(path))
    return inventory


def created(here: Path) -> int:
    """The moment that a bundle bears: SOURCE_DATE_EPOCH, else the last commit, else now; seconds."""
    given = config.source_date_epoch()
    if given is not None:
        return given
    return seal.commit_date(here) if (here / ".git").exists() else int(time.time())


def report(sealed: seal.Sealed, seconds: float, companion: Companion, more: Path | None) -> str:
    """The closing tables: what takes the room; then the files, and which way each goes."""
    parts = [(name, _mb(size)) for name, size in sealed.sizes.items()]
    files = [
        *((part.name, _mb(part.size), f"{seconds:.1f} s", part.sha256) for part in sealed.parts),
        (companion.path.name, _mb(companion.size), "", companion.sha256),
    ]
    others = filter(None, (sealed.trust, more))
    files += [(p.name, _mb(p.stat().st_size), "", recipes.file_digest(p)) for p in others]
    head = (say("file", "파일"), say("size", "크기"), say("took", "걸린 시간"), "sha256")
    return "\n".join(
        [
            table((say("part", "부분"), say("size", "크기")), parts),
            "",
            table(head, files),
            "",
            f"{say('carry', '반입')}: {sealed.path}",
            f"{say('send another way (paper, ticket)', '다른 경로로 전달 (종이, 티켓)')}: {sealed.trust}",
            f"{say('sources of MinIO, pass them on too', 'MinIO 소스, 함께 전달')}: {companion.path}",
            f"{say('key fingerprint', '키 지문')}: {sealed.fingerprint}",
        ]
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


def relock(here: Path, *, settings: str, upgrade: str, gone: bool) -> str:
    """Refresh the locked inputs, or with `gone` only what the mirror lost; returns what changed."""
    conf = config.read_bundle(Path(settings) if settings else None)
    if gone:
        return lock.replace_gone(conf, Engine().api.version()["Arch"], here)
    return lock.relock(conf, Engine(), here, [upgrade] if upgrade else [])


def newest_bundle(folder: Path) -> Path:
    """The newest sealed file in `folder` that stands by itself.

    Raises ConfigError when there is none.
    """
    files = [
        path
        for path in (*folder.glob("tracking-bundle-*.tar"), *folder.glob("tracking-bundle-*.001"))
        if "-delta-" not in path.name and not path.stem.endswith("-sources")
    ]
    found = sorted(files, key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError("there is no bundle", where=str(folder), hint="Run invoke bundle first.")
    return found[-1]


def rehearsal(here: Path, *, bundle: str, fingerprint: str, keep: bool, browser: bool) -> str:
    """Install and verify a bundle on a disposable closed host; returns the table of what was done."""
    path = Path(bundle) if bundle else newest_bundle(here / "dist")
    conf = config.read_bundle(None)
    rows = rehearse.rehearse(
        rehearse.Rehearsal(
            bundle=path.resolve(),
            fingerprint=fingerprint or fingerprint_of(path),
            folder=conf.cache / "rehearsal",
            cache=conf.cache,
            reports=here / "dist" / "rehearsal",
            mirror=conf.mirrors_debian,
            keep=keep,
            browser=browser,
            experiment=EXPERIMENT,
        )
    )
    head = (say("step", "단계"), say("seconds", "초"), say("found", "결과"))
    return table(head, [(row.step, f"{row.seconds:.1f}", row.found) for row in rows])
