"""Lines that prove one another: each carries the digest of the line before it, and the site's signature.

A line is one JSON object, signed as it stands without its last member `sig`. Since every line is in the next one's
digest, a log is right when its links hold and its last signature does; only a broken one is looked at line by line.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle.words import say

GENESIS = "0" * 64
"""What the first line follows."""
SIGNATURE = b',"sig":"'

Lines = Callable[[], Iterator[tuple[str, bytes]]]
"""Reads a log from its beginning: where a line stands, and its bytes."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A line by its number and digest."""

    seq: int = 0
    digest: str = GENESIS


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a log is: `wrong` says which line is the first bad one and how; `repairs` are the lines that tell of one."""

    lines: int = 0
    first: int = 1
    head: Head = field(default_factory=Head)
    wrong: str = ""
    repairs: tuple[int, ...] = ()


def make_key() -> bytes:
    """A new key, as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def read_key(data: bytes) -> ec.EllipticCurvePrivateKey:
    """The key in PEM.

    Raises ValueError when it is none, or of another kind.
    """
    key = serialization.load_pem_private_key(data, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as strangers get it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """The sha256 of the public key's DER form, in hex."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = key.public_key().public_bytes(serialization.Encoding.DER, form)
    return hashlib.sha256(der).hexdigest()


def digest_of(line: bytes) -> str:
    """What the next line says of this one."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def make_line(key: ec.EllipticCurvePrivateKey, after: Head, record: Mapping[str, Any]) -> bytes:
    """The line that says `record` and follows `after`."""
    whole = {"seq": after.seq + 1, "prev": after.digest, **record}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    signature = base64.b64encode(key.sign(text, ec.ECDSA(hashes.SHA256())))
    return text[:-1] + SIGNATURE + signature + b'"}\n'


def parse_line(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for what is no line of a log."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    right = isinstance(entry, dict) and type(entry.get("seq")) is int and line.endswith(b"\n")
    return entry if right else None


def is_signed(public: ec.EllipticCurvePublicKey, line: bytes) -> bool:
    """Whether the holder of the key wrote this line as it stands."""
    text, mark, rest = line.rstrip(b"\n").rpartition(SIGNATURE)
    try:
        signature = base64.b64decode(rest.removesuffix(b'"}'), validate=True)
        public.verify(signature, text + b"}", ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return bool(mark)


def check(
    read: Lines,
    public: ec.EllipticCurvePublicKey,
    heads: Mapping[int, str] | None = None,
    *,
    partial: bool = False,
) -> Verdict:
    """Whether nothing was changed, taken away, moved, added or cut off; `heads` are digests kept elsewhere.

    `partial`: it is not the whole log that is read, but its end.
    """
    found = _Walk(public=public, heads=heads or {}, partial=partial).go(read)
    if not found.wrong:
        return found
    later = {entry["seq"] for _, line in read() if (entry := parse_line(line))}
    thorough = _Walk(public=public, heads=heads or {}, partial=partial, each=True, there=later)
    return thorough.go(read)


@dataclass(kw_only=True)
class _Walk:
    """One reading of a log; `each`: every signature is checked, and `there` are the numbers that stand somewhere."""

    public: ec.EllipticCurvePublicKey
    heads: Mapping[int, str]
    partial: bool = False
    each: bool = False
    there: set[int] = field(default_factory=set)
    last: Head | None = None
    start: Head = field(default_factory=Head)
    pruned: Head = field(default_factory=Head)
    repairs: list[int] = field(default_factory=list)
    lines: int = 0

    def go(self, read: Lines) -> Verdict:
        """Read to the first bad line, or to the end."""
        at, line, wrong = "", b"", ""
        for place, line in read():
            at = place
            if wrong := self.step(line):
                break
        else:
            wrong = self.end(line)
        head = self.last or Head()
        return Verdict(
            lines=self.lines,
            first=self.start.seq + 1,
            head=head,
            wrong=f"{at}: {wrong}" if wrong and at else wrong,
            repairs=tuple(self.repairs),
        )

    def step(self, line: bytes) -> str:
        """Take one more line; what is wrong with it."""
        entry = parse_line(line)
        if entry is None:
            return say("not a line of this log, or half of one", "로그의 줄이 아니거나 잘린 줄")
        seq = entry["seq"]
        if self.each and not is_signed(self.public, line):
            return say(
                f"line {seq} was changed, or not written here", f"{seq}번 줄이 바뀌었거나 위조됨"
            )
        if self.last is None:
            self.last = self.start = Head(seq=seq - 1, digest=str(entry.get("prev")))
        if seq != self.last.seq + 1:
            return self.out_of_order(seq, self.last.seq + 1)
        if entry.get("prev") != self.last.digest:
            return say(
                f"line {seq} does not follow line {seq - 1}: that one was changed or replaced",
                f"{seq}번 줄이 {seq - 1}번 줄에 이어지지 않음: 앞 줄이 바뀜",
            )
        self.last = Head(seq=seq, digest=digest_of(line))
        if self.heads.get(seq, self.last.digest) != self.last.digest:
            return say(
                f"line {seq} is not the one whose digest was copied away: the log was rewritten",
                f"{seq}번 줄이 외부에 복사된 값과 다름: 로그가 다시 쓰임",
            )
        if entry.get("kind") == "repair":
            self.repairs.append(seq)
        if entry.get("kind") == "pruned":
            self.pruned = Head(seq=int(entry["through"]), digest=str(entry["digest"]))
        self.lines += 1
        return ""

    def out_of_order(self, seq: int, wanted: int) -> str:
        """What it means that `seq` stands where `wanted` should."""
        if seq < wanted:
            return say(f"line {seq} stands here once more", f"{seq}번 줄이 다시 나옴")
        if wanted in self.there:
            return say(
                f"reordered: line {seq} stands before line {wanted}",
                f"순서가 바뀜: {seq}번 줄이 {wanted}번 줄보다 앞에 있음",
            )
        return say(f"missing: lines {wanted} to {seq - 1}", f"없어진 줄: {wanted}~{seq - 1}")

    def end(self, line: bytes) -> str:
        """What is wrong with the log as a whole."""
        if self.last is None:
            return say("there is no line", "줄이 없음") if not self.heads else self.cut(0)
        if not self.each and not is_signed(self.public, line):
            return "signature"  # the thorough reading finds the first such line
        if not self.partial and self.start not in (Head(), self.pruned):
            return say(
                f"missing: everything before line {self.start.seq + 1}",
                f"없어진 줄: {self.start.seq + 1}번 앞 전부",
            )
        return self.cut(self.last.seq) if max(self.heads, default=0) > self.last.seq else ""

    def cut(self, seq: int) -> str:
        """The sentence for a log that ends too soon."""
        most = max(self.heads)
        return say(
            f"cut off after line {seq}: line {most} was there when its digest was copied away",
            f"{seq}번 줄 뒤가 잘림: 외부 복사본에는 {most}번 줄이 있었음",
        )
