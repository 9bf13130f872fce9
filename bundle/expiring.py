"""What of the certificates ends when: for status, for the checklist, and for `invoke pki.status`."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from bundle.authority import current, generations, root_key_is_away, site_folder
from bundle.certificates import days_left
from bundle.errors import ConfigError
from bundle.host import Host
from bundle.plan import Plan
from bundle.words import say

DAYS_LEFT = 14
"""With so many days left, or fewer, a line is red."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that ends: a service's certificate, one of the CA, or a list of revoked ones."""

    name: str
    until: datetime.datetime
    issuer: str

    @property
    def days(self) -> int:
        """Whole days that are left."""
        return days_left(self.until)

    @property
    def good(self) -> bool:
        """Whether there is time enough."""
        return self.days > DAYS_LEFT

    def as_dict(self) -> dict[str, Any]:
        """It in the form of `invoke pki.status --format json`."""
        return {
            "name": self.name,
            "until": self.until.isoformat(),
            "days": self.days,
            "good": self.good,
            "issuer": self.issuer,
        }


def _read(path: Path, load: Callable[[bytes], object]) -> object:
    try:
        return load(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=str(path), hint="Run invoke install again."
        ) from error


def _common(name: x509.Name) -> str:
    return name.rfc4514_string() or "-"


def of_certificate(name: str, path: Path) -> Entry:
    """What the (first) certificate in `path` says.

    Raises ConfigError when it cannot be read.
    """
    found = _read(path, x509.load_pem_x509_certificate)
    assert isinstance(found, x509.Certificate)
    return Entry(name=name, until=found.not_valid_after_utc, issuer=_common(found.issuer))


def of_list(name: str, path: Path) -> Entry:
    """When the list of revoked certificates in `path` (the first of it) must be replaced.

    Raises ConfigError when it cannot be read.
    """
    found = _read(path, x509.load_pem_x509_crl)
    assert isinstance(found, x509.CertificateRevocationList)
    until = found.next_update_utc
    assert until is not None
    return Entry(name=name, until=until, issuer=_common(found.issuer))


def ca_entries(host: Host) -> list[Entry]:
    """The CA's own: root, intermediate and lists of each generation.

    Raises ConfigError when one cannot be read.
    """
    entries: list[Entry] = []
    for folder in generations(host):
        suffix = "" if folder == current(host) else say(" (older)", " (이전)")
        entries += [
            of_certificate(f"{name} {folder.name}{suffix}", folder / f"{name}.crt")
            for name in ("root", "intermediate")
        ]
        if (folder / "root.crl").exists():
            entries.append(of_list(f"crl root {folder.name}{suffix}", folder / "root.crl"))
    if (lists := host.path("pki", "ca.crl")).exists():
        entries.append(of_list("crl", lists))
    return entries


def entries(host: Host, plan: Plan) -> list[Entry]:
    """Everything that ends, the next first.

    Raises ConfigError when one cannot be read.
    """
    own = [of_certificate(s.name, host.path("secrets", s.name, "tls.crt")) for s in plan.servers]
    if site := site_folder(host):
        own.append(of_certificate("site root", site / "root.crt"))
    return sorted([*own, *ca_entries(host)], key=lambda entry: entry.until)


def root_key_line(host: Host) -> tuple[bool, str]:
    """Whether the root's key is away, and what to say of it."""
    if root_key_is_away(host):
        return True, say("not on this host", "이 호스트에 없음")
    return False, say(
        "still on this host: make a recovery kit for a recipient (invoke recovery.create --to …)",
        "아직 이 호스트에 있음: 수신자를 정해 복구 키트를 만드십시오 (invoke recovery.create --to …)",
    )
