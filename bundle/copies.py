"""A second copy of all points in a folder of another host, and when it was brought up to date.

Files of both repositories are written once and never changed, but for a few small ones; so what has the same size and
time is the same, and is not read. The ledger goes last: what it names is there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bundle import auditlog, chained, ledger
from bundle.config import SiteConfig
from bundle.errors import CommandError
from bundle.host import Host, make_folder, write_file
from bundle.recipes import file_digest
from bundle.words import say

NOTE = "copied.json"
SUMS = "SHA256SUMS"
PARTS = ("pgbackrest", "objects", ledger.KIND)
"""What is copied, in this order."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """The last point that was copied away, when, and the bytes that this took."""

    point: str
    at: datetime.datetime
    size: int = 0


def last(host: Host) -> Copied | None:
    """The last copy, as far as this host knows."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = json.loads(host.path(NOTE).read_bytes())
        return Copied(point=found["point"], at=datetime.datetime.fromisoformat(found["at"]))
    return None


def copy(host: Host, site: SiteConfig, point: str) -> Copied:
    """Bring the copy up to date; what is there and no longer here goes at the end.

    Raises CommandError when it cannot be written.
    """
    target = Path(site.backup_copy_to, site.domain)
    size = 0
    try:
        if not Path(
            site.backup_copy_to
        ).is_dir():  # a share that is not mounted would fill this disk
            raise FileNotFoundError(2, "no such folder")
        for part in PARTS:
            size += bring(ledger.place(host, site, part), target / part)
        for part in PARTS:
            clear(ledger.place(host, site, part), target / part)
    except OSError as error:
        hint = say(
            "Mount it and see that root may write there.",
            "마운트하고 root가 쓸 수 있는지 확인하십시오.",
        )
        message = f"backup.copy_to: {error.strerror}"
        raise CommandError(message, where=site.backup_copy_to, hint=hint) from error
    done = Copied(point=point, at=datetime.datetime.now(datetime.timezone.utc), size=size)
    note = {"point": done.point, "at": done.at.isoformat(timespec="seconds")}
    write_file(host.path(NOTE), json.dumps(note).encode())
    return done


def export(host: Host, site: SiteConfig, folder: Path) -> Path:
    """Put all points onto a medium: a folder of its own, with the digest of each file and our signature over the list.

    `openssl dgst -sha256 -verify public.pem -signature SHA256SUMS.sig SHA256SUMS`, then `sha256sum -c`, prove it.

    Raises CommandError when it cannot be written.
    """
    target = folder / site.domain
    try:
        if not folder.is_dir():
            raise FileNotFoundError(2, "no such folder")
        for part in PARTS:
            bring(ledger.place(host, site, part), target / part)
            clear(ledger.place(host, site, part), target / part)
        lines = [
            f"{file_digest(target / part / name)}  {part}/{name}\n"
            for part in PARTS
            for name in files(target / part)
        ]
        listed, key = "".join(sorted(lines)).encode(), auditlog.open_key(host)
        write_file(target / SUMS, listed)
        write_file(target / f"{SUMS}.sig", key.sign(listed, ec.ECDSA(hashes.SHA256())))
        write_file(target / "public.pem", chained.public_pem(key))
    except OSError as error:
        message = f"--export: {error.strerror}"
        hint = say("Give a folder on the medium.", "매체의 폴더를 지정하십시오.")
        raise CommandError(message, where=str(folder), hint=hint) from error
    return target


def files(folder: Path) -> Iterator[str]:
    """Each plain file of a folder, by its path in it."""
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            if not name.endswith((".lock", ".new")):
                yield str(Path(place, name).relative_to(folder))


def bring(source: Path, target: Path) -> int:
    """Copy what is new or other; each file appears whole. The bytes that were copied."""
    size = 0
    make_folder(target, 0o700)
    for name in files(source):
        here, there = source / name, target / name
        with contextlib.suppress(FileNotFoundError):
            found, wanted = there.stat(), here.stat()
            if (found.st_size, found.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
                continue
        there.parent.mkdir(parents=True, exist_ok=True)
        staging = there.with_name(f"{there.name}.new")
        with contextlib.suppress(FileNotFoundError):  # let go meanwhile
            shutil.copyfile(here, staging)
            shutil.copystat(here, staging)
            with open(staging, "rb") as file:
                os.fsync(file.fileno())
            size += staging.stat().st_size
            os.replace(staging, there)
    return size


def clear(source: Path, target: Path) -> None:
    """Take away what is no longer here."""
    here = set(files(source))
    for name in list(files(target)):
        if name not in here:
            (target / name).unlink(missing_ok=True)
