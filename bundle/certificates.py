"""Certificates as values: what is made, by which profile, and what a certificate says; nothing is kept here.

P-256 and SHA-256 throughout. The intermediate may only sign names under the site's domain (DNS names only: gRPC refuses
a constraint on addresses). The only reader of pki/.
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROFILES = Path(__file__).resolve().parent.parent / "pki" / "profiles.toml"
RENEW_AT = 2 / 3


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate that signs, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def profiles(path: Path = PROFILES) -> dict[str, Any]:
    """The certificate profiles: days and path lengths by name."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def now() -> datetime.datetime:
    """The present, UTC."""
    return datetime.datetime.now(datetime.timezone.utc)


def make_key() -> ec.EllipticCurvePrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: Authority | None,
    days: int,
    *,
    path_length: int | None,
) -> x509.CertificateBuilder:
    """What all certificates share; a certificate never outlives its issuer."""
    start = now() - datetime.timedelta(hours=profiles()["backdate_h"])
    end = now() + datetime.timedelta(days=days)
    if issuer is not None:
        end = min(end, issuer.certificate.not_valid_after_utc)
    ca = path_length is not None
    issuer_key = (issuer.key if issuer else key).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(_usage(ca=ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
        )
    )


def make_root(site_id: str, generation: int = 1) -> Authority:
    """A new root; its name carries the installation's id and a number, so that two roots never share one."""
    profile, key = profiles()["root"], make_key()
    builder = _builder(
        _name(f"tracking-bundle {site_id} Root G{generation}"),
        key,
        None,
        profile["days"],
        path_length=profile["path_length"],
    )
    return Authority(certificate=builder.sign(key, hashes.SHA256()), key=key)


def make_intermediate(root: Authority, domain: str, site_id: str, generation: int = 1) -> Authority:
    """A new intermediate under `root` that can only sign names under `domain`."""
    profile, key = profiles()["intermediate"], make_key()
    builder = _builder(
        _name(f"tracking-bundle {site_id} Issuing G{generation}"),
        key,
        root,
        profile["days"],
        path_length=profile["path_length"],
    ).add_extension(
        x509.NameConstraints(permitted_subtrees=[x509.DNSName(domain)], excluded_subtrees=None),
        critical=True,
    )
    return Authority(certificate=builder.sign(root.key, hashes.SHA256()), key=key)


def make_leaf(issuer: Authority, names: tuple[str, ...], days: int) -> Authority:
    """A new server certificate for `names` (DNS names and IPv4 addresses; the first, a DNS name, is its subject)."""
    key = make_key()
    subject = x509.Name([]) if len(names[0]) > 64 else _name(names[0])
    builder = (
        _builder(subject, key, issuer, days, path_length=None)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(n) for n in names]),
            critical=len(names[0]) > 64,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return Authority(certificate=builder.sign(issuer.key, hashes.SHA256()), key=key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.IPv4Address(name))
    except ValueError:
        return x509.DNSName(name)


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    """A private key as PKCS#8 PEM, for a file of mode 0400; encrypted when there is a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def names_of(certificate: x509.Certificate) -> set[str]:
    """The DNS names and addresses that a certificate is for."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = extension.get_values_for_type(x509.IPAddress)
    return {*extension.get_values_for_type(x509.DNSName), *map(str, addresses)}


def is_good(
    certificate: x509.Certificate, issuer: x509.Certificate, names: tuple[str, ...]
) -> bool:
    """Whether a leaf is signed by `issuer`, for exactly `names`, and before two thirds of its life."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return names_of(certificate) == set(names) and not is_due(certificate)


def is_due(certificate: x509.Certificate) -> bool:
    """Whether a certificate is past two thirds of its life (30 days before the end of 90), or not valid yet."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return not start <= now() < start + (end - start) * RENEW_AT


def days_left(until: datetime.datetime) -> int:
    """Whole days from now until `until`."""
    return (until - now()).days


def domain_of(intermediate: x509.Certificate) -> str:
    """The domain that an intermediate of ours may sign under."""
    found = intermediate.extensions.get_extension_for_class(x509.NameConstraints).value
    names = [str(name.value) for name in found.permitted_subtrees or []]
    return names[0] if len(names) == 1 else ""


def make_crl(
    issuer: Authority, revoked: Iterable[tuple[int, datetime.datetime]], days: int
) -> x509.CertificateRevocationList:
    """The list of what `issuer` signed and is no longer good: (serial, since when)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now() - datetime.timedelta(hours=profiles()["backdate_h"]))
        .next_update(now() + datetime.timedelta(days=days))
        .add_extension(x509.CRLNumber(int(now().timestamp())), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    for serial, since in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        reason = x509.CRLReason(x509.ReasonFlags.superseded)
        builder = builder.add_revoked_certificate(
            entry.add_extension(reason, critical=False).build()
        )
    return builder.sign(issuer.key, hashes.SHA256())


def make_request(
    names: tuple[str, ...], organisation: str, key: ec.EllipticCurvePrivateKey
) -> bytes:
    """A request (CSR, PEM) for a server certificate for the DNS names `names`, the first its subject."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= 64 else []
    if organisation and len(organisation) <= 64:
        subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)
