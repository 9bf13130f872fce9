"""The site's own certificate for the gateway, before it is taken in: every reason why it cannot be, at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from bundle.certificates import now
from bundle.errors import Problem
from bundle.words import say

RSA_BITS = 2048
WEAK = (hashes.MD5, hashes.SHA1)
CURVES = ("secp256r1", "secp384r1")
"""Chromium takes no other curve, and no Ed25519."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """What was given: the chain (leaf first), its key, the root if it is apart; each with its path for messages."""

    chain: bytes
    chain_path: str
    key: bytes = b""
    key_path: str = ""
    root: bytes = b""
    root_path: str = ""
    passphrase: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A chain that was found good: leaf first, without the root, with the leaf's key."""

    chain: tuple[x509.Certificate, ...]
    root: x509.Certificate
    key: Any


def examine(files: Files, names: Sequence[str]) -> tuple[Imported | None, list[Problem]]:
    """What was given as one value, or every reason against it; `names` are the hosts that it must be good for."""
    problems: list[Problem] = []
    given = _certificates(files.chain, files.chain_path, problems)
    apart = _certificates(files.root, files.root_path, problems) if files.root_path else []
    key = _key(files, problems)
    if not given or (files.root_path and not apart):
        return None, problems
    leaf, place = given[0], files.chain_path
    if key is not None and key.public_key() != leaf.public_key():
        problems.append(
            _problem(
                files.key_path,
                say("is not the key of the first certificate", "첫 인증서의 키가 아닙니다"),
                say(
                    "Give the key of the certificate's request; the server's certificate comes first.",
                    "인증서 요청에 쓴 키를 주십시오. 서버 인증서가 맨 앞에 와야 합니다.",
                ),
            )
        )
    members, root = _order(given, apart, place, problems)
    problems += [_problem(place, *found) for found in _leaf(leaf, names)]
    for position, one in enumerate([*members, *([root] if root else [])]):
        label = one.subject.rfc4514_string() or "leaf"
        problems += [
            _problem(f"{place}: {label}", *found)
            for found in (*_any(one, one is root), *(_authority(one) if position else ()))
        ]
    if problems or root is None or key is None:
        return None, problems
    return Imported(chain=tuple(members), root=root, key=key), []


def _problem(where: str, message: str, hint: str) -> Problem:
    return Problem(where=where, message=message, hint=hint)


def _certificates(data: bytes, path: str, problems: list[Problem]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        problems.append(
            _problem(
                path,
                say(f"holds no certificate in PEM: {error}", f"PEM 인증서가 아닙니다: {error}"),
                say(
                    "Turn it into PEM: openssl x509 -inform DER -in FILE, or openssl pkcs12 -in FILE -nodes.",
                    "PEM으로 바꾸십시오: openssl x509 -inform DER -in FILE, 또는 openssl pkcs12 -in FILE -nodes.",
                ),
            )
        )
        return []


def _key(files: Files, problems: list[Problem]) -> Any:
    def wrong(message: str, hint: str) -> None:
        problems.append(_problem(files.key_path, message, hint))

    passphrase = say(
        "Give the right passphrase by --passphrase-file.",
        "올바른 암호를 --passphrase-file로 주십시오.",
    )
    try:
        key = serialization.load_pem_private_key(files.key, files.passphrase or None)
    except TypeError:
        if not files.passphrase:
            wrong(say("the key is encrypted", "키가 암호화되어 있습니다"), passphrase)
            return None
        key = serialization.load_pem_private_key(files.key, None)
    except (ValueError, UnsupportedAlgorithm) as error:
        what = say("holds no private key that can be read", "읽을 수 있는 개인 키가 없습니다")
        wrong(
            f"{what}: {error}",
            passphrase
            if files.passphrase
            else say("Give the key in PEM.", "키를 PEM으로 주십시오."),
        )
        return None
    return key


def _signs(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _order(
    given: list[x509.Certificate],
    apart: list[x509.Certificate],
    place: str,
    problems: list[Problem],
) -> tuple[list[x509.Certificate], x509.Certificate | None]:
    """The chain without its root, and the root: each certificate must be signed by the next."""
    roots = [one for one in (*given[1:], *apart) if one.issuer == one.subject and _signs(one, one)]
    members = [one for one in given if one not in roots]
    stray = [above for below, above in itertools.pairwise(members) if not _signs(above, below)]
    root = next((one for one in roots if _signs(one, members[-1])), None)
    if stray:
        problems.append(_problem(place, *_stray(stray[0].subject.rfc4514_string())))
    elif root is None:
        problems.append(_problem(place, *_missing(members[-1].issuer.rfc4514_string())))
    return members, root


def _stray(name: str) -> tuple[str, str]:
    return (
        say(
            f"wrong order: {name} did not sign what stands before it",
            f"순서가 잘못되었습니다: {name}가 앞의 인증서에 서명하지 않았습니다",
        ),
        say(
            "The server's certificate first, then each with its issuer after it.",
            "서버 인증서를 맨 앞에, 그 뒤에 각 발급자를 차례로 두십시오.",
        ),
    )


def _missing(name: str) -> tuple[str, str]:
    return (
        say(f"incomplete chain: {name} is missing", f"체인이 끊겼습니다: {name} 인증서가 없습니다"),
        say(
            "Add every intermediate to the file, and the site's root at its end or by --ca.",
            "중간 인증서를 모두 넣고, 사이트 루트는 파일 끝이나 --ca로 주십시오.",
        ),
    )


def _any(one: x509.Certificate, is_root: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with any certificate: its time, its key, its signature."""
    ask = say("Ask the site's CA for another one.", "사이트 CA에 다시 요청하십시오.")
    if now() >= one.not_valid_after_utc:
        when = f"{one.not_valid_after_utc:%Y-%m-%d %H:%M}Z"
        yield say(f"expired at {when}", f"{when}에 만료되었습니다"), ask
    if now() < one.not_valid_before_utc:
        when = f"{one.not_valid_before_utc:%Y-%m-%d %H:%M}Z"
        yield (
            say(f"is not valid before {when}", f"{when} 전에는 유효하지 않습니다"),
            say(
                f"This host's clock says {now():%Y-%m-%d %H:%M}Z: set it right, or wait.",
                f"이 호스트의 시각은 {now():%Y-%m-%d %H:%M}Z입니다. 시각을 맞추거나 기다리십시오.",
            ),
        )
    key = one.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS:
        yield (
            say(f"RSA key of {key.key_size} bits", f"RSA 키가 {key.key_size}비트입니다"),
            say(f"{RSA_BITS} at least, or P-256.", f"{RSA_BITS}비트 이상 또는 P-256이 필요합니다."),
        )
    elif not isinstance(key, rsa.RSAPublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES
    ):
        kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        yield (
            say(
                f"a kind of key that browsers refuse: {kind}",
                f"브라우저가 거부하는 키 종류: {kind}",
            ),
            say(
                "RSA of 2048 bits or more, P-256 or P-384.",
                "RSA 2048비트 이상, P-256 또는 P-384를 쓰십시오.",
            ),
        )
    if not is_root and isinstance(one.signature_hash_algorithm, WEAK):
        weak = one.signature_hash_algorithm.name.upper()
        yield say(f"signed with {weak}", f"{weak}로 서명되었습니다"), ask


def _extension(one: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return one.extensions.get_extension_for_class(kind)
    except (x509.ExtensionNotFound, ValueError):
        return None


def _leaf(leaf: x509.Certificate, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a server's certificate."""
    use = say("Use a certificate made for a server.", "서버용 인증서를 쓰십시오.")
    basic = _extension(leaf, x509.BasicConstraints)
    if basic and basic.value.ca:
        yield say("is a CA's certificate, not a server's", "서버가 아니라 CA의 인증서입니다"), use
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes and ExtendedKeyUsageOID.SERVER_AUTH not in purposes.value:
        yield (
            say("is not for servers (extended key usage)", "서버용이 아닙니다 (확장 키 용도)"),
            use,
        )
    usage = _extension(leaf, x509.KeyUsage)
    if usage and not usage.value.digital_signature:
        yield say("may not sign (key usage)", "서명 용도가 없습니다 (키 용도)"), use
    if not _extension(leaf, x509.AuthorityKeyIdentifier):
        yield (
            say("has no authority key identifier", "기관 키 식별자가 없습니다"),
            say("Python 3.13 refuses it.", "Python 3.13이 거부합니다."),
        )
    alternative = _extension(leaf, x509.SubjectAlternativeName)
    if alternative is None:
        yield (
            say("has no subject alternative name", "주체 대체 이름(SAN)이 없습니다"),
            say("Browsers and Go look at nothing else.", "브라우저와 Go는 SAN만 봅니다."),
        )
        return
    found = [name.lower() for name in alternative.value.get_values_for_type(x509.DNSName)]
    for name in (name for name in names if not any(covers(one, name) for one in found)):
        yield (
            say(
                f"is not for {name}, but for {', '.join(found)}",
                f"{name}용이 아니라 {', '.join(found)}용입니다",
            ),
            say(
                "invoke pki.csr makes a request for the right names.",
                "invoke pki.csr이 맞는 이름의 요청을 만듭니다.",
            ),
        )


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate (perhaps with a first label `*`) is for the host `name`."""
    if pattern.startswith("*."):
        return name.lower().partition(".")[2] == pattern[2:].lower()
    return pattern.lower() == name.lower()


def _authority(one: x509.Certificate) -> Iterator[tuple[str, str]]:
    """What is wrong with a CA's certificate: OpenSSL's strict mode, which Python 3.13 uses, is the measure."""
    strict = say(
        "Python 3.13 and other strict clients refuse it.",
        "Python 3.13 등 엄격한 클라이언트가 거부합니다.",
    )
    basic = _extension(one, x509.BasicConstraints)
    if not basic or not basic.value.ca:
        yield say("is no CA", "CA 인증서가 아닙니다"), strict
    elif not basic.critical:
        yield (
            say("its basic constraints are not critical", "기본 제약이 critical이 아닙니다"),
            strict,
        )
    usage = _extension(one, x509.KeyUsage)
    if not usage or not usage.value.key_cert_sign:
        yield (
            say("may not sign certificates (key usage)", "인증서 서명 용도가 없습니다 (키 용도)"),
            strict,
        )
    if not _extension(one, x509.SubjectKeyIdentifier):
        yield say("has no subject key identifier", "주체 키 식별자가 없습니다"), strict
