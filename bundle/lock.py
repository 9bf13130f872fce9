"""`invoke lock`: take today's versions of what images/ names, and show what changed.

The only place where anything is resolved: Debian packages by apt, wheels by uv, modules by go. Each is the ecosystem's
ordinary client, so that mirrors, proxies and certificates are the host's.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle import debs, wheels
from bundle.config import BundleConfig
from bundle.engine import Engine
from bundle.errors import ConfigError, PreconditionError
from bundle.host import write_file
from bundle.recipes import TOOLS, Pin, Recipes, parse_pins, read_recipes
from bundle.run import run, step

ALWAYS = ("?essential", "?priority(required)", "apt")
EVERYTHING = "all"
SAME_TOGETHER = 2  # rounds: in the second, each image prefers what the others had to take


def relock(config: BundleConfig, engine: Engine, source: Path, names: Sequence[str] = ()) -> str:
    """Refresh the locked inputs, and return what changed as a table.

    Debian packages become what the archive has today. Wheels and modules keep their versions, except `names` and what
    these need; the name `all` stands for every wheel.

    Raises ConfigError for an unknown name, PreconditionError when a tool is missing, CommandError when something
    cannot be resolved.
    """
    recipes = read_recipes(source)
    before = versions(recipes)
    known = {name for _, name in before} | {EVERYTHING}
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"nothing is locked as {', '.join(unknown)}"
        raise ConfigError(
            message,
            where="invoke lock --upgrade",
            hint="Give a package's or a module's name, or all.",
        )
    arch = str(engine.api.version()["Arch"])
    folder, mirror = config.cache / "apt", config.mirrors_debian
    archive = debs.Archive(folder=folder, suite=recipes.suite, arch=arch, mirror=mirror)
    with step("lock Debian packages"):
        lock_packages(recipes, archive)
    with step("lock wheels"):
        lock_wheels(recipes, names, arch)
    modules = [name for name in names if "/" in name]
    if modules:
        with step("lock modules"):
            lock_modules(recipes, modules)
    return difference(before, versions(recipes))


def replace_gone(config: BundleConfig, arch: str, source: Path) -> str:
    """Lock the Debian packages anew when one is neither in the cache nor on the mirror; what changed, as a table.

    The mirror is asked only when the cache lacks one; wheels and modules stay as they are.

    Raises CommandError when the archive cannot be read.
    """
    recipes = read_recipes(source)
    before = versions(recipes)
    store = config.cache / "debs"
    missing = [d for name in recipes.all for d in debs.missing(recipes.packages(name), store)]
    archive = debs.Archive(
        folder=config.cache / "apt", suite=recipes.suite, arch=arch, mirror=config.mirrors_debian
    )
    if missing:
        archive.update()
    if not debs.gone(missing, archive):
        return difference(before, before)
    with step("lock Debian packages"):
        lock_packages(recipes, archive)
    return difference(before, versions(recipes))


def chain(recipes: Recipes, name: str) -> list[str]:
    """`name` and its ancestors, itself first."""
    parent = recipes.all[name].parent
    return [name, *(chain(recipes, parent) if parent else [])]


def wanted_packages(recipes: Recipes, name: str) -> list[str]:
    """The names in an image's apt.in; none when it has no such file."""
    path = recipes.folder / name / "apt.in"
    return path.read_text("utf-8").split() if path.is_file() else []


def lock_packages(recipes: Recipes, archive: debs.Archive) -> None:
    """Write every apt.lock: the closure of what an image and its ancestors name, less what the ancestors lock.

    Raises CommandError when the archive cannot be read or a name is not in it.
    """
    archive.update()
    for name in recipes.all:
        if not wanted_packages(recipes, name):
            continue
        ancestors = chain(recipes, name)
        named = [package for other in ancestors for package in wanted_packages(recipes, other)]
        there = {deb for other in ancestors[1:] for deb in recipes.packages(other)}
        closure = archive.resolve([*ALWAYS, *named])
        lines = [f"{deb.line}\n" for deb in closure if deb not in there]
        write_file(recipes.folder / name / "apt.lock", "".join(lines).encode())


def lock_wheels(recipes: Recipes, names: Sequence[str], arch: str) -> None:
    """Write every requirements.lock; the images take the same version of a package wherever they can.

    Raises PreconditionError without uv, CommandError when something cannot be resolved.
    """
    together = [name for name, recipe in recipes.all.items() if recipe.wheels]
    chosen = {name: kept(recipes.lock(name), names) for name in together}
    for _ in range(SAME_TOGETHER):
        for name in together:
            others = [pin for other in together if other != name for pin in chosen[other].values()]
            preferred = chosen[name] | {pin.name: pin for pin in others}
            chosen[name] = resolve(recipes.folder / name, preferred, arch)
    resolve(recipes.folder / TOOLS, kept(recipes.lock(TOOLS), names), arch)


def kept(pins: Sequence[Pin], upgraded: Sequence[str]) -> dict[str, Pin]:
    """The pins that stay where they are when `upgraded` are to move."""
    return {
        pin.name: pin for pin in pins if pin.name not in upgraded and EVERYTHING not in upgraded
    }


def resolve(folder: Path, preferred: Mapping[str, Pin], arch: str) -> dict[str, Pin]:
    """Resolve requirements.in of `folder` into its lock; the versions of `preferred` are taken wherever they fit.

    Raises PreconditionError without uv, CommandError when it cannot be resolved.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise PreconditionError("uv not found, needed to lock wheels", hint="pip install uv")
    platform = f"{wheels.MACHINES[arch]}-manylinux_2_40"
    command = [uv, "pip", "compile", "--quiet", "--native-tls", "--no-header", "--no-annotate"]
    options = ["--generate-hashes", "--only-binary", ":all:", "--python-version", wheels.PYTHON]
    with tempfile.TemporaryDirectory() as work:
        settings, draft = Path(work) / "uv.toml", Path(work) / "draft.txt"
        settings.touch(mode=0o600)
        settings.write_text(index_setting())
        draft.write_text("".join(pin.text for pin in preferred.values()), encoding="utf-8")
        files = [
            "--config-file",
            str(settings),
            "--output-file",
            str(draft),
            str(folder / "requirements.in"),
        ]
        hint = "pip config list shows the index and the certificates that were used."
        run([*command, *options, "--python-platform", platform, *files], timeout=600, hint=hint)
        text = draft.read_text("utf-8")
    write_file(folder / "requirements.lock", text.encode())
    return {pin.name: pin for pin in parse_pins(text, str(folder))}


def index_setting() -> str:
    """The host's package index, out of pip's own configuration, in uv's form (an address can carry a password)."""
    out = run([sys.executable, "-m", "pip", "config", "list"], timeout=60, check=False)
    match = re.search(r"\.index-url='([^']+)'", out)
    return f"index-url = {json.dumps(match[1])}\n" if match else ""


def lock_modules(recipes: Recipes, names: Sequence[str]) -> None:
    """Move the Go modules `names` to their newest version.

    Raises PreconditionError without go, CommandError when one cannot be resolved.
    """
    for path in recipes.folder.glob("*/go.mod"):
        text = path.read_text("utf-8")
        mine = [f"{name}@latest" for name in names if f"{name} v" in text]
        toolchain = re.search(r"^toolchain (\S+)$", text, re.MULTILINE)
        go = [
            "env",
            f"GOTOOLCHAIN={toolchain[1] if toolchain else 'auto'}",
            "GOFLAGS=-mod=mod",
            "go",
        ]
        if mine and shutil.which("go") is None:
            raise PreconditionError("go not found, needed to lock modules", hint="Install Go.")
        if mine:
            run([*go, "get", *mine], timeout=900, cwd=path.parent)
            run([*go, "mod", "tidy"], timeout=900, cwd=path.parent)


def versions(recipes: Recipes) -> dict[tuple[str, str], str]:
    """The locked version of every input, by image and name."""
    found: dict[tuple[str, str], str] = {}
    for name in [*recipes.all, TOOLS]:
        found.update({(name, deb.name): deb.version for deb in recipes.packages(name)})
        found.update({(name, pin.name): pin.version for pin in recipes.lock(name)})
        module = recipes.folder / name / "go.mod"
        if module.is_file():
            lines = re.findall(
                r"^\s*(\S+\.\S+/\S+) (v\S+)", module.read_text("utf-8"), re.MULTILINE
            )
            found.update({(name, path): version for path, version in lines})
    return found


def difference(old: Mapping[tuple[str, str], str], new: Mapping[tuple[str, str], str]) -> str:
    """What changed, as a table: image, input, version before, version now."""
    rows = [
        (image, name, old.get((image, name), "-"), new.get((image, name), "-"))
        for image, name in sorted({*old, *new})
        if old.get((image, name)) != new.get((image, name))
    ]
    if not rows:
        return "nothing changed"
    table = [("image", "input", "old", "new"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)
