"""Making and opening recovery kits: one file, a CMS message for the certificates of named operators.

Sealed and opened by the host's own openssl (AES-256-GCM; ECDH or RSA), so it can be opened anywhere without this tool.
What it holds is never written to a disk in the clear.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bundle import authority, kit
from bundle.certificates import now
from bundle.errors import (
    CheckFailedError,
    CommandError,
    ConfigError,
    IntegrityError,
    PreconditionError,
    Problem,
)
from bundle.host import Host, make_folder, write_file
from bundle.kit import Made
from bundle.plan import Plan
from bundle.run import run, run_into
from bundle.words import say

WITHIN_S = 120
INDEX, README = "kit.json", "README.txt"
CURVES = ("secp256r1", "secp384r1")
TEXT = """\
Recovery kit of {site}, made {made} by tracking-bundle {version}. 복구 키트.

To open / 열기:
  openssl cms -decrypt -inform DER -in KIT -inkey OPERATOR.key -binary -out kit.tar && tar -tf kit.tar
To use / 사용: unpack it into an installation's root folder (secrets/, pki/, site.toml, site-id), then: invoke install
Everything in here opens the site: unpack it on the host itself only, for root only. 여기 든 것은 모든 것을 엽니다.
"""


@dataclass(frozen=True, kw_only=True)
class Recipient:
    """An operator's certificate: the name in it, its fingerprint, its file."""

    name: str
    fingerprint: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a kit was found to hold: its index, and its files by path."""

    sha256: str
    index: dict[str, Any]
    files: dict[str, bytes]


def recipients(paths: Sequence[str]) -> list[Recipient]:
    """The operators that a kit shall be for.

    Raises ConfigError with everything that is wrong with their certificates.
    """
    problems, found = [], list[Recipient]()
    if not paths:
        message = say("no recipient is named", "수신자가 없습니다")
        problems.append(Problem(where="--to", message=message, hint=_MAKE))
    for path in map(Path, paths):
        try:
            one = _recipient(path)
        except ValueError as error:
            problems.append(Problem(where=str(path), message=str(error), hint=_MAKE))
            continue
        if one.fingerprint not in [other.fingerprint for other in found]:
            found.append(one)
    if problems:
        raise ConfigError.of(problems)
    return found


_MAKE = (
    "Give an operator's certificate (PEM); without a PKI: openssl req -x509 -newkey ec -pkeyopt"
    " ec_paramgen_curve:P-256 -days 1825 -subj /CN=NAME -keyout NAME.key -out NAME.crt."
)


def _recipient(path: Path) -> Recipient:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror) from error
    if b"PRIVATE KEY" in data:
        raise ValueError(
            say(
                "holds a private key: the host must never see it",
                "개인 키가 들어 있습니다. 호스트에 두지 마십시오",
            )
        )
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise ValueError(say("is no certificate (PEM)", "인증서(PEM)가 아닙니다")) from error
    moment, key = now(), certificate.public_key()
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        end = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        raise ValueError(
            say(f"is not valid now (until {end})", f"유효 기간이 아닙니다 ({end}까지)")
        )
    strong = (isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES
    )
    if not strong:
        raise ValueError(
            say(
                "its key is neither P-256, P-384 nor RSA of 2048 bits or more",
                "키가 P-256, P-384, RSA 2048 이상이 아닙니다",
            )
        )
    return Recipient(
        name=certificate.subject.rfc4514_string(),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        path=path,
    )


def check_openssl() -> None:
    """See that the host's openssl can seal a kit.

    Raises PreconditionError.
    """
    said = run(["openssl", "version"], timeout=20)
    version = re.search(r"\b(\d+)\.\d+", said)
    if not version or int(version[1]) < 3:
        raise PreconditionError(f"openssl 3.0 or newer is needed, found {said.strip()}")


@contextmanager
def in_memory() -> Iterator[IO[bytes]]:
    """A file that is on no disk."""
    with os.fdopen(os.memfd_create("kit", os.MFD_CLOEXEC), "w+b") as file:
        yield file


def _index(
    host: Host, plan: Plan, made: str, who: list[Recipient], files: dict[str, bytes]
) -> bytes:
    roots = {
        folder.name: x509.load_pem_x509_certificate((folder / "root.crt").read_bytes())
        for folder in authority.generations(host)
    }
    index = {
        "format": 1,
        "site": plan.site.domain,
        "installation": plan.id,
        "version": plan.version,
        "made": made,
        "recipients": {one.name: one.fingerprint for one in who},
        "roots": {name: root.fingerprint(hashes.SHA256()).hex() for name, root in roots.items()},
        "issuing": authority.current(host).name,
        "contents": kit.contents(host),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    return json.dumps(index, ensure_ascii=False, indent=1).encode()


def create(
    host: Host,
    plan: Plan,
    who: list[Recipient],
    out: Path,
    root: Mapping[str, bytes] = MappingProxyType({}),
) -> Made:
    """Seal everything that belongs into a kit for `who`, into the file `out` (0600), and remember it.

    `root`: the root's key and its passphrase out of an older kit, when they are not on this host.

    Raises CommandError when openssl fails.
    """
    made = now().isoformat(timespec="seconds")
    files = {name: path.read_bytes() for name, path in kit.files(host).items()} | {**root}
    text = TEXT.format(site=plan.site.domain, made=made, version=plan.version).encode()
    held = {README: text, INDEX: _index(host, plan, made, who, files), **files}
    command = ["openssl", "cms", "-encrypt", "-binary", "-aes-256-gcm", "-outform", "DER"]
    with in_memory() as plain, tempfile.TemporaryFile() as sealed:
        with tarfile.open(fileobj=plain, mode="w") as archive:
            for name, data in held.items():
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o400
                archive.addfile(member, io.BytesIO(data))
        plain.flush()
        plain.seek(0)
        run_into([*command, *(str(one.path) for one in who)], sealed, timeout=WITHIN_S, stdin=plain)
        sealed.seek(0)
        data = sealed.read()
    write_file(out, data, mode=0o600)
    done = Made(
        sha256=hashlib.sha256(data).hexdigest(),
        file=str(out),
        made=made,
        recipients=tuple(one.name for one in who),
        contents=kit.contents(host),
        root_key=kit.holds_root_key(files, authority.current(host).name),
    )
    kit.note(host, done)
    return done


def open_kit(path: Path, key: Path, passphrase: str = "") -> Opened:
    """What the kit in `path` holds, opened by an operator's `key` (`passphrase`: the file with its passphrase).

    Raises ConfigError when a file cannot be read, IntegrityError when it does not open or is not whole.
    """
    for one in (path, key):
        if not one.is_file():
            raise ConfigError("is not there", where=str(one), hint="Give --kit and --key.")
    command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(path)]
    command += ["-inkey", str(key), "-passin", f"file:{passphrase}" if passphrase else "pass:"]
    with in_memory() as plain:
        try:
            run_into(command, plain, timeout=WITHIN_S)
        except CommandError as error:
            raise _shut(
                path, key, "does not open with this key", "이 키로 열리지 않습니다"
            ) from error
        plain.seek(0)
        try:
            with tarfile.open(fileobj=plain, mode="r:") as archive:
                held = {
                    member.name: found.read()
                    for member in archive
                    if (found := archive.extractfile(member))
                }
            index = json.loads(held.pop(INDEX))
            wanted = dict(index["files"])
        except (tarfile.TarError, KeyError, ValueError, TypeError) as error:
            raise _shut(path, key, "is no recovery kit", "복구 키트가 아닙니다") from error
    held.pop(README, None)
    if {name: hashlib.sha256(data).hexdigest() for name, data in held.items()} != wanted:
        raise _shut(path, key, "is not whole", "온전하지 않습니다")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Opened(sha256=digest, index=index, files=held)


def _shut(path: Path, key: Path, english: str, korean: str) -> IntegrityError:
    hint = say(
        f"Use the key of one of its recipients ({key} is not), or another copy of the kit.",
        f"수신자의 키를 쓰거나({key}는 아님) 키트의 다른 사본을 쓰십시오.",
    )
    return IntegrityError(say(english, korean), where=str(path), hint=hint)


def prove(host: Host, opened: Opened, moment: str) -> list[str]:
    """See that an opened kit is this installation's and holds what is in use, and remember that it was opened.

    Returns the parts that are there. Raises CheckFailedError with what is missing or other.
    """
    here = kit.files(host)
    wrong = [
        name
        for name, path in here.items()
        if name not in kit.PASSING and opened.files.get(name) != path.read_bytes()
    ]
    if wrong:
        hint = say(
            "Make a new one: invoke recovery.create.", "새로 만드십시오: invoke recovery.create."
        )
        lacking = say("lacks, or has another, ", "없거나 다른 항목: ") + ", ".join(wrong)
        raise CheckFailedError(lacking, where=opened.sha256[:16], hint=hint)
    kit.check_root_keys(opened.files)
    made = kit.last(host)
    if made is None or made.sha256 != opened.sha256:
        made = Made(
            sha256=opened.sha256,
            file="",
            made=str(opened.index["made"]),
            recipients=tuple(opened.index["recipients"]),
            contents=kit.contents(host),
            root_key=kit.holds_root_key(opened.files, authority.current(host).name),
        )
    kit.note(host, replace(made, tested=moment))
    return sorted(opened.files)


def root_key_of(host: Host, older: Opened) -> dict[str, bytes]:
    """The key of the root in use and its passphrase, out of an older kit; they pass through memory only.

    Raises ConfigError when they are on this host, CheckFailedError when that kit does not hold them.
    """
    if not authority.root_key_is_away(host):
        hint = say("Leave --root-from out.", "--root-from 없이 실행하십시오.")
        message = say("the root's key is on this host", "루트 키가 이 호스트에 있습니다")
        raise ConfigError(message, where="--root-from", hint=hint)
    folder = authority.current(host)
    names, crt = kit.root_key_names(folder.name), f"pki/{folder.name}/root.crt"
    if not {*names} <= {*older.files} or older.files.get(crt) != (folder / "root.crt").read_bytes():
        hint = say(
            "Name the kit with which it was put away.", "루트 키를 옮길 때의 키트를 지정하십시오."
        )
        message = say(
            "does not hold the key of the root in use", "지금 쓰는 루트의 키가 들어 있지 않습니다"
        )
        raise CheckFailedError(message, where="--root-from", hint=hint)
    kit.check_root_keys(older.files)
    return {name: older.files[name] for name in names}


def put_root_key_away(host: Host, opened: Opened) -> list[str]:
    """Take the root's key off this host; only when the kit that was just opened holds those very bytes.

    Raises CheckFailedError when it does not.
    """
    files = {str(path.relative_to(host.root)): path for path in authority.root_key_files(host)}
    lacking = [name for name, path in files.items() if opened.files.get(name) != path.read_bytes()]
    generation = authority.current(host).name
    if lacking or (files and not kit.holds_root_key(opened.files, generation)):
        hint = say(
            "Make a new kit: invoke recovery.create.",
            "새 키트를 만드십시오: invoke recovery.create.",
        )
        raise CheckFailedError(f"the kit lacks {', '.join(lacking)}", where="--kit", hint=hint)
    authority.put_root_key_away(host)
    return sorted(files)


def default_out(host: Host, plan: Plan) -> Path:
    """Where a kit is written unless told: to be carried off this host from there."""
    folder = host.path("recovery")
    make_folder(folder, 0o700)
    return folder / f"{plan.site.domain}-{now():%Y%m%d-%H%M%S}.kit"
