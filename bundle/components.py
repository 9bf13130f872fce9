"""What the images are made of, as one list: every Debian package, wheel and Go module with its digest and licence.

Values and the pure readings of upstream's own files; the documents are made of them by sbom and notices.
"""

from __future__ import annotations

import email.parser
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

Kind = Literal["deb", "apk", "pypi", "golang"]
TOOL = "tool"  # the place of the wheels that travel beside the images
SITE = "site"  # the place of the wheels that a site added
BESIDE = (TOOL, SITE)
MAGIC = b"\xff Go buildinf:"
PATCHED = "./patched"  # where a build of ours puts the copy of a module that it patches
INLINE = 2  # the flag of Go 1.18 and later: the texts follow the header
SUITES = {"bookworm": "12", "trixie": "13", "forky": "14"}
LICENCE_FILE = re.compile(
    r"(?:un)?licen[cs]e|copying|copyright|notice|authors|patents|third[-_ ]?party.*", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, order=True)
class Text:
    """One licence text or notice: the name of the file it came from, and the sha256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a package says of itself: `licence` is an SPDX expression or empty, `stated` upstream's own words."""

    source: str = ""
    source_version: str = ""
    licence: str = ""
    stated: str = ""
    texts: tuple[Text, ...] = ()


@dataclass(frozen=True, kw_only=True, order=True)
class Patch:
    """A change of ours to a package: its file, that file's sha256, and the numbers of the holes that it closes."""

    name: str
    sha256: str
    closes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, order=True)
class Component:
    """One package in one version, and the images (or `tool`, `site`: beside them) that it is in.

    `sha256` is the digest of the file that was fetched; `h1` is Go's sum of a module: both are of the unchanged
    package, also where `patches` were laid over it. `system` (like debian-13) is that of a site's own image, which says
    itself that it has the package; empty: it is one of ours.
    """

    kind: Kind
    name: str
    version: str
    arch: str = ""
    sha256: str = ""
    h1: str = ""
    source: str = ""
    source_version: str = ""
    licence: str = ""
    stated: str = ""
    texts: tuple[Text, ...] = ()
    system: str = ""
    places: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()

    @property
    def id(self) -> str:
        """A name that no other component of the list has, and that is the same in every bundle that has it."""
        text = f"{self.kind}-{self.name}-{self.version}"
        if self.kind == "pypi" and self.sha256:
            text += f"-{self.sha256[:8]}"  # one version has a file for each Python
        if self.system:
            text += f"-{self.system}-{self.arch}"
        return re.sub(r"[^A-Za-z0-9.-]", lambda found: f"-{ord(found[0]):x}-", text)

    def purl(self, suite: str) -> str:
        """The package URL."""
        version = quote(self.version, safe="~")
        if self.kind in ("deb", "apk"):
            release = self.system or debian(suite)
            name = f"{release.partition('-')[0]}/{quote(self.name, safe='')}"
            return f"pkg:{self.kind}/{name}@{version}?arch={self.arch}&distro={release}"
        if self.kind == "pypi":
            return f"pkg:pypi/{self.name}@{version}"
        return f"pkg:golang/{'/'.join(quote(p, safe='') for p in self.name.split('/'))}@{version}"


def debian(suite: str) -> str:
    """The system that Debian's `suite` is, by its number."""
    return f"debian-{SUITES.get(suite, suite)}"


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Everything that one bundle's images hold; `images` has each one's manifest digest.

    Of a site's own images `told` are those that say which packages they have, `unread` those that say nothing.
    """

    version: str
    arch: str
    created: int
    suite: str
    images: Mapping[str, str]
    components: tuple[Component, ...]
    told: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def ours(self) -> tuple[Component, ...]:
        """What a lock or a file names, whose licence texts travel: all but what a site's images say they have."""
        return tuple(c for c in self.components if not c.system)

    def of(self, place: str, kind: Kind | None = None) -> tuple[Component, ...]:
        """What is in `place`, all or of one kind."""
        return tuple(
            c for c in self.components if place in c.places and (kind is None or c.kind == kind)
        )


def merge(found: Iterable[Component]) -> tuple[Component, ...]:
    """`found` sorted, each component once with all of its places."""
    merged: dict[Component, set[str]] = {}
    for component in found:
        merged.setdefault(replace(component, places=()), set()).update(component.places)
    return tuple(
        replace(component, places=tuple(sorted(places)))
        for component, places in sorted(merged.items(), key=lambda item: item[0])
    )


def read_patch(name: str, data: bytes) -> Patch:
    """A patch file, by the words above its changes."""
    head = data.decode().partition("\n--- ")[0]
    closes = re.findall(r"CVE-\d+-\d+|GHSA(?:-\w{4}){3}", head)
    return Patch(
        name=name, sha256=hashlib.sha256(data).hexdigest(), closes=tuple(sorted(set(closes)))
    )


def fields(text: str) -> dict[str, str]:
    """The fields of one stanza in the form of mail headers, as Debian and wheels have them; the first of a name."""
    parsed = email.parser.HeaderParser().parsestr(text)
    return {name: str(value) for name, value in reversed(parsed.items())}


def deb_source(control: str) -> tuple[str, str]:
    """The source package and its version that a control file names."""
    found = fields(control)
    own = found.get("Package", ""), found.get("Version", "")
    match = re.fullmatch(r"(\S+)(?: \((\S+)\))?", found.get("Source", "").strip())
    return (match[1], match[2] or own[1]) if match else own


@dataclass(frozen=True, kw_only=True, order=True)
class GoModule:
    """A module that is linked into a program, with Go's sum of it; that of one that we patched is empty."""

    path: str
    version: str
    h1: str


@dataclass(frozen=True, kw_only=True)
class BuildInfo:
    """What a Go program says of itself: the release of Go, and every module in it."""

    go: str
    main: str
    modules: tuple[GoModule, ...]


def parse_build_info(data: bytes) -> BuildInfo:
    """The build information whose header `data` begins with.

    Raises ValueError when it is not that of Go 1.18 or later.
    """
    if not data.startswith(MAGIC) or len(data) < 33 or not data[15] & INLINE:
        raise ValueError("not the build information of Go 1.18 or later")
    go, rest = _text(data[32:])
    table, _ = _text(rest)
    main, modules, before = "", [], [""]
    for line in table[16:-16].decode().splitlines():  # between two marks of 16 bytes
        parts = line.split("\t")
        if parts[0] == "path":
            main = parts[1]
        elif parts[0] in ("mod", "dep") and len(parts) >= 4 and parts[3]:
            modules.append(GoModule(path=parts[1], version=parts[2], h1=parts[3]))
        elif parts[0] == "=>":
            if parts[1] != PATCHED:
                raise ValueError("a replaced module, which no lock of ours knows")
            modules.append(GoModule(path=before[1], version=before[2], h1=""))
        before = parts
    return BuildInfo(go=go.decode(), main=main, modules=tuple(sorted(modules)))


def _text(data: bytes) -> tuple[bytes, bytes]:
    """A text behind its length in Go's variable form, and what follows it."""
    size = shift = used = 0
    while True:
        byte = data[used]
        size |= (byte & 0x7F) << shift
        used, shift = used + 1, shift + 7
        if byte < 0x80:
            return data[used : used + size], data[used + size :]


def parse_go_sum(text: str) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """The sums of go.sum by module and version: those of whole modules, and those of their go.mod alone."""
    modules, files = {}, {}
    for line in text.splitlines():
        path, version, h1 = line.split()
        if version.endswith("/go.mod"):
            files[path, version.removesuffix("/go.mod")] = h1
        else:
            modules[path, version] = h1
    return modules, files


def is_licence_file(path: str) -> bool:
    """True for a file whose name says that it is a licence or a notice."""
    parts = path.split("/")
    stem, dot, suffix = parts[-1].partition(".")
    plain = not dot or suffix.lower() in ("txt", "md", "rst", "html", "markdown", "docs")
    named = LICENCE_FILE.match(stem) is not None and (plain or stem.isupper())
    code = suffix.lower() in ("py", "pyc", "go", "js", "json", "c", "h", "so", "pyi", "svg", "png")
    listed = len(parts) > 2 and parts[-3].endswith(".dist-info") and parts[-2] == "licenses"
    return (named or listed or "licenses" in parts[:-1]) and not code
