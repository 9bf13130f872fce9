"""The CA of this installation as it lies on disk: read by several verbs, made and moved on by `pki` only.

`<root>/pki` holds one folder for each generation of the CA (`g1`, `g2` …: root and intermediate, each with its key; the
root's is encrypted), the link `current` to the one that issues, `root.crt` (every root that is trusted inside) and
`clients.crt` (what clients trust at the doors).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle import certificates
from bundle.certificates import Authority, key_pem, pem
from bundle.errors import ConfigError, PreconditionError
from bundle.host import Host, make_folder, write_file
from bundle.model import SecretSpec
from bundle.plan import Plan
from bundle.vault import generate
from bundle.words import say

GENERATION = re.compile(r"g([1-9][0-9]*)")
PASSPHRASE = "PKI_ROOT_PASSPHRASE"
_CA_HINT = "Put the CA back from a backup; removing the folder pki/ makes a new CA that no client trusts yet."


def swap_link(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target`, in one step, whatever it was before."""
    staging = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    staging.symlink_to(target)
    os.replace(staging, link)


def generations(host: Host) -> list[Path]:
    """The folder of each generation of the CA, the newest first."""
    folder = host.path("pki")
    found = [path for path in folder.glob("g*") if GENERATION.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name[1:]), reverse=True)


def current(host: Host) -> Path:
    """The folder of the generation that issues."""
    return host.path("pki", "current").resolve()


def number(folder: Path) -> int:
    """The number of a generation."""
    return int(folder.name[1:])


def _passphrase(host: Host) -> bytes:
    """What the root's key is encrypted by, made at the first call; it goes into the recovery kit with the key."""
    path = host.path("secrets", "store", PASSPHRASE)
    if not path.exists():
        make_folder(host.path("secrets"), 0o700)
        make_folder(path.parent, 0o700)
        write_file(path, generate(SecretSpec(name=PASSPHRASE)).reveal().encode(), mode=0o400)
    return path.read_bytes().strip()


def root_key_files(host: Host) -> list[Path]:
    """What the recovery kit must hold before `put_root_key_away`: each root's key, and its passphrase."""
    keys = [*host.path("pki").glob("g*/root.key"), host.path("pki", "root.key")]
    return [
        path for path in [*sorted(keys), host.path("secrets", "store", PASSPHRASE)] if path.exists()
    ]


def root_key_is_away(host: Host) -> bool:
    """Whether nothing on this host can sign as the root any more."""
    return not root_key_files(host)


def put_root_key_away(host: Host) -> None:
    """Remove the root's key and its passphrase; only for who has just proven that a recovery kit holds them."""
    for path in root_key_files(host):
        path.unlink()


def _load(certificate: Path, key: Path, passphrase: bytes | None = None) -> Authority:
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=passphrase)
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError, TypeError) as error:
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


def load_root(host: Host, folder: Path) -> Authority:
    """The root of the generation in `folder`, with its key.

    Raises PreconditionError while the key is in the recovery kit.
    """
    path = folder / "root.key"
    if not path.exists():
        raise PreconditionError(
            say("the root's key is not on this host", "루트 키가 이 호스트에 없습니다"),
            where=str(path),
            hint=say(
                f"Put {folder.name}/root.key and {PASSPHRASE} back from the recovery kit, then run this again.",
                f"복구 키트에서 {folder.name}/root.key와 {PASSPHRASE}를 되돌린 뒤 다시 실행하십시오.",
            ),
        )
    return _load(folder / "root.crt", path, _passphrase(host))


def _store(folder: Path, name: str, authority: Authority, passphrase: bytes = b"") -> None:
    """The certificate goes first and comes last: it is the mark that the pair is there."""
    (folder / f"{name}.crt").unlink(missing_ok=True)
    write_file(folder / f"{name}.key", key_pem(authority.key, passphrase), mode=0o400)
    write_file(folder / f"{name}.crt", pem(authority.certificate), mode=0o444)


def _staging(host: Host, count: int) -> Path:
    folder = host.path("pki", f".g{count}")
    if folder.exists():
        shutil.rmtree(folder)
    make_folder(folder, 0o700)
    return folder


def make_generation(host: Host, plan: Plan, count: int) -> Path:
    """A new root and its intermediate, there at once or not at all; nothing is issued or trusted by that alone."""
    folder, done = _staging(host, count), host.path("pki", f"g{count}")
    root = certificates.make_root(plan.id, count)
    _store(folder, "root", root, _passphrase(host))
    middle = certificates.make_intermediate(root, plan.site.domain, plan.id, count)
    _store(folder, "intermediate", middle)
    folder.rename(done)
    return done


def _adopt(host: Host) -> None:
    """Take over the CA of an earlier version: its files lay in pki/ itself, the root's key in the clear."""
    flat, folder = host.path("pki"), _staging(host, 1)
    if (flat / "root.key").exists():
        root = _load(flat / "root.crt", flat / "root.key")
        _store(folder, "root", root, _passphrase(host))
    else:
        write_file(folder / "root.crt", (flat / "root.crt").read_bytes(), mode=0o444)
    if (flat / "intermediate.crt").exists():
        middle = _load(flat / "intermediate.crt", flat / "intermediate.key")
        _store(folder, "intermediate", middle)
    folder.rename(flat / "g1")


def load_intermediate(folder: Path) -> Authority:
    """The intermediate of the generation in `folder`, with its key.

    Raises ConfigError when it cannot be used.
    """
    return _load(folder / "intermediate.crt", folder / "intermediate.key")


def ensure(host: Host, plan: Plan) -> None:
    """See that there is a CA: the one that is there, an earlier version's, or a new one.

    Raises ConfigError when what is there cannot be used.
    """
    folder = host.path("pki")
    make_folder(folder, 0o700)
    if not generations(host) and (folder / "root.crt").exists():
        _adopt(host)
    if not generations(host):
        make_generation(host, plan, 1)
    if not (folder / "current").is_symlink():
        swap_link(folder / "current", generations(host)[-1].name)
    if not (folder / "root.crt").exists():
        write_file(folder / "root.crt", trusted(host), mode=0o444)
    for left in ("root.key", "intermediate.key", "intermediate.crt"):
        (folder / left).unlink(missing_ok=True)


def authorities(host: Host, plan: Plan) -> tuple[x509.Certificate, Authority]:
    """The root certificate and the intermediate that issues, made at the first call.

    Raises ConfigError when what is there cannot be used, PreconditionError when a new intermediate needs a root key
    that is away.
    """
    ensure(host, plan)
    folder = current(host)
    root = x509.load_pem_x509_certificate((folder / "root.crt").read_bytes())
    if (folder / "intermediate.crt").exists():
        middle = load_intermediate(folder)
        fits = certificates.domain_of(middle.certificate) == plan.site.domain
        away = not (folder / "root.key").exists()
        if fits and (away or not certificates.is_due(middle.certificate)):
            return root, middle
    # The domain has changed, the old one is due, or there is none yet.
    new = certificates.make_intermediate(
        load_root(host, folder), plan.site.domain, plan.id, number(folder)
    )
    _store(folder, "intermediate", new)
    return root, load_intermediate(folder)


def trusted(host: Host) -> bytes:
    """The roots of every generation that is there, the newest first: what is trusted inside."""
    return b"".join((folder / "root.crt").read_bytes() for folder in generations(host))


def site_folder(host: Host) -> Path | None:
    """Where the site's own certificate for the gateway lies (chain.crt, tls.key, root.crt); None without one."""
    folder = host.path("pki", "site")
    return folder if (folder / "chain.crt").exists() else None
