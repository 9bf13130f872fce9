"""The inventory of what travels: from the locks, the fetched files, and what the built programs say of themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bundle import facts, foreign, modules, streams
from bundle.components import (
    MAGIC,
    SITE,
    TOOL,
    BuildInfo,
    Component,
    Facts,
    GoModule,
    Inventory,
    Kind,
    Patch,
    merge,
    parse_build_info,
    parse_go_sum,
    read_patch,
)
from bundle.errors import BundleError, IntegrityError
from bundle.facts import Shelf
from bundle.host import write_file
from bundle.packing import PackedImage
from bundle.recipes import Deb, Pin, Recipes, content_key, file_digest

GO_PROGRAMS = {"minio": "usr/local/bin/minio"}
BUILD_INFO_SIZE = 1 << 20
STATUS = "var/lib/dpkg/status"
STANDARD = "stdlib"  # as the vulnerability databases call Go's own library
GO_LICENCE = "golang.org/x/sys"  # by the same authors, under the same text


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the images were made from, and how a file of it is had again: each is checked against its lock.

    `registry`: the base image came from a registry, so that no lock names its packages.
    """

    recipes: Recipes
    arch: str
    cache: Path
    registry: bool
    fetch_debs: Callable[[Sequence[Deb]], Mapping[Deb, Path]]
    fetch_wheels: Callable[[Sequence[Pin]], Mapping[Pin, Path]]
    fetch_modules: Callable[[Sequence[modules.Wanted]], None]

    @property
    def shelf(self) -> Shelf:
        """What packages say of themselves."""
        return Shelf(root=self.cache / "licences")

    @property
    def store(self) -> modules.Store:
        """The Go modules."""
        return modules.Store(root=self.cache / "modules")

    def go_sum(self, name: str) -> str:
        """The lock of the Go build of `name`."""
        return (self.recipes.all[name].folder / "go.sum").read_text("utf-8")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the inventory is read from: the inputs, and the images by name."""

    inputs: Inputs
    packed: Mapping[str, PackedImage]


def gather(
    inputs: Inputs,
    packed: Sequence[PackedImage],
    wheels: Mapping[str, Sequence[Path]],
    *,
    version: str,
    created: int,
    site: Sequence[Path] = (),
) -> Inventory:
    """Everything that the images and the tool are made of, and the wheels that the `site` added.

    Raises IntegrityError when a program holds a module that no lock names, PreconditionError when an input is gone.
    """
    source = Source(inputs=inputs, packed={image.image.name: image for image in packed})
    known = inputs.recipes.all
    ours = [name for name in source.packed if name in known and known[name].uid]
    found = [*_debs(source, ours), *_wheels(source, ours), *_modules(source, ours)]
    tool = sorted({path for group in wheels.values() for path in group})
    beside = _beside(inputs.shelf, site, SITE)
    others = {name: _foreign(source, name) for name in sorted(set(source.packed) - set(ours))}
    found += [component for group in others.values() for component in group]
    return Inventory(
        version=version,
        arch=inputs.arch,
        created=created,
        suite=inputs.recipes.suite,
        images={name: image.image.manifest for name, image in sorted(source.packed.items())},
        components=merge([*found, *_beside(inputs.shelf, tool, TOOL), *beside]),
        told=tuple(name for name, group in others.items() if group),
        unread=tuple(name for name, group in others.items() if not group),
    )


def _component(
    kind: Kind,
    name: str,
    version: str,
    place: str,
    said: Facts,
    *,
    patches: tuple[Patch, ...] = (),
    **more: str,
) -> Component:
    return Component(
        kind=kind,
        name=name,
        version=version,
        source=said.source,
        source_version=said.source_version,
        licence=said.licence,
        stated=said.stated if kind == "pypi" else "",
        texts=said.texts,
        places=(place,),
        patches=patches,
        **more,
    )


def _debs(source: Source, ours: Iterable[str]) -> list[Component]:
    recipes, registry = source.inputs.recipes, source.inputs.registry
    lines = {name: recipes.lineage(name) for name in ours}
    wanted: dict[Deb, None] = {}
    for line in lines.values():
        for recipe in line:
            if recipe.parent or not registry:
                wanted |= dict.fromkeys(recipes.packages(recipe.name))
    said = _read_debs(source.inputs, list(wanted))
    found = []
    for name, line in lines.items():
        there: dict[str, Deb] = {}
        for recipe in line:
            if recipe.parent or not registry:
                there |= {deb.name: deb for deb in recipes.packages(recipe.name)}
            for gone in recipe.unused:
                there.pop(gone, None)
        found += [
            _component(
                "deb", deb.name, deb.version, name, said[deb], arch=deb.arch, sha256=deb.sha256
            )
            for deb in there.values()
        ]
        if registry:
            found += _base_debs(source, name, set(there))
    return found


def _read_debs(inputs: Inputs, wanted: Sequence[Deb]) -> dict[Deb, Facts]:
    shelf = inputs.shelf
    known = {deb: shelf.known(deb.sha256) for deb in wanted}
    missing = [deb for deb, said in known.items() if said is None]
    files = inputs.fetch_debs(missing) if missing else {}
    read = {
        deb: shelf.learn(deb.sha256, lambda path=path: facts.of_deb(shelf, path))  # type: ignore[misc]
        for deb, path in files.items()
    }
    said = {deb: read.get(deb) or known[deb] or Facts() for deb in wanted}
    by_name = {deb.name: said[deb] for deb in wanted}
    return {deb: _borrowed(one, by_name) for deb, one in said.items()}


def _borrowed(said: Facts, others: Mapping[str, Facts]) -> Facts:
    """A package whose documents are another's has that one's licence."""
    lender = others.get(said.stated)
    if said.texts or lender is None:
        return said
    return Facts(
        source=said.source,
        source_version=said.source_version,
        licence=lender.licence,
        texts=lender.texts,
    )


def _base_debs(source: Source, name: str, known: set[str]) -> list[Component]:
    """The packages of a base image that came from a registry: what it says itself, without the digests of files."""
    status = b""
    for digest in source.packed[name].image.layers:
        status = streams.members(source.packed[name].blobs[digest], {STATUS}).get(STATUS, status)
    listed = foreign.installed(status.decode("utf-8", "replace"))
    return [replace(deb, places=(name,)) for deb in listed if deb.name not in known]


def _foreign(source: Source, name: str) -> tuple[Component, ...]:
    """The packages that the site's own image `name` says it has."""
    packed, shelf = source.packed[name], source.inputs.shelf
    looks = [_look(shelf, digest, packed.blobs[digest]) for digest in packed.image.layers]
    return foreign.components(foreign.fold(looks), name)


def _look(shelf: Shelf, digest: str, blob: Path) -> foreign.Look:
    """What a layer of a site's image tells; read once and kept."""

    def read() -> bytes:
        names, found = [], {}
        with streams.layer(blob) as archive:
            for member in archive:
                names.append(path := member.name.removeprefix("./"))
                told = member.isreg() and member.size <= foreign.LARGEST and foreign.is_told(path)
                file = archive.extractfile(member) if told else None
                if file:
                    found[path] = foreign.kept(path, file.read())
        return json.dumps(asdict(foreign.look(names, found))).encode()

    name = f"look-{foreign.FORM}-{digest.removeprefix('sha256:')}.json"
    return foreign.Look(**json.loads(shelf.made(name, read)))


def _wheels(source: Source, ours: Iterable[str]) -> list[Component]:
    recipes = source.inputs.recipes
    pins = {
        name: [p for recipe in recipes.lineage(name) for p in recipes.wheels(recipe.name)]
        for name in ours
    }
    every = sorted({pin for group in pins.values() for pin in group})
    said = _read_wheels(source.inputs, every)
    return [
        _component("pypi", pin.name, pin.version, name, said[pin][1], sha256=said[pin][0])
        for name, group in pins.items()
        for pin in group
    ]


def _read_wheels(inputs: Inputs, pins: Sequence[Pin]) -> dict[Pin, tuple[str, Facts]]:
    shelf, found = inputs.shelf, {}
    notes = {
        pin: shelf.note(f"wheel-{content_key([(inputs.arch, pin.text.encode())])}") for pin in pins
    }
    for pin, note in notes.items():
        digest = note.read_text("utf-8") if note.is_file() else ""
        if digest in pin.digests and (said := shelf.known(digest)):
            found[pin] = (digest, said)
    missing = [pin for pin in pins if pin not in found]
    for pin, path in inputs.fetch_wheels(missing).items() if missing else ():
        digest = file_digest(path)
        found[pin] = (digest, shelf.learn(digest, lambda p=path: facts.of_wheel(shelf, p)))  # type: ignore[misc]
        write_file(notes[pin], digest.encode())
    return found


def _beside(shelf: Shelf, wheels: Iterable[Path], place: str) -> list[Component]:
    """The wheels that travel beside the images."""
    found = []
    for path in wheels:
        name, version = path.name.split("-")[:2]
        digest = file_digest(path)
        said = shelf.learn(digest, lambda p=path: facts.of_wheel(shelf, p))  # type: ignore[misc]
        plain = re.sub(r"[-_.]+", "-", name).lower()
        found.append(_component("pypi", plain, version, place, said, sha256=digest))
    return found


def _modules(source: Source, ours: Sequence[str]) -> list[Component]:
    found = []
    for name in GO_PROGRAMS.keys() & set(ours):
        locked, files = parse_go_sum(source.inputs.go_sum(name))
        source.inputs.fetch_modules(modules.locked(locked, files))
        info = build_info(source, name)
        patches = tuple(read_patch(*one) for one in source.inputs.recipes.patches(name).items())
        linked = [_as_locked(module, locked, patches) for module in info.modules]
        strangers = [m.path for m in linked if not m.h1 or locked.get((m.path, m.version)) != m.h1]
        if strangers:
            message = (
                f"the program of {name} holds what go.sum does not name: {', '.join(strangers)}"
            )
            raise IntegrityError(message, where=f"images/{name}/go.sum", hint="Run invoke lock.")
        found += [
            _module(source, name, module, () if was.h1 else patches)
            for was, module in zip(info.modules, linked, strict=True)
        ]
        own = next((c for c in found if c.name == GO_LICENCE), None)
        said = Facts(licence="BSD-3-Clause", texts=own.texts if own else ())
        found.append(_component("golang", STANDARD, info.go.removeprefix("go"), name, said))
    return found


def _as_locked(
    module: GoModule, locked: Mapping[tuple[str, str], str], patches: tuple[Patch, ...]
) -> GoModule:
    """A module that we patched has no sum in the program: it was fetched by the sum that go.sum has."""
    if module.h1 or not patches:
        return module
    return replace(module, h1=locked.get((module.path, module.version), ""))


def _module(source: Source, name: str, module: GoModule, patches: tuple[Patch, ...]) -> Component:
    wanted = modules.Wanted(path=module.path, version=module.version, kind="zip", h1=module.h1)
    path = source.inputs.store.file(wanted)

    def read() -> Facts:
        return facts.of_module(source.inputs.shelf, path, module.path, module.version)

    digest = source.inputs.store.proven(wanted)
    said = source.inputs.shelf.learn(digest, read)
    sums = {"h1": module.h1, "sha256": digest}
    return _component("golang", module.path, module.version, name, said, patches=patches, **sums)


def build_info(source: Source, name: str) -> BuildInfo:
    """What the Go program of the image `name` says of itself; read once a layer and kept.

    Raises BundleError when no layer has it.
    """
    packed = source.packed[name]
    for digest in reversed(packed.image.layers):
        note = source.inputs.shelf.note(f"build-info-{digest.removeprefix('sha256:')}")
        known = _known_build_info(note)
        if known is None:
            raw = streams.find(packed.blobs[digest], GO_PROGRAMS[name], MAGIC, BUILD_INFO_SIZE)
            if raw is None:
                continue
            known = parse_build_info(raw)
            note.parent.mkdir(parents=True, exist_ok=True)
            write_file(note, json.dumps(asdict(known)).encode())
        return known
    hint = "The program must be built by Go 1.18 or later, with its build information."
    raise BundleError(f"no Go program {GO_PROGRAMS[name]}", where=f"images/{name}", hint=hint)


def _known_build_info(note: Path) -> BuildInfo | None:
    try:
        data = json.loads(note.read_text("utf-8"))
        modules_ = tuple(GoModule(**module) for module in data["modules"])
        return BuildInfo(go=data["go"], main=data["main"], modules=modules_)
    except (OSError, ValueError, KeyError, TypeError):
        return None
