"""The recovery kit as this host knows it: what belongs into one, which was made last, and whether it still is enough.

`<root>/recovery.json` notes the last kit and the one that holds the root's key; the kits themselves belong elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bundle.authority import PASSPHRASE, root_key_files
from bundle.errors import CheckFailedError
from bundle.host import Host, write_file
from bundle.rotation import under_way
from bundle.words import say

NOTE = "recovery.json"
PLACES = (
    *("site.toml", "site-id", "installed", "releases/trusted.json"),
    *("secrets/audit.key", "secrets/guard/denied.json"),
    *("secrets/store/*", "secrets/rotated.json", "pki/g*/*", "pki/site/*", "pki/root.crt"),
)
"""What is put in: with it and a copy of the data, an installation can be made again."""
PASSING = (
    *("installed", "releases/trusted.json", "secrets/rotated.json"),
    "secrets/guard/denied.json",
)
"""What may change without making a kit too old."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A kit that was made: its digest, when, for whom, what it holds (as one digest), and when it was opened last.

    `root_key`: it holds the key of the root in use, with its passphrase.
    """

    sha256: str
    file: str
    made: str
    recipients: tuple[str, ...]
    contents: str
    root_key: bool
    tested: str = ""


def files(host: Host) -> dict[str, Path]:
    """Everything that belongs into a kit, by its path in it."""
    found = (path for place in PLACES for path in sorted(host.root.glob(place)))
    return {
        str(path.relative_to(host.root)): path
        for path in found
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".crl"
    }


def root_key_names(generation: str) -> tuple[str, str]:
    """Where a kit holds the key of the root of `generation`, and its passphrase."""
    return f"pki/{generation}/root.key", f"secrets/store/{PASSPHRASE}"


def holds_root_key(files: Mapping[str, bytes], generation: str) -> bool:
    """Whether the key of that root and its passphrase are among `files`."""
    return {*root_key_names(generation)} <= {*files}


def check_root_keys(files: Mapping[str, bytes]) -> None:
    """See that each root's key in a kit opens by the passphrase in it, and is that of the root beside it.

    Raises CheckFailedError.
    """
    passphrase = files.get(f"secrets/store/{PASSPHRASE}", b"").strip()
    for name in (name for name in files if re.fullmatch(r"pki/g\d+/root\.key", name)):
        root = x509.load_pem_x509_certificate(files[name.removesuffix("key") + "crt"])
        try:
            key = serialization.load_pem_private_key(files[name], passphrase)
        except (ValueError, TypeError) as error:
            raise CheckFailedError(f"the key does not open: {error}", where=name) from error
        if key.public_key() != root.public_key():
            raise CheckFailedError("is not the key of the root beside it", where=name)


def contents(host: Host) -> str:
    """One digest of what a kit must hold to be enough; the root's key is counted by itself."""
    apart = {*PASSING, *(str(path.relative_to(host.root)) for path in root_key_files(host))}
    whole = hashlib.sha256()
    for name, path in files(host).items():
        if name not in apart:
            whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return whole.hexdigest()


def _read(host: Host) -> dict[str, Made]:
    try:
        found = json.loads(host.path(NOTE).read_text("utf-8"))
        return {
            name: Made(**{**made, "recipients": tuple(made["recipients"])})
            for name, made in found.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def last(host: Host) -> Made | None:
    """The kit that was made last."""
    return _read(host).get("last")


def note(host: Host, made: Made) -> None:
    """Remember `made`; as the one with the root's key too when it has been opened and holds it."""
    known = _read(host) | {"last": made}
    if made.root_key and made.tested:
        known["root"] = made
    text = json.dumps({name: asdict(one) for name, one in known.items()}, indent=1)
    write_file(host.path(NOTE), text.encode(), mode=0o600)


def state(host: Host) -> tuple[bool, str]:
    """Whether there is a kit that was opened and holds what is in use, and what to say of it."""
    again = say(
        "invoke recovery.create --to RECIPIENT", "invoke recovery.create --to 수신자를 실행하십시오"
    )
    if names := under_way(host):
        return False, say(
            f"a rotation is under way ({len(names)}): invoke secrets.rotate, then {again}",
            f"비밀 교체가 진행 중입니다({len(names)}개): invoke secrets.rotate 후 {again}",
        )
    made = last(host)
    if made is None:
        return False, say(f"none: {again}", f"없음: {again}")
    short = f"{made.made[:10]} {made.sha256[:16]}"
    if made.contents != contents(host):
        return False, say(
            f"{short} is stale, secrets or settings have changed since: {again}",
            f"{short}: 이후 비밀이나 설정이 바뀌어 낡았습니다. {again}",
        )
    if not made.tested:
        return False, say(
            f"{short} has never been opened: invoke recovery.test --kit FILE --key KEY",
            f"{short}: 열어 본 적이 없습니다. invoke recovery.test --kit 파일 --key 키",
        )
    if not made.root_key:
        return False, say(
            f"{short} lacks the root's key, {where_root_key_is(host)}:"
            " invoke recovery.create --root-from THAT_KIT --test-with KEY --to RECIPIENT",
            f"{short}: 루트 키가 없습니다, {where_root_key_is(host)}."
            " invoke recovery.create --root-from 그_키트 --test-with 키 --to 수신자",
        )
    opened = say(f"opened {made.tested[:10]}", f"{made.tested[:10]}에 열어 봄")
    return True, f"{short}, {', '.join(made.recipients)}, {opened}"


def where_root_key_is(host: Host) -> str:
    """The opened kit that is known to hold the root's key, in words."""
    root = _read(host).get("root")
    if root is None:
        return say("which is in no kit known here", "이 호스트가 아는 어느 키트에도 없습니다")
    mark = f"{root.made[:10]} {root.sha256[:16]}"
    return say(f"which is in the kit of {mark}", f"{mark} 키트에 있습니다")
