"""What fetched packages say of themselves, read once a file and kept by its digest: source, licence, licence texts.

Texts lie in the cache under their own digest, since hundreds of packages carry the same few.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from email.parser import HeaderParser
from pathlib import Path

from bundle import licences
from bundle.components import Facts, Text, deb_source, is_licence_file
from bundle.errors import IntegrityError
from bundle.files import write_file
from bundle.run import popen, run

FORM = 3  # of the notes; a change of what is read from a package raises it
LARGEST = 2 << 20
# With a thread a core it takes 118 MB for Go's package, with one 64, in the same time.
READ_DEB = ("env", "DPKG_DEB_THREADS_MAX=1", "dpkg-deb", "--fsys-tarfile")
DOC = "./usr/share/doc/"
COMMON = (
    "./usr/share/common-licenses/"  # in base-files: the texts that all copyright files refer to
)


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Facts by the digest of the file that they were read from, and the texts by their own."""

    root: Path

    def note(self, digest: str) -> Path:
        """Where the facts of the file `digest` are written down."""
        return self.root / f"facts-{FORM}" / f"{digest}.json"

    def text(self, digest: str) -> Path:
        """Where the text `digest` lies."""
        return self.root / "texts" / digest

    def known(self, digest: str) -> Facts | None:
        """The facts of the file `digest`; None when they or one of their texts are not here."""
        try:
            data = json.loads(self.note(digest).read_text("utf-8"))
            facts = Facts(**{**data, "texts": tuple(Text(**text) for text in data["texts"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return facts if all(self.text(t.sha256).is_file() for t in facts.texts) else None

    def learn(self, digest: str, read: Callable[[], Facts]) -> Facts:
        """The facts of the file `digest`, read now unless they are known."""
        found = self.known(digest)
        if found is None:
            found = read()
            path = self.note(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json.dumps(asdict(found)).encode())
        return found

    def keep(self, name: str, data: bytes) -> Text:
        """Keep one text."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.text(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_file(path, data)
        return Text(name=name, sha256=digest)

    def keep_all(self, found: Iterable[tuple[str, bytes]]) -> tuple[Text, ...]:
        """Keep each of `found`, by name."""
        return tuple(sorted(self.keep(name, data) for name, data in found))

    def made(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gives, kept under a name that says all that it depends on, with its own digest."""
        path, mark = self.root / "made" / name, self.root / "made" / f"{name}.sha256"
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == mark.read_text("utf-8"):
                return data
        data = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
        write_file(mark, hashlib.sha256(data).hexdigest().encode())
        return data

    def read(self, digest: str) -> bytes:
        """The bytes of the text `digest`.

        Raises IntegrityError when they are not what they were.
        """
        data = self.text(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            hint = "Remove that folder, then run this again."
            where = str(self.text(digest).parent)
            raise IntegrityError("a kept licence text is not what it was", where=where, hint=hint)
        return data


def of_deb(shelf: Shelf, path: Path) -> Facts:
    """What the Debian package `path` says of itself.

    Raises CommandError when it cannot be read.
    """
    source, version = deb_source(run(["dpkg-deb", "--field", str(path)], timeout=60))
    name = path.name.partition("_")[0]
    with popen([*READ_DEB, str(path)]) as child:
        assert child.stdout is not None
        with tarfile.open(fileobj=child.stdout, mode="r|") as archive:
            found = dict(_copyrights(archive))
        while child.stdout.read(1 << 20):
            pass
    shared = found.pop("", b"").decode()  # the folder of another package stands for its own
    own = [data for place, data in found.items() if place == name] or list(found.values())
    licence = licences.conjunction(licences.of_copyright(d.decode("utf-8", "replace")) for d in own)
    return Facts(
        source=source,
        source_version=version,
        licence=licence,
        stated=shared,
        texts=shelf.keep_all(
            (place if "/" in place else f"{place}/copyright", data) for place, data in found.items()
        ),
    )


def _copyrights(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        if member.name.startswith(COMMON) and member.isreg():
            file = archive.extractfile(member)
            yield (
                f"common-licenses/{member.name.removeprefix(COMMON)}",
                file.read() if file else b"",
            )
        place, _, rest = member.name.removeprefix(DOC).partition("/")
        if not member.name.startswith(DOC):
            continue
        if not rest and member.issym():
            yield "", member.linkname.rpartition("/")[2].encode()
        elif rest == "copyright" and member.isreg():
            file = archive.extractfile(member)
            yield place, file.read(LARGEST) if file else b""
        elif rest == "copyright" and member.issym():
            yield "", member.linkname.split("/")[-2].encode()


def of_wheel(shelf: Shelf, path: Path) -> Facts:
    """What the wheel `path` says of itself.

    Raises IntegrityError when it is not a wheel.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            place = next(
                n for n in names if n.count("/") == 1 and n.endswith(".dist-info/METADATA")
            )
            text = archive.read(place).decode("utf-8", "replace")
            folder = place.rpartition("/")[0]
            found = list(_licence_files(archive))
    except (zipfile.BadZipFile, StopIteration) as error:
        raise IntegrityError(f"not a wheel: {error}", where=str(path)) from error
    head = HeaderParser().parsestr(text)
    expression, licence = str(head["License-Expression"] or ""), str(head["License"] or "")
    classifiers = [str(line) for line in head.get_all("Classifier") or ()]
    own = [data.decode("utf-8", "replace") for name, data in found if name.startswith(folder)]
    known = licences.of_metadata(expression, licence, classifiers)
    return Facts(
        licence=known or licences.conjunction(map(licences.of_text, own)),
        stated=(expression or licence).splitlines()[0][:200] if expression or licence else "",
        texts=shelf.keep_all(found),
    )


def _licence_files(archive: zipfile.ZipFile, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        name = info.filename.removeprefix(prefix)
        if not info.is_dir() and info.file_size <= LARGEST and is_licence_file(name):
            yield name, archive.read(info)


def of_module(shelf: Shelf, path: Path, module: str, version: str) -> Facts:
    """What the module zip `path` says of itself.

    Raises IntegrityError when it is not a zip.
    """
    prefix = f"{module}@{version}/"
    try:
        with zipfile.ZipFile(path) as archive:
            found = list(_licence_files(archive, prefix))
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"not a module zip: {error}", where=str(path)) from error
    own = [data.decode("utf-8", "replace") for name, data in found if "/" not in name]
    return Facts(
        licence=licences.conjunction(map(licences.of_text, own)), texts=shelf.keep_all(found)
    )
