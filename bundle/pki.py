"""The project's own CA and the certificates of every hop; the only reader of pki/.

P-256 and SHA-256 throughout. The intermediate may only sign names under the site's domain (DNS names only: gRPC refuses
a constraint on addresses). Issuing is idempotent: what is there, valid and for the right names stays.
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bundle.errors import ConfigError
from bundle.host import Host, make_folder, write_file
from bundle.model import Service
from bundle.plan import Plan
from bundle.services.names import door_hosts

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


def _key() -> ec.EllipticCurvePrivateKey:
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


def make_root(site_id: str) -> Authority:
    """A new root; its name carries the installation's id, so that two roots never share one."""
    profile, key = profiles()["root"], _key()
    builder = _builder(
        _name(f"tracking-bundle {site_id} Root G1"),
        key,
        None,
        profile["days"],
        path_length=profile["path_length"],
    )
    return Authority(certificate=builder.sign(key, hashes.SHA256()), key=key)


def make_intermediate(root: Authority, domain: str, site_id: str) -> Authority:
    """A new intermediate under `root` that can only sign names under `domain`."""
    profile, key = profiles()["intermediate"], _key()
    builder = _builder(
        _name(f"tracking-bundle {site_id} Issuing"),
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
    key = _key()
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


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as unencrypted PKCS#8 PEM, for a file of mode 0400."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def names_of(certificate: x509.Certificate) -> set[str]:
    """The DNS names and addresses that a certificate is for."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = extension.get_values_for_type(x509.IPAddress)
    return {*extension.get_values_for_type(x509.DNSName), *map(str, addresses)}


def _load(certificate: Path, key: Path) -> Authority:
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=str(certificate), hint=_CA_HINT
        ) from error
    if (
        not isinstance(private, ec.EllipticCurvePrivateKey)
        or private.public_key() != loaded.public_key()
    ):
        raise ConfigError(
            "the certificate and the key beside it do not belong together",
            where=str(key),
            hint=_CA_HINT,
        )
    return Authority(certificate=loaded, key=private)


_CA_HINT = "Put the CA back from a backup; removing the folder pki/ makes a new CA that no client trusts yet."


def _store(host: Host, name: str, authority: Authority) -> None:
    """The certificate goes first and comes last: it is the mark that the pair is there."""
    host.path("pki", f"{name}.crt").unlink(missing_ok=True)
    write_file(host.path("pki", f"{name}.key"), key_pem(authority.key), mode=0o400)
    write_file(host.path("pki", f"{name}.crt"), pem(authority.certificate), mode=0o444)


def authorities(host: Host, plan: Plan) -> tuple[x509.Certificate, Authority]:
    """The root certificate and the intermediate of this installation, made at the first call.

    Raises ConfigError when what is there cannot be used.
    """
    make_folder(host.path("pki"), 0o700)
    root_files = host.path("pki", "root.crt"), host.path("pki", "root.key")
    if not root_files[0].exists():
        _store(host, "root", make_root(plan.id))
    middle_files = host.path("pki", "intermediate.crt"), host.path("pki", "intermediate.key")
    if middle_files[0].exists():
        middle = _load(*middle_files)
        constraint = middle.certificate.extensions.get_extension_for_class(
            x509.NameConstraints
        ).value
        if [name.value for name in constraint.permitted_subtrees or []] == [plan.site.domain]:
            return x509.load_pem_x509_certificate(root_files[0].read_bytes()), middle
    root = _load(
        *root_files
    )  # the domain has changed, or this is the first time: a new intermediate
    _store(host, "intermediate", make_intermediate(root, plan.site.domain, plan.id))
    return root.certificate, _load(*middle_files)


def expiry(path: Path) -> datetime.datetime:
    """When the certificate in `path` (the first of it) expires, UTC.

    Raises ConfigError when it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=str(path), hint="Run invoke install again."
        ) from error


def leaf_names(plan: Plan, service: Service) -> tuple[str, ...]:
    """Every name in the certificate of `service`."""
    if service.name != "gateway":
        return service.names
    doors = [
        host for door in ("portal", "mlflow", "phoenix") for host in door_hosts(plan.site, door)
    ]
    return tuple(dict.fromkeys((*doors, *service.names)))


def is_good(
    certificate: x509.Certificate, issuer: x509.Certificate, names: tuple[str, ...]
) -> bool:
    """Whether a leaf is signed by `issuer`, for exactly `names`, and before two thirds of its life."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return names_of(certificate) == set(names) and start <= now() < start + (end - start) * RENEW_AT


def issue(host: Host, plan: Plan) -> list[str]:
    """Give every service its certificate, key and the root it trusts; returns the services that got a new one.

    Files: `<root>/secrets/<service>/{tls.crt,tls.key,root.crt}`, owned by the service's uid, 0400 and 0444.

    Raises ConfigError when the CA cannot be used.
    """
    root, issuer = authorities(host, plan)
    renewed = []
    for service in plan.services:
        folder, names = host.path("secrets", service.name), leaf_names(plan, service)
        chain, key = folder / "tls.crt", folder / "tls.key"
        if chain.exists() and key.exists() and _matches(chain, key, issuer.certificate, names):
            continue
        profile = profiles()["gateway" if service.name == "gateway" else "internal"]
        leaf = make_leaf(issuer, names, profile["days"])
        chain.unlink(
            missing_ok=True
        )  # killed between the two writes, the next run sees that one is missing
        write_file(key, key_pem(leaf.key), mode=0o400, uid=service.uid, gid=service.uid)
        write_file(
            chain,
            pem(leaf.certificate) + pem(issuer.certificate),
            mode=0o444,
            uid=service.uid,
            gid=service.uid,
        )
        renewed.append(service.name)
    for folder in [host.path("secrets", service.name) for service in plan.services]:
        if not (folder / "root.crt").exists() or (folder / "root.crt").read_bytes() != pem(root):
            write_file(folder / "root.crt", pem(root), mode=0o444)
    return renewed


def _matches(chain: Path, key: Path, issuer: x509.Certificate, names: tuple[str, ...]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except ValueError:
        return False
    return (
        isinstance(private, ec.EllipticCurvePrivateKey)
        and private.public_key() == certificate.public_key()
        and is_good(certificate, issuer, names)
    )
