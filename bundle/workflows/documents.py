"""What travels beside the images, as steps: inventory, documents, the companion with the sources, the last look."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle import (
    advisories,
    hostfacts,
    images,
    leaks,
    modules,
    notices,
    provenance,
    sbom,
    scan,
    seal,
    sources,
    supply,
)
from bundle.components import Inventory, parse_go_sum
from bundle.config import BundleConfig, config_folder
from bundle.engine import Engine
from bundle.manifest import PRODUCT
from bundle.packing import PackedImage
from bundle.recipes import file_digest, tree
from bundle.run import step
from bundle.sources import Companion
from bundle.words import say

FOLDER = "small/release"
LOCKS = ("apt.lock", "requirements.lock", "go.mod", "go.sum")
AUTHORITIES = "ca-certificates"
GO_BUILD = "minio"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where the documents are made: the source tree, the configuration, the inputs of the images."""

    here: Path
    config: BundleConfig
    inputs: supply.Inputs
    version: str
    created: int


@dataclass(frozen=True, kw_only=True)
class Papers:
    """What was made: documents of the small part by path, the companion beside the bundle, and what they are about."""

    inventory: Inventory
    files: Mapping[str, bytes]
    companion: Companion


def open_desk(config: BundleConfig, engine: Engine, here: Path, version: str, created: int) -> Desk:
    """The desk for one bundle."""
    workshop = images.open_workshop(config, engine, here)
    store = modules.Store(root=config.cache / "modules")

    def fetch_modules(wanted: Sequence[modules.Wanted]) -> None:
        setting = images.go_settings().get("GOPROXY", "")
        modules.fetch(wanted, store, setting, images.authorities)

    inputs = supply.Inputs(
        recipes=workshop.recipes,
        arch=workshop.arch,
        cache=config.cache,
        registry=config.base_source == "registry",
        fetch_debs=workshop.fetch_debs,
        fetch_wheels=workshop.fetch_wheels,
        fetch_modules=fetch_modules,
    )
    return Desk(here=here, config=config, inputs=inputs, version=version, created=created)


def make(
    desk: Desk,
    packed: Sequence[PackedImage],
    wheels: Mapping[str, Sequence[Path]],
    database: str,
    out: Path,
    added: Mapping[str, Path],
) -> Papers:
    """The documents for the small part by path, and the companion file, written into `out`.

    `added` are the members that the site added.
    """
    site = [path for name, path in sorted(added.items()) if name.startswith("extras/wheels/")]
    with step(say("inventory of all components", "구성 요소 목록")):
        inventory = take_inventory(desk, packed, wheels, site)
        files = write_documents(desk, inventory, database)
    with step(say("sources of MinIO, for the companion file", "MinIO 소스 (동반 파일)")):
        companion = write_sources(desk, inventory, out)
    return Papers(inventory=inventory, files=files, companion=companion)


def take_inventory(
    desk: Desk,
    packed: Sequence[PackedImage],
    wheels: Mapping[str, Sequence[Path]],
    site: Sequence[Path] = (),
) -> Inventory:
    """Everything that the images and the tool are made of, and the site's wheels."""
    return supply.gather(
        desk.inputs, packed, wheels, version=desk.version, created=desk.created, site=site
    )


def sources_name(inventory: Inventory) -> str:
    """What the companion file is called."""
    return f"tracking-bundle-{inventory.version}-{inventory.arch}-sources"


def write_documents(desk: Desk, inventory: Inventory, database: str) -> dict[str, bytes]:
    """The documents that travel in the small part, by path.

    Raises ConfigError when the advisory database `database` (empty: none) is none.
    """
    shelf = desk.inputs.shelf
    product = f"tracking-bundle {inventory.version} ({inventory.arch})"
    known = advisories.look_up(inventory, Path(database)) if database else (None, ())
    found = advisories.report(inventory, *known)
    made = {
        "sbom.spdx.json.gz": _packed(sbom.dump(sbom.spdx(inventory))),
        "sbom.cdx.json.gz": _packed(sbom.dump(sbom.cyclonedx(inventory))),
        "licences.tar.xz": shelf.made(
            f"{notices.archive_key(inventory)}.tar.xz",
            lambda: notices.archive(inventory, shelf.read),
        ),
        "NOTICE.md": notices.notice(inventory, product, f"{sources_name(inventory)}.tar").encode(),
        "vulnerabilities.json": provenance.dump(found),
        "vulnerabilities.md": advisories.page(found).encode(),
    }
    statement = provenance.statement(
        inventory,
        parameters=parameters(desk.config, desk.version),
        locks=locks(desk.here),
        documents={name: hashlib.sha256(data).hexdigest() for name, data in made.items()},
    )
    made["provenance.json"] = provenance.dump(statement)
    return {f"{FOLDER}/{name}": data for name, data in sorted(made.items())}


def _packed(data: bytes) -> bytes:
    """gzip without a name or a time: the bills repeat themselves, and a delta carries them each time."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def parameters(config: BundleConfig, version: str) -> dict[str, str | int]:
    """What the operator chose that shapes the images; mirrors and folders of the host are left out."""
    return {
        "version": version,
        "base.source": config.base_source,
        "base.image": config.base_image,
        "compression.level": config.compression_level,
    }


def locks(here: Path) -> dict[str, str]:
    """The sha256 of every lock, and one over all recipes and one over the tool, by path in the source tree."""
    files = sorted(path for name in LOCKS for path in (here / "images").glob(f"*/{name}"))
    files.append(here / "requirements" / "tool.lock")
    found = {path.relative_to(here).as_posix(): file_digest(path) for path in files}
    for folder in ("images", "bundle"):
        digests = "".join(
            f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in tree(here / folder)
        )
        found[f"{folder}/"] = hashlib.sha256(digests.encode()).hexdigest()
    return found


def write_sources(desk: Desk, inventory: Inventory, out: Path) -> Companion:
    """The companion file with the corresponding source of the Go build."""
    recipe = desk.inputs.recipes.all[GO_BUILD].folder
    wanted = modules.locked(*parse_go_sum(desk.inputs.go_sum(GO_BUILD)))
    found = sources.parts(recipe, wanted, desk.inputs.store, inventory.version, inventory.arch)
    notes = desk.inputs.cache / "sources"
    return sources.write(out, notes, sources_name(inventory), found, desk.created)


def last_look(
    desk: Desk, key: seal.SealKey, inventory: Inventory, reviewed: Path | None = None
) -> Callable[[list[seal.Source]], list[seal.Source]]:
    """The scan of all that is about to be sealed, which gives back what it was given, or raises.

    `reviewed` is the site's own list of finds that somebody has looked at.
    """
    recipes = desk.inputs.recipes
    debs = {
        deb for name in recipes.all for deb in recipes.packages(name) if deb.name == AUTHORITIES
    }
    scalar = key.private.private_numbers().private_value.to_bytes(32, "big")
    host = hostfacts.gather(
        trusted=images.authorities(),
        packages=desk.inputs.fetch_debs(sorted(debs)).values(),
        paths=(desk.here, desk.config.cache, config_folder()),
        public=(*inventory.images, *(c.name for c in inventory.components), PRODUCT),
        scalar=scalar,
    )
    rules, allowed = leaks.rules(host), leaks.read_allowed(desk.here / "leaks" / "allowed.toml")
    allowed += leaks.read_allowed(reviewed) if reviewed else ()

    def look(found: list[seal.Source]) -> list[seal.Source]:
        travelling = [
            scan.Travelling(
                path=one.member.path,
                size=one.member.size,
                sha256=one.member.sha256,
                content=one.content,
            )
            for one in found
        ]
        scan.scan(travelling, rules, allowed, desk.config.cache / "scans")
        return found

    return look
