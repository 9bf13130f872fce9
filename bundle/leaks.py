"""What must not travel, as rules over bytes: keys, tokens, and the connected host's name, paths, authorities, logins.

Pure. A rule has needles, which are found fast, and mostly a pattern that decides. A secret itself is never given back.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bundle.config import read_table
from bundle.errors import ConfigError

FORM = 7  # of the rules below; raise it when one changes
LONG = 12  # bytes.find takes larger steps the longer a needle is
BEFORE, AFTER = 64, 4096  # of a needle, what its pattern may look at
PEM = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|[\s\"'+,;])*"
    rb"(?:[A-Za-z-]+: [^\r\n\\]{1,80}(?:\\[rn]|[\s\"'+,;])+)*([A-Za-z0-9+/]{40})"
)
# A row has one first letter, for its needles are looked for together: a row costs what one needle does.
TOKENS: tuple[tuple[tuple[bytes, ...], bytes], ...] = (
    (
        (b"AKIA", b"ASIA", b"AIza"),
        (
            rb"(?<![A-Za-z0-9/+])A[KS]IA(?![A-Z0-9]{9}EXAMPLE)[A-Z2-7]{16}(?![A-Za-z0-9/+])"
            rb"|(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}(?![A-Za-z0-9_-])"
        ),
    ),
    (
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_", b"glpat-"),
        (
            rb"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}"
            rb"|glpat-[A-Za-z0-9_-]{20}"
        ),
    ),
    ((b"xoxb-", b"xoxp-", b"xoxa-"), rb"xox[abp]-[0-9]{8,}-[0-9A-Za-z-]{16}"),
    ((b"pypi-AgE",), rb"pypi-AgE[A-Za-z0-9_-]{50}"),
    ((b"npm_",), rb"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])"),
    (
        (b"sk-ant-", b"sk-proj-", b"sk_live_"),
        rb"sk-(?:ant|proj)-[A-Za-z0-9_-]{32}|sk_live_[0-9A-Za-z]{24}",
    ),
    ((b"hf_",), rb"(?<![A-Za-z0-9_])hf_[A-Za-z]{34}(?![A-Za-z0-9_])"),
)
SHORTEST_NAME = 5
COMMON_NAMES = frozenset(
    [
        "admin",
        "bookworm",
        "build",
        "buildd",
        "builder",
        "circleci",
        "conda",
        "debian",
        "default",
        "desktop",
        "docker",
        "example",
        "github",
        "gitlab",
        "jenkins",
        "kubernetes",
        "laptop",
        "linux",
        "localdomain",
        "localhost",
        "master",
        "podman",
        "python",
        "registry",
        "runner",
        "server",
        "travis",
        "trixie",
        "ubuntu",
        "vagrant",
        "worker",
        "workstation",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One class of what must not travel: any of `needles`, and around it `pattern` if there is one."""

    name: str
    needles: tuple[bytes, ...]
    pattern: re.Pattern[bytes] | None = None

    @cached_property
    def together(self) -> re.Pattern[bytes] | None:
        """All needles as one, where they are short and begin alike: one pass is as fast as that for one of them."""
        alike = len({needle[0] for needle in self.needles}) == 1
        if not self.pattern or not alike or min(map(len, self.needles)) >= LONG:
            return None
        return re.compile(b"|".join(map(re.escape, self.needles)))

    def places(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where each needle in `data` begins, and where it ends."""
        if self.together:
            match = self.together.search(data)
            while match:
                yield match.span()
                match = self.together.search(data, match.start() + 1)
            return
        for needle in self.needles:
            start = data.find(needle)
            while start >= 0:
                yield start, start + len(needle)
                start = data.find(needle, start + 1)

    def finds(self, data: bytes) -> Iterator[str]:
        """The sha256 of each secret in `data`, of the pattern's group if it has one: it gives none away."""
        for start, end in self.places(data):
            if self.pattern is None:
                yield hashlib.sha256(data[start:end]).hexdigest()
                continue
            for match in self.pattern.finditer(data, max(0, start - BEFORE), end + AFTER):
                yield hashlib.sha256(match[self.pattern.groups and 1]).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Host:
    """What is particular to the connected host.

    `names` are telling ones. `certificates`: DER of the authorities that it trusts and Debian does not; `logins`:
    passwords in its proxies' and indexes' addresses; `scalar`: the private number of the signing key.
    """

    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    certificates: tuple[bytes, ...] = ()
    logins: tuple[str, ...] = ()
    scalar: bytes = b""


@dataclass(frozen=True, kw_only=True, order=True)
class Find:
    """What must not travel: `path` is inside the member, empty for the member itself; `sha256`: the secret's."""

    rule: str
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A find that was looked at and is none: the rule, where, the digest of what was found, and why."""

    rule: str
    path: str
    sha256: str
    reason: str


def rules(host: Host) -> tuple[Rule, ...]:
    """Every rule, the host's own among them."""
    found = [Rule(name="private key", needles=(b"PRIVATE KEY",), pattern=PEM)]
    found += [
        Rule(name="token", needles=needles, pattern=re.compile(pattern))
        for needles, pattern in TOKENS
    ]
    found += [_word("host name", name) for name in host.names]
    found += [_path(path) for path in host.paths]
    found += [Rule(name="login", needles=(login.encode(),)) for login in host.logins]
    found += [
        Rule(name="certificate authority of this host", needles=_certificate_needles(der))
        for der in host.certificates
    ]
    if host.scalar:
        found.append(Rule(name="signing key", needles=_scalar_needles(host.scalar)))
    return tuple(found)


def telling(names: Iterable[str], public: Iterable[str] = ()) -> tuple[str, ...]:
    """The names, each with its first label, that mean this host: not too short, not common, not `public` words."""
    labels = {label for name in names for label in (name, name.partition(".")[0])}
    common = COMMON_NAMES | {word.lower() for word in public}
    return tuple(sorted(n for n in labels if len(n) >= SHORTEST_NAME and n.lower() not in common))


def _word(rule: str, text: str) -> Rule:
    """A name as a whole word in the usual spellings."""
    forms = tuple(sorted(form.encode() for form in {text, text.lower(), text.upper()}))
    either = b"|".join(map(re.escape, forms))
    pattern = re.compile(rb"(?<![A-Za-z0-9_-])(?:" + either + rb")(?![A-Za-z0-9_-])")
    return Rule(name=rule, needles=forms, pattern=pattern)


def _path(text: str) -> Rule:
    """A path and all under it, whatever stands before: compilers write it behind an option's letter."""
    needle = text.encode()
    pattern = re.compile(re.escape(needle) + rb"(?![A-Za-z0-9_-])")
    return Rule(name="host path", needles=(needle,), pattern=pattern)


def _certificate_needles(der: bytes) -> tuple[bytes, ...]:
    """The end of the certificate, which is its signature: in DER, and in base64 by lines of 64 or 76 letters."""
    text = base64.b64encode(der)
    return tuple(dict.fromkeys((der[-48:], _last_piece(text, 64), _last_piece(text, 76))))


def _last_piece(text: bytes, width: int) -> bytes:
    """The last 40 letters that stand in one line of `width`, counted from the line's start."""
    start = (len(text) - 40) // width * width
    return text[start : start + 40]


def _scalar_needles(scalar: bytes) -> tuple[bytes, ...]:
    """The private number as it is, in hex, and in base64 wherever it begins and wherever one line ends."""
    pieces = []
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + scalar)[
            shift + 1 :
        ]  # its first letter may hold other bits
        pieces += [text[:18], text[18:36]]
    return scalar, scalar.hex().encode(), scalar.hex().upper().encode(), *pieces


def certificates(pem: bytes) -> Iterator[bytes]:
    """The DER of every certificate in a PEM text."""
    for body in re.findall(
        rb"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.+?)-----END", pem, re.DOTALL
    ):
        try:
            yield base64.b64decode(b"".join(body.split()))
        except (binascii.Error, ValueError):
            continue


def rules_key(every: Sequence[Rule]) -> str:
    """A number for these rules; results under another number do not count."""
    digest = hashlib.sha256(str(FORM).encode())
    for rule in every:
        digest.update(repr((rule.name, rule.needles, rule.pattern)).encode())
    return digest.hexdigest()[:16]


def read_allowed(path: Path) -> tuple[Allowed, ...]:
    """The reviewed finds.

    Raises ConfigError when an entry is not whole.
    """
    found = []
    for entry in read_table(path).get("allowed", []):
        try:
            one = Allowed(**entry)
        except TypeError as error:
            raise ConfigError(f"an entry is not whole: {error}", where=str(path)) from error
        if not one.reason or not re.fullmatch(r"[0-9a-f]{64}", one.sha256):
            message = f"{one.path}: a reason and the sha256 of what was found are needed"
            raise ConfigError(message, where=str(path))
        found.append(one)
    return tuple(found)


def remaining(
    finds: Mapping[str, Iterable[Find]], allowed: Iterable[Allowed]
) -> list[tuple[str, Find]]:
    """What is left of `finds` (by member) when the reviewed ones are taken away, sorted."""
    known = list(allowed)
    return sorted(
        (member, find)
        for member, group in finds.items()
        for find in group
        if not any(
            (a.rule, a.sha256) == (find.rule, find.sha256)
            and fnmatch.fnmatchcase(find.path or member, a.path)
            for a in known
        )
    )
