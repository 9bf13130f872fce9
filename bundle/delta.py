"""What a delta may leave out: the closed side's inventory as a value, its file, and what follows from the two.

Pure. A graph driver knows a layer by the chain of diffIDs below it, so the same layer on another base is not there; the
containerd store and a registry know a blob by its digest. What is not certain to be there counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from bundle.errors import ConfigError, Problem
from bundle.manifest import EXTRA, PRODUCT, Base, Manifest, Member, Need, SealedImage, blob_path
from bundle.words import say

FORMAT = 1
KIND = "inventory"
LARGEST = 16 << 20
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
FIRST = tuple(f"small/bundle/{name}.py" for name in ("arrive", "kept", "parts", "unpack", "unseal"))
Store = Literal["graphdriver", "containerd", "registry"]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer that is there; `digest` is that of its compressed blob, empty where the closed side cannot know it."""

    diff_id: str
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One of the tool's wheels that is there."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What is on the closed side: the layers of each image, base first, and wheels; no name of an image or a host.

    `small` are files of the small part, by their paths in a bundle; `files` are the digests of the site's own files;
    `sha256` is that of the file that it was read from.
    """

    version: str
    arch: str
    store: Store
    images: tuple[tuple[Layer, ...], ...] = ()
    wheels: tuple[Wheel, ...] = ()
    small: tuple[Need, ...] = ()
    files: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def mark(self) -> Base:
        """How a delta names this inventory."""
        return Base(version=self.version, store=self.store, inventory=self.sha256)

    @cached_property
    def chains(self) -> frozenset[tuple[str, ...]]:
        """Every chain of diffIDs that is there."""
        lists = [tuple(layer.diff_id for layer in image) for image in self.images]
        return frozenset(ids[: n + 1] for ids in lists for n in range(len(ids)))

    @cached_property
    def blobs(self) -> frozenset[str]:
        """The digest of every compressed layer that is there."""
        return frozenset(layer.digest for image in self.images for layer in image if layer.digest)

    def has(self, image: SealedImage, index: int) -> bool:
        """Whether the layer `index` of `image` is there, as this kind of store tells layers apart."""
        if self.store == "graphdriver":
            return image.diff_ids[: index + 1] in self.chains
        return image.layers[index] in self.blobs


def present(inventory: Inventory, images: Iterable[SealedImage]) -> frozenset[str]:
    """The layers of `images` that need not be sent: each is there wherever one of `images` has it."""
    found: dict[str, bool] = {}
    for image in images:
        for index, digest in enumerate(image.layers):
            found[digest] = found.get(digest, True) and inventory.has(image, index)
    return frozenset(digest for digest, here in found.items() if here)


def room(manifest: Manifest, inventory: Inventory, images: Iterable[SealedImage]) -> int:
    """The bytes that an engine with `inventory` needs for `images`: each layer once, as it travels and unpacked.

    A graph driver keeps what travels until it is unpacked, the containerd store keeps it for good.
    """
    travels: dict[str, int] = {}
    unpacked: dict[tuple[str, ...], int] = {}
    for image in images:
        for index, (digest, chain) in enumerate(zip(image.layers, image.chains, strict=True)):
            if not inventory.has(image, index):
                travels[digest] = manifest.size_of(digest)
            if chain not in inventory.chains:
                unpacked[chain] = image.unpacked[index]
    return sum(travels.values()) + sum(unpacked.values())


def left_out(
    inventory: Inventory, images: Iterable[SealedImage], parts: Iterable[Member]
) -> set[str]:
    """The paths of those of `parts` that a delta for `images` need not carry."""
    layers = {blob_path(digest) for digest in present(inventory, images)}
    there = {"wheels/": {wheel.sha256 for wheel in inventory.wheels}, EXTRA: set(inventory.files)}
    small = {(file.path, file.sha256) for file in inventory.small}
    left = {part.path for part in parts if part.path in layers}
    left |= {
        part.path
        for part in parts
        for prefix, digests in there.items()
        if part.path.startswith(prefix) and part.sha256 in digests
    }
    # A need has no mode; and what the check itself runs must be in the file.
    plain = (part for part in parts if part.mode == 0o644 and part.path not in FIRST)
    return left | {part.path for part in plain if (part.path, part.sha256) in small}


def gone(manifest: Manifest, inventory: Inventory, images: Sequence[SealedImage]) -> list[str]:
    """What `manifest` needs for `images`, does not carry and is not there: the members' paths."""
    here = present(inventory, images)
    layers = {blob_path(digest) for image in images for digest in set(image.layers) - here}
    return sorted(need.path for need in manifest.needs if need.path in layers)


def gone_files(manifest: Manifest, inventory: Inventory) -> list[str]:
    """The site's own files that `manifest` needs, does not carry and are not there: the members' paths."""
    needs = (need for need in manifest.needs if need.path.startswith(EXTRA))
    return sorted(need.path for need in needs if need.sha256 not in inventory.files)


def refusal(base: str, gone: Sequence[str], request: Path | str = "inventory.json") -> Problem:
    """Why a delta on the release `base` cannot be used here, and what to do: `gone` is asked for in `request`."""
    names = "\n".join(f"  | {path}" for path in gone)
    return Problem(
        where="base",
        message=say(
            f"the bundle is a delta on {base}, and {len(gone)} layers or files that it needs are not here\n{names}",
            f"번들은 {base}의 델타인데 필요한 레이어나 파일 {len(gone)}개가 여기에 없습니다\n{names}",
        ),
        hint=say(
            f"Bring the full bundle, or a delta made with: invoke bundle --base {request}",
            f"전체 번들을 반입하거나 다음으로 만든 델타를 반입하십시오: invoke bundle --base {request}",
        ),
    )


def dump(inventory: Inventory, gone: Sequence[str] = ()) -> bytes:
    """The inventory's file; with `gone` it is a request that says what it asks for."""
    data: dict[str, Any] = {"format": FORMAT, "product": PRODUCT, "kind": KIND}
    data |= {key: getattr(inventory, key) for key in ("version", "arch", "store")}
    data |= {"gone": list(gone)} if gone else {}
    data["images"] = [
        [{"diff_id": layer.diff_id, "digest": layer.digest} for layer in image]
        for image in inventory.images
    ]
    data["wheels"] = [
        {"name": wheel.name, "sha256": wheel.sha256, "size": wheel.size}
        for wheel in inventory.wheels
    ]
    data["small"] = [asdict(file) for file in inventory.small]
    data["files"] = list(inventory.files)
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode()


def parse(raw: bytes, where: str) -> Inventory:
    """The inventory that the file `where` holds.

    Raises ConfigError when it is not one that this tool can read.
    """
    again = say(
        "Make it on the closed side: invoke inventory --out FILE.",
        "폐쇄망 쪽에서 만드십시오: invoke inventory --out FILE.",
    )
    try:
        data = json.loads(raw) if len(raw) <= LARGEST else None
    except (ValueError, RecursionError) as error:
        message = say(f"not JSON: {error}", f"JSON이 아닙니다: {error}")
        raise ConfigError(message, where=where, hint=again) from error
    try:
        return _from_dict(_checked(data, where, again), hashlib.sha256(raw).hexdigest())
    except (KeyError, TypeError, ValueError) as error:
        message = say(f"is no sound inventory: {error}", f"올바른 목록이 아닙니다: {error}")
        raise ConfigError(message, where=where, hint=again) from error


def _checked(data: Any, where: str, again: str) -> dict[str, Any]:
    if (
        not isinstance(data, dict)
        or data.get("product") != PRODUCT
        or data.get("kind", KIND) != KIND
    ):
        message = say(
            f"is not an inventory of {PRODUCT}", f"{PRODUCT}의 목록(inventory)이 아닙니다"
        )
        raise ConfigError(message, where=where, hint=again)
    form = data.get("format")
    if type(form) is int and form > FORMAT:
        message = say(
            f"has format {form}, this tool reads up to {FORMAT}",
            f"형식이 {form}인데 이 도구는 {FORMAT}까지 읽습니다",
        )
        hint = say(
            "The closed side is newer than this checkout: make the bundle with a newer one.",
            "폐쇄망 쪽이 더 새롭습니다. 더 새로운 체크아웃으로 번들을 만드십시오.",
        )
        raise ConfigError(message, where=where, hint=hint)
    if form != FORMAT or isinstance(form, bool):
        raise ConfigError(say("has no format", "형식이 없습니다"), where=where, hint=again)
    return data


def _from_dict(data: dict[str, Any], digest: str) -> Inventory:
    if data["store"] not in get_args(Store):
        raise ValueError(f"store {data['store']!r}")
    if not isinstance(data["arch"], str) or not VERSION.fullmatch(data["version"]):
        raise ValueError("arch or version")
    images = tuple(tuple(map(_layer, image)) for image in data["images"])
    return Inventory(
        version=data["version"],
        arch=data["arch"],
        store=data["store"],
        images=images,
        wheels=tuple(map(_wheel, data["wheels"])),
        small=tuple(map(_small, data.get("small", []))),
        files=tuple(map(_file, data.get("files", []))),
        sha256=digest,
    )


def _layer(data: dict[str, Any]) -> Layer:
    diff_id, digest = data["diff_id"], data["digest"]
    if not DIGEST.fullmatch(diff_id) or not (digest == "" or DIGEST.fullmatch(digest)):
        raise ValueError(f"layer {diff_id!r} {digest!r}")
    return Layer(diff_id=diff_id, digest=digest)


def _wheel(data: dict[str, Any]) -> Wheel:
    name, digest, size = data["name"], data["sha256"], data["size"]
    if (
        not isinstance(name, str)
        or not DIGEST.fullmatch(f"sha256:{digest}")
        or type(size) is not int
    ):
        raise ValueError(f"wheel {name!r}")
    return Wheel(name=name, sha256=digest, size=size)


def _small(data: dict[str, Any]) -> Need:
    file = Need(path=data["path"], size=data["size"], sha256=data["sha256"])
    if not file.path.startswith("small/") or not DIGEST.fullmatch(f"sha256:{file.sha256}"):
        raise ValueError(f"file {file.path!r}")
    return file


def _file(digest: Any) -> str:
    if not isinstance(digest, str) or not DIGEST.fullmatch(f"sha256:{digest}"):
        raise ValueError(f"file {digest!r}")
    return digest


def check_fits(inventory: Inventory, arch: str, where: str) -> None:
    """See that a bundle for `arch` can stand on `inventory`.

    Raises ConfigError when it is of another architecture.
    """
    if inventory.arch != arch:
        message = say(
            f"is of a {inventory.arch} host, this bundle is for {arch}",
            f"{inventory.arch} 호스트의 목록인데 이 번들은 {arch}용입니다",
        )
        hint = say(
            f"Make the delta on a {inventory.arch} host.",
            f"{inventory.arch} 호스트에서 델타를 만드십시오.",
        )
        raise ConfigError(message, where=where, hint=hint)
