"""The audit log on disk: `<root>/audit/chain/*.jsonl`, one writer at a time, each line chained and signed.

The key is `<root>/secrets/audit.key` (root only). Files are called by the number of their first line. What a killed
writer left of a line is cut away by the next one, which says so in a line of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from bundle import chained, chainlog
from bundle.chained import Head, Verdict
from bundle.config import SiteConfig
from bundle.errors import ConfigError
from bundle.host import Host, make_folder, write_file
from bundle.words import say

SPOOL = "gateway"
"""In `<root>/audit`: what the gateway writes, until it is collected."""


def folder(host: Host, *parts: str) -> Path:
    """A path of the audit log."""
    return host.path("audit", *parts)


def key_file(host: Host) -> Path:
    """The key that signs the lines; only root may read it."""
    return host.path("secrets", "audit.key")


def stamp() -> str:
    """The time as lines have it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def prepare(host: Host, uid: int) -> None:
    """Make folders and key so; the gateway (`uid`) may write in its own folder only.

    Raises ConfigError when there is a log and its key is gone.
    """
    make_folder(folder(host), 0o700)
    make_folder(folder(host, "chain"), 0o700)
    spool = folder(host, SPOOL)
    make_folder(spool, 0o700)
    os.chown(spool, uid, uid)
    make_folder(host.path("secrets"), 0o700)
    if not key_file(host).exists():
        if files(host):
            raise gone(host)
        write_file(key_file(host), chained.make_key(), mode=0o400)
    public = folder(host, "public.pem")
    pem = chained.public_pem(open_key(host))
    if not public.exists() or public.read_bytes() != pem:
        write_file(public, pem)


def gone(host: Host) -> ConfigError:
    """The error for a log without its key."""
    return ConfigError(
        say("the audit log's key is gone", "감사 로그의 키가 없습니다"),
        where=str(key_file(host)),
        hint=say(
            "Put it back from a backup of secrets/, or move the folder audit/chain away to begin a new log.",
            "secrets/ 백업에서 되돌리거나, audit/chain 폴더를 옮겨 새 로그를 시작하십시오.",
        ),
    )


def open_key(host: Host) -> ec.EllipticCurvePrivateKey:
    """The key.

    Raises ConfigError when it is not there or no key.
    """
    try:
        return chained.read_key(key_file(host).read_bytes())
    except FileNotFoundError as error:
        raise gone(host) from error
    except ValueError as error:
        raise ConfigError(f"not a key: {error}", where=str(key_file(host))) from error


def begun(host: Host) -> bool:
    """Whether this installation has a log."""
    return folder(host, "chain").is_dir()


def files(host: Host) -> list[Path]:
    """The files of the log, oldest first."""
    return chainlog.files(folder(host, "chain"))


@contextlib.contextmanager
def locked(host: Host, what: str) -> Iterator[None]:
    """Hold a lock of the log; whoever comes second waits."""
    with chainlog.locked(folder(host, f".{what}.lock")):
        yield


def append(host: Host, records: Sequence[Mapping[str, Any]]) -> Head:
    """Write `records`, each as a line that follows the last one, to the disk; the head after them.

    Raises OSError when they cannot be written, ConfigError without a key.
    """
    key = open_key(host)
    with locked(host, "chain"):
        return chainlog.append(folder(host, "chain"), key, records, stamp())


def read(host: Host, newest: int = 0) -> Iterator[tuple[str, bytes]]:
    """Every line with its place; of the `newest` files only, when that is not 0."""
    return chainlog.read(folder(host, "chain"), newest)


def entries(host: Host) -> Iterator[dict[str, Any]]:
    """What the lines say; one that says nothing is passed over (audit.verify names it)."""
    for _, line in read(host):
        if entry := chained.parse_line(line):
            yield entry


def examine(host: Host, heads: Mapping[int, str], newest: int = 0) -> Verdict:
    """Whether the log is whole; of the `newest` files only, when that is not 0.

    Raises ConfigError without a key.
    """
    public = open_key(host).public_key()
    with locked(host, "chain"):  # no half line of a writer at work
        partial = 0 < newest < len(files(host))
        return chained.check(lambda: read(host, newest), public, heads, partial=partial)


def heads_in(place: Path, domain: str) -> dict[int, str]:
    """The heads that were copied to a folder, or stand in a file, by number.

    Raises ConfigError when it cannot be read, or two heads of one number differ.
    """
    found: dict[int, str] = {}
    try:
        paths = sorted(place.glob(f"{domain}-*.jsonl")) if place.is_dir() else [place]
        rows = [row for path in paths for row in path.read_text("utf-8").splitlines() if row]
    except OSError as error:
        message = say("the copied heads cannot be read", "복사된 헤드를 읽을 수 없습니다")
        raise ConfigError(f"{message}: {error.strerror}", where=str(place)) from error
    for row in rows:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(row)
            digest = found.setdefault(int(entry["seq"]), str(entry["sha256"]))
            if digest != entry["sha256"]:
                raise ConfigError(
                    say("two digests of one line", "한 줄에 두 개의 값")
                    + f": {entry['seq']} ({place})"
                )
    return found


def copied_heads(site: SiteConfig) -> dict[int, str]:
    """The heads in the site's folder for them; none where it has no such folder.

    Raises ConfigError when they cannot be read.
    """
    return heads_in(Path(site.audit_folder), site.domain) if site.audit_folder else {}


def copied(host: Host) -> Head:
    """The last head that was copied away, as far as this host knows."""
    try:
        found = json.loads(folder(host, "copied.json").read_bytes())
        return Head(seq=int(found["seq"]), digest=str(found["sha256"]))
    except (OSError, ValueError, KeyError):
        return Head()
