"""What the installation's CA issues: the certificates of every hop, the roots that are trusted, what is revoked.

Issuing is idempotent: what is there, valid and for the right names stays. A pair is switched by one rename, so that a
kill leaves the old one or the new one.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle import certificates
from bundle.authority import (
    authorities,
    current,
    generations,
    load_intermediate,
    load_root,
    make_generation,
    number,
    site_folder,
    swap_link,
    trusted,
)
from bundle.certificates import Authority, is_good, key_pem, make_leaf, pem, profiles
from bundle.host import Host, make_folder, write_file
from bundle.model import Service
from bundle.plan import Plan
from bundle.services.names import door_hosts, doors


def put_pair(folder: Path, key: bytes, chain: bytes, uid: int) -> None:
    """Put a service's key and certificates into its folder; both change in one step.

    `tls.key` and `tls.crt` lead through the link `tls` to the folder that holds the pair.
    """
    name = f".tls-{secrets.token_hex(4)}"
    make_folder(folder / name, 0o700)
    write_file(folder / name / "tls.key", key, mode=0o400, uid=uid, gid=uid)
    write_file(folder / name / "tls.crt", chain, mode=0o444, uid=uid, gid=uid)
    os.chown(folder / name, uid, uid)
    (folder / name).chmod(0o500)
    swap_link(folder / "tls", name)
    for file in ("tls.key", "tls.crt"):
        if not (folder / file).is_symlink():
            swap_link(folder / file, f"tls/{file}")
    for old in folder.glob(".tls*"):
        if old.is_symlink():
            old.unlink()
        elif old.name != name and old.is_dir():
            shutil.rmtree(old)


def trust(host: Host, plan: Plan) -> None:
    """Write down what is trusted: inside by every service, and at the doors by clients."""
    inner, site = trusted(host), site_folder(host)
    outer = (site / "root.crt").read_bytes() if site else inner
    wanted = {host.path("pki", "root.crt"): inner, host.path("pki", "clients.crt"): outer}
    wanted |= {host.path("secrets", s.name, "root.crt"): inner for s in plan.services}
    wanted[host.path("secrets", "gateway", "clients.crt")] = outer
    for path, data in wanted.items():
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(mode=0o700, exist_ok=True)  # of one without a certificate of its own
            write_file(path, data, mode=0o444)
    for extra in plan.extras:  # a client of the doors, which got its folder with its account
        path = host.path("secrets", extra.slug, "root.crt")
        if path.exists() and path.read_bytes() != outer:
            write_file(path, outer, mode=0o400, uid=extra.user, gid=extra.user)


def leaf_names(plan: Plan, service: Service) -> tuple[str, ...]:
    """Every name in the certificate of `service`."""
    if service.name != "gateway":
        return service.names
    hosts = [host for door in doors(plan.site) for host in door_hosts(plan.site, door)]
    return tuple(dict.fromkeys((*hosts, *service.names)))


def door_issuer(host: Host, plan: Plan, issuer: Authority) -> Authority:
    """Who signs the certificate that clients see: while two roots are trusted the older one, which all clients have.

    Clients get the new root in that time; the gateway moves with the end of the rotation.
    """
    oldest = generations(host)[-1]
    if oldest == current(host):
        return issuer
    older = load_intermediate(oldest)
    fits = certificates.domain_of(older.certificate) == plan.site.domain
    lives = certificates.days_left(older.certificate.not_valid_after_utc) > 0
    return older if fits and lives else issuer


def issue(host: Host, plan: Plan, *, only: tuple[str, ...] = (), anew: bool = False) -> list[str]:
    """Give every service its certificate, key and the roots it trusts; returns the services that got a new one.

    Files: `<root>/secrets/<service>/{tls.crt,tls.key,root.crt}`, owned by the service's uid, 0400 and 0444.
    `only`: these services; `anew`: what is still good too, and what it replaces goes on the list of revoked ones.

    Raises ConfigError or PreconditionError when the CA cannot be used.
    """
    _, inner = authorities(host, plan)
    outer = door_issuer(host, plan, inner)
    renewed = []
    for service in (s for s in plan.servers if not only or s.name in only):
        folder = host.path("secrets", service.name)
        if service.name == "gateway" and (site := site_folder(host)):
            key, chain = (site / "tls.key").read_bytes(), (site / "chain.crt").read_bytes()
            if _holds(folder, key, chain):
                continue
        else:
            names, issuer = leaf_names(plan, service), outer if service.name == "gateway" else inner
            if not anew and _matches(folder, issuer.certificate, names):
                continue
            if anew:
                revoke(host, folder / "tls.crt")
            kind = "gateway" if service.name == "gateway" else "internal"
            leaf = make_leaf(issuer, names, profiles()[kind]["days"])
            key = key_pem(leaf.key)
            chain = pem(leaf.certificate) + pem(issuer.certificate)
        put_pair(folder, key, chain, service.uid)
        renewed.append(service.name)
    trust(
        host, plan
    )  # last: at the end of a rotation nothing may lie here that is not trusted any more
    return renewed


def _holds(folder: Path, key: bytes, chain: bytes) -> bool:
    files = folder / "tls.key", folder / "tls.crt"
    return all(path.exists() and path.is_symlink() for path in files) and (
        files[0].read_bytes(),
        files[1].read_bytes(),
    ) == (key, chain)


def _matches(folder: Path, issuer: x509.Certificate, names: tuple[str, ...]) -> bool:
    """Whether the pair in a service's folder is whole, by `issuer`, for `names`, and not due."""
    chain, key = folder / "tls.crt", folder / "tls.key"
    if not chain.is_symlink() or not key.is_symlink():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError):
        return False
    return (
        isinstance(private, ec.EllipticCurvePrivateKey)
        and private.public_key() == certificate.public_key()
        and is_good(certificate, issuer, names)
    )


def revoke(host: Host, path: Path) -> None:
    """Note that the certificate in `path` is no longer good; the next list says so."""
    try:
        certificate, issuer, *_ = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return
    entry = {
        "serial": str(certificate.serial_number),
        "issuer": pem(issuer).decode(),
        "since": certificates.now().isoformat(),
        "until": certificate.not_valid_after_utc.isoformat(),
    }
    known = [one for one in revoked(host) if one["serial"] != entry["serial"]]
    write_file(host.path("pki", "revoked.json"), json.dumps([*known, entry]).encode(), mode=0o600)


def revoked(host: Host) -> list[dict[str, Any]]:
    """What was replaced before its time and has not expired since."""
    path = host.path("pki", "revoked.json")
    known = json.loads(path.read_text("utf-8")) if path.exists() else []
    now = certificates.now()
    return [one for one in known if datetime.datetime.fromisoformat(one["until"]) > now]


def write_lists(host: Host) -> None:
    """Make the lists of revoked certificates so: `pki/ca.crl` holds one for each intermediate and each root.

    What says the same and has more than half of its time before it stays. A root's is made while its key is here, and
    lasts as long as an intermediate.
    """
    parts = []
    for folder in generations(host):
        kept, own = folder / "root.crl", folder / "intermediate.crl"
        days = profiles()["crl"]
        if (folder / "root.key").exists() and not _says(kept, set()):
            made = certificates.make_crl(load_root(host, folder), (), days["root_days"])
            write_file(kept, made.public_bytes(serialization.Encoding.PEM), mode=0o444)
        issuer = load_intermediate(folder)
        entries = {
            int(one["serial"]): datetime.datetime.fromisoformat(one["since"])
            for one in revoked(host)
            if one["issuer"] == pem(issuer.certificate).decode()
        }
        if not _says(own, {*entries}, issuer.certificate):
            made = certificates.make_crl(issuer, entries.items(), days["intermediate_days"])
            write_file(own, made.public_bytes(serialization.Encoding.PEM), mode=0o444)
        parts += [path.read_bytes() for path in (own, kept) if path.exists()]
    for path in (host.path("pki", "ca.crl"), host.path("secrets", "gateway", "ca.crl")):
        if not path.exists() or path.read_bytes() != b"".join(parts):
            write_file(path, b"".join(parts), mode=0o444)


def _says(path: Path, serials: set[int], issuer: x509.Certificate | None = None) -> bool:
    """Whether a list is there, by `issuer`, of exactly `serials`, and more than half of its time is left."""
    if not path.exists():
        return False
    found = x509.load_pem_x509_crl(path.read_bytes())
    start, end = found.last_update_utc, found.next_update_utc
    key = issuer.public_key() if issuer else None
    if isinstance(key, ec.EllipticCurvePublicKey) and not found.is_signature_valid(key):
        return False
    fresh = end is not None and certificates.now() < start + (end - start) / 2
    return fresh and {entry.serial_number for entry in found} == serials


def begin_rotation(host: Host, plan: Plan) -> int:
    """See that there is a newer generation than the one that issues, and that everyone trusts both; its number.

    A rotation that has already switched and is not finished is gone on with.
    """
    authorities(host, plan)
    newest = generations(host)[0]
    if len(generations(host)) == 1:
        newest = make_generation(host, plan, number(newest) + 1)
    trust(host, plan)
    return number(newest)


def switch(host: Host) -> None:
    """Have the newest generation issue from here on; everyone must trust it already."""
    swap_link(host.path("pki", "current"), generations(host)[0].name)


def drop_older(host: Host) -> list[str]:
    """Put every generation aside but the one that issues; the next `issue` trusts that one only. Their names."""
    dropped = []
    for folder in generations(host):
        if folder != current(host):
            folder.rename(folder.with_name(f".old-{folder.name}"))
            dropped.append(folder.name)
    return dropped


def remove_dropped(host: Host) -> None:
    """Remove what `drop_older` put aside, after nobody trusts it any more."""
    for folder in host.path("pki").glob(".old-g*"):
        shutil.rmtree(folder)
