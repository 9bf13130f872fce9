"""Keys that sign bundles: read or made, with or without a passphrase; a key that follows another one.

A signature is deterministic (RFC 6979): the same inputs and the same key give the same file to the last byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle.errors import ConfigError, PreconditionError
from bundle.host import make_folder, write_file
from bundle.words import say

STATEMENT = "tracking-bundle: the signing key {old} is followed by {new}\n"

Ask = Callable[[Path], bytes | None]
"""Gives the passphrase of the key in a file; nothing when there is none to be had."""


@dataclass(frozen=True, kw_only=True)
class SealKey:
    """The key that signs bundles, and where it lies; who trusts the key that it `follows` shall trust it too."""

    path: Path
    private: ec.EllipticCurvePrivateKey
    follows: SealKey | None = None

    def _public(self, encoding: serialization.Encoding) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(encoding, form)

    @property
    def pem(self) -> bytes:
        """The public key as it travels."""
        return self._public(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the public key's DER form, in hex: what the trust sheet carries."""
        return hashlib.sha256(self._public(serialization.Encoding.DER)).hexdigest()

    def sign(self, data: bytes) -> bytes:
        """The signature over `data`, always the same one."""
        return self.private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def no_passphrase(_: Path) -> bytes | None:
    """For keys that need none."""
    return None


def load_key(path: Path, *, make: bool = False, ask: Ask = no_passphrase) -> SealKey:
    """The signing key in `path`; with `make` an absent one is made, mode 0600, under the passphrase of `ask` if any.

    Raises ConfigError when it is not an ECDSA P-256 key or its passphrase is wrong, PreconditionError when others
    may read it.
    """
    if make and not path.exists():
        _make(path, ask(path))
    try:
        if path.stat().st_mode & 0o077:
            hint = say(
                f"chmod 600 {path}; if others could have read it, make a new key.",
                f"chmod 600 {path} 을 실행하십시오. 다른 사람이 읽었을 수 있으면 새 키를 만드십시오.",
            )
            message = say(
                f"the signing key {path} is open to others",
                f"서명 키 {path}를 다른 사용자가 읽을 수 있습니다",
            )
            raise PreconditionError(message, hint=hint)
        data = path.read_bytes()
    except OSError as error:
        hint = say(
            "Give the key with --sign-key, or leave that out to have one made.",
            "--sign-key로 키를 지정하거나, 빼고 실행하면 새로 만듭니다.",
        )
        message = say(f"reading the signing key: {error}", f"서명 키를 읽지 못했습니다: {error}")
        raise ConfigError(message, hint=hint) from error
    key = _open(path, data, ask)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        message = say(
            f"the signing key {path} is not an ECDSA P-256 key",
            f"서명 키 {path}는 ECDSA P-256 키가 아닙니다",
        )
        hint = say(
            "openssl ecparam -name prime256v1 -genkey -noout makes one.",
            "openssl ecparam -name prime256v1 -genkey -noout 으로 만들 수 있습니다.",
        )
        raise ConfigError(message, hint=hint)
    return SealKey(path=path, private=key)


def _make(path: Path, passphrase: bytes | None) -> None:
    fresh = ec.generate_private_key(ec.SECP256R1())
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = serialization.BestAvailableEncryption(passphrase)
    make_folder(path.parent, 0o700)
    form = serialization.PrivateFormat.PKCS8
    write_file(path, fresh.private_bytes(serialization.Encoding.PEM, form, lock), mode=0o600)


def _open(path: Path, data: bytes, ask: Ask) -> object:
    """The private key in `data`; `ask` is only asked when it is locked."""
    try:
        return serialization.load_pem_private_key(data, password=None)
    except TypeError:  # it has a passphrase
        passphrase = ask(path)
    except ValueError as error:
        message = say(
            f"the signing key {path} cannot be read: {error}",
            f"서명 키 {path}를 읽을 수 없습니다: {error}",
        )
        hint = say("Give an ECDSA P-256 key in PEM form.", "PEM 형식의 ECDSA P-256 키를 주십시오.")
        raise ConfigError(message, hint=hint) from error
    hint = say(
        "Type it when asked, or name a file that holds it with TRACKING_SIGN_PASSPHRASE_FILE.",
        "물을 때 입력하거나, 암호를 담은 파일을 TRACKING_SIGN_PASSPHRASE_FILE로 지정하십시오.",
    )
    if not passphrase:
        message = say(
            f"the signing key {path} has a passphrase, and none was given",
            f"서명 키 {path}에 암호가 있는데 주어지지 않았습니다",
        )
        raise ConfigError(message, hint=hint)
    try:
        return serialization.load_pem_private_key(data, password=passphrase)
    except ValueError as error:
        message = say(
            f"the passphrase of the signing key {path} is wrong",
            f"서명 키 {path}의 암호가 틀렸습니다",
        )
        raise ConfigError(message, hint=hint) from error


def rotation(new: SealKey) -> dict[str, bytes]:
    """Members that tell who trusts the key which `new` follows: the statement, its signature, the old key.

    Raises ConfigError when it is one key.
    """
    old = new.follows
    if old is None:
        return {}
    if old.fingerprint == new.fingerprint:
        message = say("the new key and the old one are the same", "새 키와 이전 키가 같습니다")
        hint = say(
            "Leave out --old-key, or give another --sign-key.",
            "--old-key를 빼거나 --sign-key를 바꾸십시오.",
        )
        raise ConfigError(message, where="--old-key", hint=hint)
    text = STATEMENT.format(old=old.fingerprint, new=new.fingerprint).encode()
    return {"rotation.txt": text, "rotation.sig": old.sign(text), "rotation.pem": old.pem}
