"""What a site's own image says of itself: the packages that its dpkg, its apk and its wheels' metadata name.

Only what such a list says is taken, and no file's digest is known; programs that stand in no list are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.parser import HeaderParser

from bundle import licences
from bundle.components import Component, deb_source, fields

DPKG = re.compile(r"var/lib/dpkg/status(\.d/[^/]+)?")
APK = re.compile(r"(usr/)?lib/apk/db/installed")
WHEEL = re.compile(r".*/(site|dist)-packages/[^/]+\.dist-info/METADATA")
SYSTEM = ("usr/lib/os-release", "etc/os-release")
GONE, EMPTIED = ".wh.", ".wh..wh..opq"
LARGEST = 32 << 20
FORM = 1  # of what is kept of a layer


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one layer has of such lists, by path, and what it takes away from the layers below."""

    found: Mapping[str, str] = field(default_factory=dict)
    gone: Sequence[str] = ()
    emptied: Sequence[str] = ()


def is_told(path: str) -> bool:
    """Whether the file `path` says which packages there are, or of which system."""
    return path in SYSTEM or any(form.fullmatch(path) for form in (DPKG, APK, WHEEL))


def kept(path: str, data: bytes) -> str:
    """What counts of the file `path`: of a wheel's metadata its head."""
    text = data.decode("utf-8", "replace")
    return text.partition("\n\n")[0] if WHEEL.fullmatch(path) else text


def look(names: Iterable[str], found: Mapping[str, str]) -> Look:
    """The look at a layer with the entries `names`, of which `found` are the files that tell something."""
    gone, emptied = [], []
    for name in names:
        folder, slash, last = name.rpartition("/")
        if last == EMPTIED:
            emptied.append(folder)
        elif last.startswith(GONE):
            gone.append(folder + slash + last.removeprefix(GONE))
    return Look(found=found, gone=gone, emptied=emptied)


def fold(looks: Iterable[Look]) -> dict[str, str]:
    """What is there with all layers on one another, the base first."""
    files: dict[str, str] = {}
    for one in looks:
        below = [*(f"{folder}/" for folder in one.emptied), *(f"{path}/" for path in one.gone)]
        files = {
            path: text
            for path, text in files.items()
            if path not in one.gone and not path.startswith(tuple(below))
        } | dict(one.found)
    return files


def components(files: Mapping[str, str], place: str) -> tuple[Component, ...]:
    """The packages of the image `place`, of which `files` tell; each once."""
    release = next((_values(files[name]) for name in SYSTEM if name in files), {})
    system = "-".join(filter(None, (release.get("ID", "linux"), release.get("VERSION_ID"))))
    found: dict[str, Component] = {}
    for one in _listed(files, system, place):
        found.setdefault(one.id, one)
    return tuple(found.values())


def _values(text: str) -> dict[str, str]:
    """The values of an os-release file."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: re.sub(r"[^A-Za-z0-9._]", "", value) for name, _, value in pairs if value}


def _listed(files: Mapping[str, str], system: str, place: str) -> Iterator[Component]:
    for path, text in sorted(files.items()):
        if DPKG.fullmatch(path):
            yield from (replace(deb, system=system, places=(place,)) for deb in installed(text))
        elif APK.fullmatch(path):
            yield from _apk(text, system, place)
        elif WHEEL.fullmatch(path):
            yield from _wheel(text, system, place)


def installed(status: str) -> Iterator[Component]:
    """The installed packages of a dpkg status, as it names them."""
    for stanza in status.split("\n\n"):
        said = fields(stanza)
        whole = said.get("Status", "ok installed").endswith(" installed")
        if whole and {"Package", "Version"} <= said.keys():
            source, source_version = deb_source(stanza)
            yield Component(
                kind="deb",
                name=said["Package"],
                version=said["Version"],
                arch=said.get("Architecture", ""),
                source=source,
                source_version=source_version,
            )


def _apk(text: str, system: str, place: str) -> Iterator[Component]:
    for stanza in text.split("\n\n"):
        said = {line[0]: line[2:] for line in stanza.splitlines() if line[1:2] == ":"}
        if {"P", "V"} <= said.keys():
            licence = licences.canonical(said.get("L", ""))
            yield Component(
                kind="apk",
                name=said["P"],
                version=said["V"],
                arch=said.get("A", ""),
                source=said.get("o", ""),
                source_version=said["V"],
                licence=licence,
                stated="" if licence else said.get("L", ""),
                system=system,
                places=(place,),
            )


def _wheel(text: str, system: str, place: str) -> Iterator[Component]:
    said = HeaderParser().parsestr(text)
    name, version = str(said["Name"] or ""), str(said["Version"] or "")
    if name and version:
        expression, licence = str(said["License-Expression"] or ""), str(said["License"] or "")
        classifiers = [str(line) for line in said.get_all("Classifier") or ()]
        yield Component(
            kind="pypi",
            name=re.sub(r"[-_.]+", "-", name).lower(),
            version=version,
            licence=licences.of_metadata(expression, licence, classifiers),
            stated=(expression or licence).splitlines()[0][:200] if expression or licence else "",
            system=system,
            places=(place,),
        )
