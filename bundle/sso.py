"""Single sign-on: what Phoenix needs of the site's identity provider beside its settings: client secret and CA."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from bundle.borrowed import borrow
from bundle.certificates import now
from bundle.errors import ConfigError
from bundle.host import Host, write_file
from bundle.plan import Plan
from bundle.services.phoenix import IDP_CA, IDP_SECRET
from bundle.words import say

WHERE = "site.toml: oidc"


def prepare(plan: Plan, host: Host) -> None:
    """Put secret and CA where Phoenix reads them; without an identity provider they go.

    Raises ConfigError when one cannot be used.
    """
    service, site = plan.service("phoenix"), plan.site
    files = {IDP_SECRET: b"", IDP_CA: b""}
    if site.oidc_url:
        secret = borrow(site.oidc_secret, f"{WHERE}.secret")
        files = {IDP_SECRET: secret.reveal().encode(), IDP_CA: read_ca(Path(site.oidc_ca))}
    for name, data in files.items():
        path = host.path("secrets", service.name, name)
        if not data:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            write_file(path, data, mode=0o400, uid=service.uid, gid=service.uid)


def read_ca(path: Path) -> bytes:
    """The certificates of a PEM file that can be trusted for an identity provider.

    Raises ConfigError when there is none, or one is expired or no CA.
    """
    where = f"{WHERE}.ca"
    try:
        data = path.read_bytes()
        found = x509.load_pem_x509_certificates(data)
    except (OSError, ValueError) as error:
        raise _refusal(path, where, f"cannot be read as PEM: {error}") from error
    for certificate in found:
        name = certificate.subject.rfc4514_string()
        if certificate.not_valid_after_utc <= now():
            raise _refusal(
                path, where, f"{name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
            )
        if not _is_authority(certificate):
            raise _refusal(path, where, f"{name} is the certificate of a server, not of a CA")
    return data


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _refusal(path: Path, where: str, why: str) -> ConfigError:
    hint = say(
        "Name the PEM file of the CA that signed the identity provider's certificate.",
        "ID 공급자의 인증서에 서명한 CA의 PEM 파일을 지정하십시오.",
    )
    return ConfigError(f"{path}: {why}", where=where, hint=hint)
