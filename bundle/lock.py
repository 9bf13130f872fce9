"""`invoke lock`: take today's versions of what images/ names, and show what changed.

The only place where anything is resolved: Debian packages by a private apt, wheels by uv, modules by go. Each with its
ordinary client, so that mirrors, proxies and certificates are the host's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle import debs, wheels
from bundle.config import BundleConfig
from bundle.engine import Engine
from bundle.errors import ConfigError, PreconditionError
from bundle.host import write_file
from bundle.images import Recipes, read_recipes
from bundle.run import run, step

ALWAYS = ("?essential", "?priority(required)", "apt")


def relock(config: BundleConfig, engine: Engine, source: Path, names: Sequence[str] = ()) -> str:
    """Refresh the locked inputs of the images `names` (all of them when empty), and return what changed as a table.

    Raises ConfigError for an unknown name, PreconditionError when a tool is missing, CommandError when something
    cannot be resolved.
    """
    recipes = read_recipes(source)
    known = [*recipes.all, "tools"]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"no image {', '.join(unknown)}", where="images", hint=f"Known: {', '.join(known)}."
        )
    wanted = list(names) or known
    before = versions(recipes)
    arch = engine.api.version()["Arch"]
    archive = debs.Archive(
        folder=config.cache / "apt",
        suite=recipes.suite,
        arch=arch,
        mirror=config.mirrors_debian,
    )
    with step("Debian packages"):
        lock_packages(recipes, archive, family(recipes, wanted))
    with step("wheels"):
        lock_wheels(recipes, wanted, arch)
    if "minio" in wanted:
        with step("Go modules"):
            lock_modules(recipes.folder / "minio")
    return difference(before, versions(recipes))


def family(recipes: Recipes, names: Sequence[str]) -> list[str]:
    """`names` with their parents and all that stand on one of these: their versions are chosen together."""
    roots = {recipe.parent or name for name, recipe in recipes.all.items() if name in names} | set(
        names
    )
    return [name for name, recipe in recipes.all.items() if name in roots or recipe.parent in roots]


def chain(recipes: Recipes, name: str) -> list[str]:
    """`name` and its ancestors, itself first."""
    parent = recipes.all[name].parent
    return [name, *(chain(recipes, parent) if parent else [])]


def wanted_packages(recipes: Recipes, name: str) -> list[str]:
    """The names in an image's apt.in; none when it has no such file."""
    path = recipes.folder / name / "apt.in"
    return path.read_text("utf-8").split() if path.is_file() else []


def lock_packages(recipes: Recipes, archive: debs.Archive, names: Sequence[str]) -> None:
    """Write apt.lock of each of `names`: the closure of its chain's packages, less what its ancestors lock."""
    if not names:
        return
    archive.update()
    for name in names:
        if not wanted_packages(recipes, name):
            continue
        ancestors = chain(recipes, name)
        closure = archive.resolve(
            [*ALWAYS, *(p for n in ancestors for p in wanted_packages(recipes, n))]
        )
        there = {deb for other in ancestors[1:] for deb in recipes.packages_of(other)}
        lines = [deb.line for deb in closure if deb not in there]
        _write(recipes.folder / name / "apt.lock", "\n".join(lines) + "\n")


def lock_wheels(recipes: Recipes, names: Sequence[str], arch: str) -> None:
    """Write requirements.lock of each of `names`; what one has chosen is what the next prefers."""
    uv = shutil.which(
        "uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    mine = [n for n in names if (recipes.folder / n / "requirements.in").is_file()]
    if mine and uv is None:
        raise PreconditionError("uv not found, needed to lock wheels", hint="pip install uv")
    chosen: dict[str, wheels.Pin] = {}
    for name in mine:
        source = recipes.folder / name / "requirements.in"
        text = resolve_wheels(str(uv), source, chosen, arch)
        chosen = {pin.name: pin for pin in wheels.parse_lock(text, str(source))} | chosen
        _write(source.with_suffix(".lock"), text)


def resolve_wheels(uv: str, source: Path, preferred: Mapping[str, wheels.Pin], arch: str) -> str:
    """Resolve one requirements.in; the versions of `preferred` are taken wherever they fit."""
    draft = source.with_suffix(".lock.new")
    draft.write_text("".join(pin.text for pin in preferred.values()), encoding="utf-8")
    platform = f"{wheels.MACHINES[arch]}-manylinux_2_40"
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        "--native-tls",
        "--no-header",
        "--no-annotate",
        "--generate-hashes",
    ]
    options = [
        "--only-binary",
        ":all:",
        "--python-version",
        wheels.PYTHON,
        "--python-platform",
        platform,
    ]
    try:
        run(
            [*command, *options, *index_options(), str(source), "--output-file", str(draft)],
            timeout=600,
            hint="Check the index and certificates with pip config list.",
        )
        return draft.read_text("utf-8")
    finally:
        draft.unlink(missing_ok=True)


def index_options() -> list[str]:
    """The host's package index, out of pip's own configuration."""
    out = run([sys.executable, "-m", "pip", "config", "list"], timeout=60, check=False)
    match = re.search(r"\.index-url='([^']+)'", out)
    return ["--index-url", match[1]] if match else []


def lock_modules(folder: Path) -> None:
    """Write go.mod and go.sum for the module that go.mod names.

    Raises PreconditionError without go.
    """
    go = shutil.which("go")
    if go is None:
        raise PreconditionError(
            "go not found, needed to lock modules", hint="Install Go 1.24 or newer."
        )
    env = {**os.environ, "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=mod"}
    facts = json.loads(run([go, "mod", "edit", "-json"], timeout=60, env=env, cwd=folder))
    toolchain = facts.get("Toolchain", "")
    run(
        [go, "mod", "tidy"],
        timeout=900,
        env={**env, "GOTOOLCHAIN": toolchain or "auto"},
        cwd=folder,
    )


def versions(recipes: Recipes) -> dict[tuple[str, str], str]:
    """The locked version of every input: by image and name."""
    found = {}
    for name in [*recipes.all, "tools"]:
        for deb in recipes.packages_of(name):
            found[name, deb.name] = deb.version
        if (recipes.folder / name / "requirements.lock").is_file():
            found.update({(name, pin.name): pin.version for pin in recipes.lock(name)})
        module = recipes.folder / name / "go.mod"
        if module.is_file():
            lines = re.findall(
                r"^\s*(?:require )?(\S+\.\S+/\S+) (v\S+)", module.read_text("utf-8"), re.MULTILINE
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
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode())
