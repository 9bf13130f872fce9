"""The images: fetch their locked inputs, and build those that the engine does not have under their key.

A build never resolves anything: its inputs are files that the locks under images/ name, fetched into the cache by the
host's own apt and pip and checked before a build sees them.
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

from bundle import debs, wheels
from bundle.builder import Build, build
from bundle.config import BundleConfig, variables
from bundle.engine import Engine
from bundle.errors import BundleError, PreconditionError
from bundle.model import Image
from bundle.recipes import TOOLS, Deb, Pin, Recipe, Recipes, read_recipes, recipe_keys, tree
from bundle.run import run, step

BUILT = "tracking-build"
GO_SETTINGS = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE", "GOAUTH")
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where images are built: the recipes, their keys, the engine and the caches."""

    config: BundleConfig
    engine: Engine
    source: Path
    recipes: Recipes
    keys: Mapping[str, str]
    arch: str
    built: str = BUILT
    fresh: bool = False

    def reference(self, name: str) -> str:
        """The name under which a built image is kept: it follows the content, so that two builds never mix."""
        return f"{self.built}/{name}:{self.keys[name]}"

    def fetch_packages(self, name: str) -> dict[Deb, Path]:
        """The Debian packages of `name`, checked against its lock.

        Raises PreconditionError when the mirror lost one, or when they were locked for another machine.
        """
        wanted = self.recipes.packages(name)
        foreign = sorted({deb.arch for deb in wanted} - {"all", self.arch})
        if foreign:
            message = (
                f"the packages are locked for {', '.join(foreign)}, this engine is {self.arch}"
            )
            raise PreconditionError(message, where=f"images/{name}", hint="Run invoke lock here.")
        return self.fetch_debs(wanted)

    def fetch_debs(self, wanted: Sequence[Deb]) -> dict[Deb, Path]:
        """The files of `wanted`, checked against the lock.

        Raises PreconditionError when the mirror lost one.
        """
        suite, mirror = self.recipes.suite, self.config.mirrors_debian
        folder = self.config.cache / "apt"
        archive = debs.Archive(folder=folder, suite=suite, arch=self.arch, mirror=mirror)
        return debs.fetch(wanted, self.config.cache / "debs", archive)

    def fetch_wheels(self, pins: Sequence[Pin]) -> dict[Pin, Path]:
        """The files of `pins`, checked against the lock."""
        return wheels.fetch(pins, self.config.cache / "wheels" / f"images-{self.arch}", self.arch)


def open_workshop(config: BundleConfig, engine: Engine, source: Path, fresh: str = "") -> Workshop:
    """The workshop for the recipes under `source`; `fresh` names a place of its own, where nothing is there yet.

    Raises PreconditionError when no engine answers, or none for a machine that is known here.
    """
    recipes = read_recipes(source)
    arch = str(engine.api.version()["Arch"])
    if arch not in wheels.MACHINES:
        known = ", ".join(wheels.MACHINES)
        raise PreconditionError(f"no images for {arch}", hint=f"Build on an engine for {known}.")
    registry = config.base_source == "registry"
    base = [arch, config.base_source, config.base_image if registry else ""]
    keys = recipe_keys(recipes, source, base)
    return Workshop(
        config=config,
        engine=engine,
        source=source,
        recipes=recipes,
        keys=keys,
        arch=arch,
        built=fresh or BUILT,
        fresh=bool(fresh),
    )


def build_all(
    config: BundleConfig, engine: Engine, source: Path, fresh: str = ""
) -> tuple[Image, ...]:
    """Make every image that goes into the bundle, called by its content; with `fresh` all of it anew, in that place.

    Raises PreconditionError when an input or a right is missing, CommandError when a build fails.
    """
    workshop = open_workshop(config, engine, source, fresh)
    wanted = [name for name, recipe in workshop.recipes.all.items() if recipe.uid]
    for name in wanted:
        ensure(workshop, name)
    return tuple(find(workshop, name) for name in wanted)


def find(workshop: Workshop, name: str) -> Image:
    """The built image `name`.

    Raises BundleError when the engine lost it meanwhile.
    """
    reference = workshop.reference(name)
    image = workshop.engine.image(name, reference)
    if image is None:
        raise BundleError(f"{reference} is gone from the engine", hint="Run this again.")
    return image


def ensure(workshop: Workshop, name: str) -> None:
    """Build `name` and what it stands on, unless the engine has it under its key.

    Raises PreconditionError when an input or a right is missing, CommandError when a build fails.
    """
    if workshop.engine.image(name, workshop.reference(name)):
        return
    recipe = workshop.recipes.all[name]
    for other in recipe.stands_on:
        ensure(workshop, other)
    workshop.config.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=workshop.config.cache) as folder:
        work = Path(folder)
        with step(f"image {name}: inputs"):
            packages = gather(workshop, recipe, work)
        if needs_root(workshop, recipe):
            with step("root file system by debootstrap"):
                add_root(workshop, work, packages)
        with step(f"image {name}: build"):
            wanted = plan_build(workshop, recipe, work)
            build(workshop.engine, wanted, timeout=workshop.config.build_timeout_s)


def needs_root(workshop: Workshop, recipe: Recipe) -> bool:
    """True for the image that stands on nothing but our own root file system."""
    return not recipe.parent and workshop.config.base_source == "debootstrap"


def gather(workshop: Workshop, recipe: Recipe, work: Path) -> dict[Deb, Path]:
    """Put all that the build of `recipe` reads into folders under `work`; returns its Debian packages.

    Raises PreconditionError when a locked file cannot be had.
    """
    recipes = workshop.recipes
    packages = workshop.fetch_packages(recipe.name)
    groups = recipes.wheel_layers(recipe.name)
    installer = workshop.fetch_wheels(recipes.lock(TOOLS)) if groups else {}
    work.chmod(0o755)
    stage(recipe.folder, work / "context", recipes.epoch)
    stage(recipes.folder / TOOLS, work / "tools", recipes.epoch)
    if recipe.package:
        stage(workshop.source / "bundle", work / "context" / "package", recipes.epoch)
    stage_files(packages.values(), work / "debs")
    stage_files(installer.values(), work / "wheels" / "pip")
    for layer, pins in groups.items():
        folder = work / "wheels" / layer
        stage_files(workshop.fetch_wheels(pins).values(), folder)
        (folder / "requirements.txt").write_text("".join(pin.text for pin in pins))
    return packages


def add_root(workshop: Workshop, work: Path, packages: Mapping[Deb, Path]) -> None:
    """Make the root file system and put it into the build's context.

    Raises PreconditionError without debootstrap or the rights that it needs, CommandError when it fails.
    """
    recipes, context = workshop.recipes, work / "context"
    settings = context / "dpkg.cfg"
    root = debs.make_root(packages, work, recipes.suite, workshop.arch, recipes.epoch, settings)
    debs.pack_root(root, context / "root.tar", recipes.epoch)
    shutil.rmtree(root)


def plan_build(workshop: Workshop, recipe: Recipe, work: Path) -> Build:
    """The build of `recipe` out of the staged folders under `work`."""
    epoch = str(workshop.recipes.epoch)
    arguments = {"EPOCH": epoch, "SOURCE_DATE_EPOCH": epoch}
    if workshop.fresh and recipe.network != "none":
        arguments["GOCACHE"] = "/tmp/go"  # the one cache that outlives a build
    arguments.update({other.upper(): workshop.reference(other) for other in recipe.uses})
    file, secrets = "Dockerfile", {}
    if recipe.parent:
        arguments["PARENT"] = workshop.reference(recipe.parent)
    elif not needs_root(workshop, recipe):
        arguments["BASE"] = workshop.config.base_image
        file = "Dockerfile.registry"
    if recipe.network != "none":
        secrets = {"ca": authorities(), "goenv": write_go_settings(work / "goenv")}
    return Build(
        context=work / "context",
        file=file,
        tag=workshop.reference(recipe.name),
        contexts={name: work / name for name in ("tools", "debs", "wheels")},
        fresh=workshop.fresh,
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
    """Put `files` into `folder`, readable by all whatever the umask."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for path in files:
        path.chmod(0o644)
        _link_or_copy(path, folder / path.name)


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(path, target)


def authorities() -> Path:
    """The certificates that this host trusts, its proxy's own among them.

    Raises PreconditionError when none are found.
    """
    for name in (ssl.get_default_verify_paths().cafile, *AUTHORITIES):
        if name and Path(name).is_file():
            return Path(name)
    message = "no certificate authorities on this host"
    raise PreconditionError(message, hint="Install ca-certificates.")


def go_settings() -> dict[str, str]:
    """Go's own settings of this host: module proxy, checksum database."""
    values = {}
    if shutil.which("go"):
        out = run(["go", "env", *GO_SETTINGS], timeout=60, check=False).splitlines()
        values = dict(zip(GO_SETTINGS, out, strict=False))
    return {**values, **variables(GO_SETTINGS)}


def write_go_settings(path: Path) -> Path:
    """The same as Go's settings file."""
    values = go_settings()
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items() if value))
    return path
