"""Licences for people: one archive of all texts, and the page that says what is under which terms. Pure."""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable

from bundle.components import SITE, TOOL, Component, Inventory

MOMENT = 315_532_800  # 1980: the archive changes with its texts only
FILTER = {
    "id": lzma.FILTER_LZMA2,
    "preset": 9,
    "dict_size": 8 << 20,
}  # a larger one only costs memory
KINDS = {"deb": "Debian packages", "pypi": "Python wheels", "golang": "Go modules"}
HEAD = """# Licences of {product}

tracking-bundle itself is under Apache-2.0. It carries {count} packages, each under its own terms: `licences.tar.xz`
beside this page has all their licence texts and notices, `OVERVIEW.md` in it names each package with its licence,
`INDEX.txt` says which text belongs to what. `docs/licences.md` has more words.
구성 요소의 라이선스 전문은 `licences.tar.xz`에 있습니다.

**Arize Phoenix** ({phoenix}) is under the Elastic License 2.0: you may use it and host it yourself. You may **not**
offer it to third parties as a hosted or managed service, circumvent its licence keys, or remove its notices.

**MinIO** ({minio}) is under the GNU AGPL, version 3 or later. The complete corresponding source of the binary in this
bundle is `{sources}`, which was written beside the bundle. Whoever passes the bundle on passes that
file on too, and whoever lets others use the server over a network offers it to them.
"""
TABLE = """# Every package and its licence

A dash means: upstream states no licence in a form that a machine can read; its text is in this archive all the same.
"""


def tarball(files: Iterable[tuple[str, bytes]], moment: int) -> bytes:
    """`files` (path, content), sorted, as a tar that is the same wherever it is made."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in sorted(files):
            info = tarfile.TarInfo(path)
            info.size, info.mtime, info.mode = len(data), moment, 0o644
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archive(inventory: Inventory, read: Callable[[str], bytes]) -> bytes:
    """All licence texts, each once, and the index of what they belong to, as tar.xz; `read` gives a text by digest."""
    digests = sorted({text.sha256 for c in inventory.ours for text in c.texts})
    files = [(text_path(digest), read(digest)) for digest in digests]
    files.append(("INDEX.txt", index(inventory).encode()))
    files.append(("OVERVIEW.md", overview(inventory).encode()))
    return lzma.compress(tarball(files, MOMENT), filters=[FILTER])


def archive_key(inventory: Inventory) -> str:
    """A name for all that the archive depends on."""
    said = f"{sorted(FILTER.items())} {MOMENT} {index(inventory)} {overview(inventory)}"
    return hashlib.sha256(said.encode()).hexdigest()


def text_path(digest: str) -> str:
    """Where the archive has the text `digest`."""
    return f"texts/{digest[:32]}.txt"


def index(inventory: Inventory) -> str:
    """A line a text: the package, upstream's name of the file, where it lies in the archive."""
    lines = {
        f"{c.kind} {c.name} {c.version}\t{text.name}\t{text_path(text.sha256)}\n"
        for c in inventory.ours
        for text in c.texts
    }
    without = {
        f"{c.kind} {c.name} {c.version}\t-\tno text in the package; stated: {c.licence or c.stated or 'nothing'}\n"
        for c in inventory.ours
        if not c.texts
    }
    return "".join(sorted(lines | without))


def version_of(inventory: Inventory, name: str) -> str:
    """The version of a component that the page names."""
    return next((c.version for c in inventory.ours if c.name == name), "not in this bundle")


def notice(inventory: Inventory, product: str, sources: str) -> str:
    """The page that travels in plain sight: the terms that bind whoever uses or passes on the bundle."""
    return HEAD.format(
        product=product,
        sources=sources,
        count=len(inventory.ours),
        phoenix=version_of(inventory, "arize-phoenix"),
        minio=version_of(inventory, "github.com/minio/minio"),
    )


def overview(inventory: Inventory) -> str:
    """Every package with its licence and the images that it is in."""
    parts = [TABLE]
    for kind, title in KINDS.items():
        rows = sorted({_row(c) for c in inventory.ours if c.kind == kind})
        head = "| name | version | licence | in |\n|---|---|---|---|\n"
        parts += [f"\n## {title} ({len(rows)})\n\n{head}", *rows]
    return "".join(parts)


def _row(component: Component) -> str:
    licence = component.licence or component.stated or "—"
    if (
        len(licence) > 120
    ):  # one file may be under dozens of licences; the bills of materials have them all
        licence = licence[:120].rpartition(" AND ")[0] + " AND …"
    names = {TOOL: "the tool", SITE: "the site's extras"}
    places = ", ".join(names.get(place, place) for place in component.places)
    return f"| {component.name} | {component.version} | {licence.replace('|', '/')} | {places} |\n"
