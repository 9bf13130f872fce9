"""What the images are made of: images/ as frozen values, and the key that names an image's content.

The only reader of images/. Everything here is decided from the files alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.config import read_table
from bundle.errors import BundleError

WHEEL_LAYERS = ("first", "rest", "last")  # the lowest first
PATCHES = "patches/"
TOOLS = "tools"  # the folder of what every build may use; it has a lock of its own


@dataclass(frozen=True, kw_only=True, order=True)
class Deb:
    """One locked Debian package file."""

    name: str
    version: str
    arch: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The name under which apt stores it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.arch}.deb"

    @property
    def line(self) -> str:
        """Its line in the lock."""
        return f"{self.name} {self.version} {self.arch} {self.size} {self.sha256}"


@dataclass(frozen=True, kw_only=True, order=True)
class Pin:
    """One locked Python requirement with the digests of the files that may satisfy it."""

    name: str
    version: str
    digests: tuple[str, ...]

    @property
    def text(self) -> str:
        """The requirement in pip's form."""
        lines = [
            f"{self.name}=={self.version}",
            *(f"    --hash=sha256:{digest}" for digest in self.digests),
        ]
        return " \\\n".join(lines) + "\n"


def parse_debs(text: str, where: str = "") -> tuple[Deb, ...]:
    """The packages of a lock, one a line: name version arch size sha256.

    Raises BundleError when a line is not of that form.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\S+) (\S+) (\S+) (\d+) ([0-9a-f]{64})", line)
        if match is None:
            raise BundleError(
                "not a line of a package lock", where=f"{where}:{number}", hint="Run invoke lock."
            )
        name, version, arch, size, sha256 = match.groups()
        found.append(Deb(name=name, version=version, arch=arch, size=int(size), sha256=sha256))
    return tuple(found)


def parse_pins(text: str, where: str = "") -> tuple[Pin, ...]:
    """The pins of a lock in pip's hash form.

    Raises BundleError when a requirement has no exact version or no digest.
    """
    pins = []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not entry.strip():
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", entry)
        digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
        if match is None or not digests:
            message = f"not a locked requirement: {entry.strip()[:80]}"
            raise BundleError(message, where=where, hint="Run invoke lock.")
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        pins.append(Pin(name=name, version=match[2], digests=tuple(sorted(digests))))
    return tuple(sorted(pins))


def common(locks: Sequence[Iterable[Pin]], others: Sequence[Iterable[Pin]] = ()) -> tuple[Pin, ...]:
    """The pins that are the same in all of `locks` and that none of `others` has in another version."""
    shared = {pin.name: pin for pin in set.intersection(*(set(lock) for lock in locks))}
    for pin in (pin for lock in others for pin in lock):
        if shared.get(pin.name, pin) != pin:
            del shared[pin.name]
    return tuple(sorted(shared.values()))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one image is made; images.toml says what each field means."""

    name: str
    folder: Path
    parent: str = ""
    uses: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    wheels: bool = False
    package: bool = False
    network: str = "none"
    uid: int = 0

    @property
    def stands_on(self) -> tuple[str, ...]:
        """The images that must be there before this one is built."""
        return (self.parent, *self.uses) if self.parent else self.uses

    @property
    def unused(self) -> tuple[str, ...]:
        """The packages that the build purges again."""
        path = self.folder / "unused"
        return tuple(path.read_text("utf-8").split()) if path.is_file() else ()


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """All recipes, parents before children, and what they have in common."""

    folder: Path
    suite: str
    epoch: int
    all: Mapping[str, Recipe]

    def lineage(self, name: str) -> list[Recipe]:
        """The recipe `name` and those that it stands on, the base first."""
        recipe = self.all[name]
        return [*(self.lineage(recipe.parent) if recipe.parent else []), recipe]

    def packages(self, name: str) -> tuple[Deb, ...]:
        """The packages that `name` adds to its parent."""
        path = self.folder / name / "apt.lock"
        return parse_debs(path.read_text("utf-8"), str(path)) if path.is_file() else ()

    def lock(self, name: str) -> tuple[Pin, ...]:
        """The full Python lock of `name`; empty when it has none."""
        path = self.folder / name / "requirements.lock"
        return parse_pins(path.read_text("utf-8"), str(path)) if path.is_file() else ()

    def patches(self, name: str) -> dict[str, bytes]:
        """The patches that the build of `name` lays over what it fetches, by their place in the recipe."""
        return {
            place: data
            for place, data in tree(self.all[name].folder)
            if place.startswith(PATCHES) and place.endswith(".patch")
        }

    def wheels(self, name: str) -> tuple[Pin, ...]:
        """The wheels that `name` adds to its parent."""
        recipe = self.all[name]
        if recipe.shares:
            heirs = [r.name for r in self.all.values() if r.parent == name and r.wheels]
            others = [self.lock(heir) for heir in heirs if heir not in recipe.shares]
            return common([self.lock(heir) for heir in recipe.shares], others)
        if not recipe.wheels:
            return ()
        there = set(self.wheels(recipe.parent)) if recipe.parent else set()
        return tuple(pin for pin in self.lock(name) if pin not in there)

    def wheel_layers(self, name: str) -> dict[str, tuple[Pin, ...]]:
        """The wheels of `name` by layer, the lowest first; a layer of none is left out.

        Raises BundleError when a wheel that is to have a layer of its own is not among them.
        """
        recipe, pins = self.all[name], self.wheels(name)
        apart = dict.fromkeys(recipe.first, "first") | dict.fromkeys(recipe.last, "last")
        unknown = apart.keys() - {pin.name for pin in pins}
        if unknown:
            message = f"{', '.join(sorted(unknown))}: not among the wheels of {name}"
            raise BundleError(message, where=str(self.folder / "images.toml"))
        found: dict[str, list[Pin]] = {layer: [] for layer in WHEEL_LAYERS}
        for pin in pins:
            found[apart.get(pin.name, "rest")].append(pin)
        return {layer: tuple(group) for layer, group in found.items() if group}


def read_recipes(source: Path) -> Recipes:
    """What images/ under `source` says.

    Raises BundleError when a recipe stands on one that does not come before it.
    """
    folder = source / "images"
    table = read_table(folder / "images.toml")
    found: dict[str, Recipe] = {}
    for name, fields in table["image"].items():
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        found[name] = Recipe(name=name, folder=folder / name, **values)
        missing = [other for other in found[name].stands_on if other not in found]
        if missing:
            where = str(folder / "images.toml")
            raise BundleError(f"{missing[0]} does not come before {name}", where=where)
    return Recipes(folder=folder, suite=table["suite"], epoch=table["epoch"], all=found)


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_key(parts: Iterable[tuple[str, bytes]]) -> str:
    """16 hex digits that change when any named part does."""
    digest = hashlib.sha256()
    for name, data in parts:
        digest.update(f"{len(name)} {name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def tree(folder: Path) -> list[tuple[str, bytes]]:
    """The files under `folder` with their content, sorted; nothing that an interpreter left there."""
    paths = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return sorted((path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths)


def recipe_keys(recipes: Recipes, source: Path, base: Sequence[str]) -> dict[str, str]:
    """The key of every recipe, over its own files, its wheels, the tools, and the keys of what it stands on.

    `base` says where the root file system comes from, and for which machine.
    """
    keys: dict[str, str] = {}
    tools = tree(recipes.folder / TOOLS)
    for name, recipe in recipes.all.items():
        groups = recipes.wheel_layers(name).items()
        pins = "".join(f"{layer}\n{pin.text}" for layer, group in groups for pin in group)
        roots = [*(keys[other] for other in recipe.stands_on), *base]
        constants = f"{recipes.suite} {recipes.epoch} {' '.join(roots)}"
        parts = [*tree(recipe.folder), ("wheels", pins.encode()), ("constants", constants.encode())]
        if recipe.parent:
            parts += tools
        if recipe.package:
            parts += tree(source / "bundle")
        keys[name] = content_key(parts)
    return keys
