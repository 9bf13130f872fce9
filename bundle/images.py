"""The images: what each is made of, the key that names its content, and building those that are not there yet.

The only reader of images/. A build never resolves anything: its inputs are the locked files there, fetched into the
cache by the host's own apt and pip and checked against the locks before a build sees them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import debs, wheels
from bundle.config import BundleConfig, read_table
from bundle.engine import Build, Engine
from bundle.errors import BundleError, PreconditionError
from bundle.model import Image
from bundle.run import run, step

BUILT = "tracking-build"
PRODUCT = "tracking-bundle"
GO_SETTINGS = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE")
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one image is made; see images.toml for the meaning of each field."""

    name: str
    folder: Path
    parent: str = ""
    uses: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    wheels: bool = False
    package: bool = False
    network: str = "none"
    uid: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """All recipes, parents before children, and what they have in common."""

    folder: Path
    suite: str
    epoch: int
    all: Mapping[str, Recipe]

    def packages_of(self, name: str) -> tuple[debs.Deb, ...]:
        """The packages that `name` adds to its parent."""
        path = self.folder / name / "apt.lock"
        return debs.parse_lock(path.read_text("utf-8"), str(path)) if path.is_file() else ()

    def lock(self, name: str) -> tuple[wheels.Pin, ...]:
        """The full Python lock of `name`."""
        path = self.folder / name / "requirements.lock"
        return wheels.parse_lock(path.read_text("utf-8"), str(path))

    def wheels_of(self, name: str) -> tuple[wheels.Pin, ...]:
        """The wheels that `name` adds to its parent."""
        recipe = self.all[name]
        if recipe.shares:
            heirs = [r.name for r in self.all.values() if r.parent == name and r.wheels]
            others = [self.lock(heir) for heir in heirs if heir not in recipe.shares]
            return wheels.common([self.lock(heir) for heir in recipe.shares], others)
        if not recipe.wheels:
            return ()
        there = set(self.wheels_of(recipe.parent)) if recipe.parent else set()
        return tuple(pin for pin in self.lock(name) if pin not in there)


def read_recipes(source: Path) -> Recipes:
    """What images/ says.

    Raises BundleError when a recipe names a parent or a builder that does not come before it.
    """
    folder = source / "images"
    table = read_table(folder / "images.toml")
    found: dict[str, Recipe] = {}
    for name, fields in table["image"].items():
        recipe = _recipe(name, folder / name, fields)
        for other in (recipe.parent, *recipe.uses):
            if other and other not in found:
                raise BundleError(
                    f"{other} does not come before {name}", where=str(folder / "images.toml")
                )
        found[name] = recipe
    return Recipes(folder=folder, suite=table["suite"], epoch=table["epoch"], all=found)


def _recipe(name: str, folder: Path, fields: Mapping[str, Any]) -> Recipe:
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()
    }
    return Recipe(name=name, folder=folder, **values)


def content_key(parts: Iterable[tuple[str, bytes]]) -> str:
    """16 hex digits that change when any named part does."""
    digest = hashlib.sha256()
    for name, data in parts:
        digest.update(f"{len(name)} {name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def tree(folder: Path) -> list[tuple[str, bytes]]:
    """The files under `folder` with their content, sorted; nothing that an interpreter left there."""
    paths = (
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in sorted(paths)]


def recipe_keys(recipes: Recipes, source: Path, facts: Sequence[str]) -> dict[str, str]:
    """The key of every recipe: its own files, its wheels, the tools, the keys of what it stands on, and `facts`."""
    keys: dict[str, str] = {}
    tools = tree(recipes.folder / "tools")
    for name, recipe in recipes.all.items():
        stands_on = " ".join(keys[other] for other in (recipe.parent, *recipe.uses) if other)
        pins = "".join(pin.text for pin in recipes.wheels_of(name))
        constants = f"{recipes.suite} {recipes.epoch} {stands_on} {' '.join(facts)}"
        own = [
            *tools,
            *tree(recipe.folder),
            ("wheels", pins.encode()),
            ("constants", constants.encode()),
        ]
        keys[name] = content_key([*own, *(tree(source / "bundle") if recipe.package else [])])
    return keys


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where images are built: the recipes, their keys, the engine and the caches."""

    config: BundleConfig
    engine: Engine
    source: Path
    recipes: Recipes
    keys: Mapping[str, str]
    arch: str

    def reference(self, name: str) -> str:
        """The name under which a built image is kept."""
        return f"{BUILT}/{name}:{self.keys[name]}"

    def archive(self) -> debs.Archive:
        """The Debian archive, as this host reaches it."""
        return debs.Archive(
            folder=self.config.cache / "apt",
            suite=self.recipes.suite,
            arch=self.arch,
            mirror=self.config.mirrors_debian,
        )

    def fetch_debs(self, name: str) -> dict[debs.Deb, Path]:
        """The packages of `name`, checked against its lock."""
        return debs.fetch(
            self.recipes.packages_of(name), self.config.cache / "debs", self.archive()
        )

    def fetch_wheels(self, pins: Sequence[wheels.Pin]) -> dict[wheels.Pin, Path]:
        """The files of `pins`, checked against the lock."""
        return wheels.fetch(pins, self.config.cache / "wheels" / f"images-{self.arch}", self.arch)


def build_all(
    config: BundleConfig, engine: Engine, source: Path, version: str
) -> tuple[Image, ...]:
    """Make every image that goes into the bundle, called `tracking-bundle/<name>:<version>`.

    Raises PreconditionError when an input or a right is missing, CommandError when a build fails.
    """
    recipes = read_recipes(source)
    arch = engine.api.version()["Arch"]
    facts = [arch, config.base_source, config.base_image]
    workshop = Workshop(
        config=config,
        engine=engine,
        source=source,
        recipes=recipes,
        keys=recipe_keys(recipes, source, facts),
        arch=arch,
    )
    wanted = [name for name, recipe in recipes.all.items() if recipe.uid]
    for name in wanted:
        ensure(workshop, name)
    images = []
    for name in wanted:
        reference = f"{PRODUCT}/{name}:{version}"
        engine.tag(workshop.reference(name), reference)
        image = engine.image(name, reference)
        assert image is not None
        images.append(image)
    return tuple(images)


def ensure(workshop: Workshop, name: str) -> None:
    """Build `name` and what it stands on, unless the engine has it under its key.

    Raises PreconditionError when an input or a right is missing, CommandError when a build fails.
    """
    if workshop.engine.image(name, workshop.reference(name)):
        return
    recipe = workshop.recipes.all[name]
    for other in (recipe.parent, *recipe.uses):
        if other:
            ensure(workshop, other)
    with step(f"image {name}: inputs"):
        packages = workshop.fetch_debs(name)
        pins = workshop.recipes.wheels_of(name)
        files = workshop.fetch_wheels(pins)
        tools = workshop.fetch_wheels(workshop.recipes.lock("tools")) if pins else {}
    workshop.config.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=workshop.config.cache) as folder:
        work = Path(folder)
        work.chmod(0o755)
        stage(recipe.folder, work / "context", workshop.recipes.epoch)
        stage(workshop.recipes.folder / "tools", work / "tools", workshop.recipes.epoch)
        stage_files(packages.values(), work / "debs")
        stage_files(files.values(), work / "wheels")
        stage_files(tools.values(), work / "wheels" / "pip")
        (work / "wheels" / "requirements.txt").write_text("".join(pin.text for pin in pins))
        if recipe.package:
            stage(workshop.source / "bundle", work / "context" / "package", workshop.recipes.epoch)
        if not recipe.parent and workshop.config.base_source == "debootstrap":
            with step("root file system by debootstrap"):
                settings = work / "context" / "dpkg.cfg"
                recipes = workshop.recipes
                debs.make_root(
                    packages, work, recipes.suite, workshop.arch, recipes.epoch, settings
                )
        with step(f"image {name}: build"):
            workshop.engine.build(
                build_of(workshop, recipe, work), timeout=workshop.config.build_timeout_s
            )


def build_of(workshop: Workshop, recipe: Recipe, work: Path) -> Build:
    """The build of `recipe` out of the staged folders under `work`."""
    recipes = workshop.recipes
    arguments = {"EPOCH": str(recipes.epoch), "SOURCE_DATE_EPOCH": str(recipes.epoch)}
    file = "Dockerfile"
    if recipe.parent:
        arguments["PARENT"] = workshop.reference(recipe.parent)
    elif workshop.config.base_source == "registry":
        arguments["BASE"] = workshop.config.base_image
        file = "Dockerfile.registry"
    arguments.update({other.upper(): workshop.reference(other) for other in recipe.uses})
    secrets = {}
    if recipe.network != "none":
        secrets = {"ca": authorities(), "goenv": write_go_settings(work / "goenv")}
    return Build(
        context=work / "context",
        file=file,
        tag=workshop.reference(recipe.name),
        contexts={"tools": work / "tools", "debs": work / "debs", "wheels": work / "wheels"},
        arguments=arguments,
        secrets=secrets,
        network=recipe.network,
    )


def stage(folder: Path, target: Path, epoch: int) -> None:
    """Copy `folder` with modes and times that depend on nothing of this host: neither its umask nor its clone.

    A file's time depends on its bytes: the builder takes a file of the same size and time for unchanged, and once
    built an image out of the old one.
    """
    for name, data in tree(folder):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if data.startswith(b"#!") else 0o644)
        moment = epoch - int.from_bytes(hashlib.sha256(data).digest()[:3], "big")
        os.utime(path, (moment, moment))
    for path in [*target.rglob("*"), target]:
        if path.is_dir():
            path.chmod(0o755)
            os.utime(path, (epoch, epoch))


def stage_files(files: Iterable[Path], folder: Path) -> None:
    """Put `files` into `folder`, without a copy where the file system allows."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for path in files:
        try:
            os.link(path, folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)


def authorities() -> Path:
    """The certificates that this host trusts, its proxy's own among them.

    Raises PreconditionError when none are found.
    """
    for name in (ssl.get_default_verify_paths().cafile, *AUTHORITIES):
        if name and Path(name).is_file():
            return Path(name)
    raise PreconditionError(
        "no certificate authorities on this host", hint="Install ca-certificates."
    )


def write_go_settings(path: Path) -> Path:
    """Go's own settings of this host (module proxy, checksum database) in the form of its settings file."""
    values = {}
    if shutil.which("go"):
        out = run(["go", "env", *GO_SETTINGS], timeout=60, check=False).splitlines()
        values = dict(zip(GO_SETTINGS, out, strict=False))
    values.update({name: os.environ[name] for name in GO_SETTINGS if name in os.environ})
    text = "".join(f"{name}={value}\n" for name, value in values.items() if value)
    path.touch(mode=0o600)
    path.write_text(text)
    return path
