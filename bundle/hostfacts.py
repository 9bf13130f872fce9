"""What is particular to this connected host and must not travel: its names, paths, own authorities, logins."""

from __future__ import annotations

import hashlib
import platform
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bundle.config import variables
from bundle.leaks import COMMON_NAMES, Host, certificates, telling
from bundle.run import log, popen
from bundle.words import say

PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")
ADDRESSES = (
    *PROXIES,
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_PROXY",
    "UV_INDEX_URL",
    "GOPROXY",
)
BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
SETTINGS = ("/etc/pip.conf", "/etc/apt/auth.conf", "/etc/apt/apt.conf", "/etc/apt/sources.list")
OWN_SETTINGS = (".pip/pip.conf", ".config/pip/pip.conf", ".netrc", ".config/go/env")
DEBIAN = Path("/usr/share/ca-certificates/mozilla")
DEBIAN_SUMS = Path("/var/lib/dpkg/info/ca-certificates.md5sums")
ADDED = Path("/usr/local/share/ca-certificates")
LOGIN = re.compile(r"://[^/\s:@]+:([^/\s@]+)@|(?:^|\blogin\s+\S+)\s+password\s+(\S+)", re.MULTILINE)
COMMENT = re.compile(r"^\s*(?:#|//|;).*$", re.MULTILINE)
PLAIN_WORD = re.compile(r"[a-z]{1,11}")
SHORTEST_PATH, SHORTEST_LOGIN = 10, 6


def gather(
    *,
    trusted: Path,
    packages: Iterable[Path],
    paths: Iterable[Path],
    public: Iterable[str],
    scalar: bytes,
) -> Host:
    """This host's particulars.

    `trusted`: the authorities that it trusts; `packages`: Debian's packages of public authorities, to tell them apart;
    `public`: words that stand in every bundle, so that a host of that name cannot be told from them.
    """
    home = Path.home()
    texts = [*variables(ADDRESSES).values(), *_settings(home)]
    proxies = [urlsplit(value).hostname or "" for value in variables(PROXIES).values()]
    names = {platform.node(), _line(Path("/etc/hostname")), *proxies} - {""}
    told = telling((name for name in names if not _is_address(name)), public)
    for name in sorted(names):
        if not any(one in told for one in (name, name.partition(".")[0])):
            log.info(
                say("  not looked for, it means no one host: %s", "  찾지 않음 (흔한 이름): %s"),
                name,
            )
    return Host(
        names=told,
        paths=telling_paths([*paths, home]),
        certificates=own_authorities(trusted, packages),
        logins=tuple(sorted(set(logins(texts)))),
        scalar=scalar,
    )


def telling_paths(paths: Iterable[Path]) -> tuple[str, ...]:
    """The paths that mean this host: long ones, and the home of a person."""
    found = set()
    for path in paths:
        text = str(path)
        person = path.parent == Path("/home") and path.name.lower() not in COMMON_NAMES
        if person or (
            len(text) >= SHORTEST_PATH and text.count("/") >= 2 and path.parent != Path("/home")
        ):
            found.add(text)
    return tuple(sorted(found))


def logins(texts: Iterable[str]) -> Iterator[str]:
    """The passwords in addresses and in netrc's form, as written and as meant; none that is a plain word."""
    for text in texts:
        for in_address, in_netrc in LOGIN.findall(COMMENT.sub("", text)):
            for form in {in_address, unquote(in_address), in_netrc}:
                telling = len(form) >= SHORTEST_LOGIN and not PLAIN_WORD.fullmatch(form)
                if telling and not form.startswith(("$", "{")):
                    yield form


def own_authorities(trusted: Path, packages: Iterable[Path]) -> tuple[bytes, ...]:
    """The authorities that this host trusts and that are not Debian's public ones."""
    public = {der for package in packages for der in _packaged(package)} | set(_installed())
    files = [trusted, *map(Path, variables(BUNDLES).values()), *sorted(ADDED.rglob("*.crt"))]
    own = {der for file in files for der in certificates(_bytes(file))}
    return tuple(sorted(own - public))


def _packaged(package: Path) -> Iterator[bytes]:
    with popen(["dpkg-deb", "--fsys-tarfile", str(package)]) as child:
        assert child.stdout is not None
        with tarfile.open(fileobj=child.stdout, mode="r|") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.name.endswith(".crt") else None
                if file:
                    yield from certificates(file.read())


def _installed() -> Iterator[bytes]:
    """Those of the host's own package, as long as they are what the package brought."""
    lines = [line.split(None, 1) for line in _text(DEBIAN_SUMS).splitlines()]
    sums = {line[1]: line[0] for line in lines if len(line) == 2}
    for path in sorted(DEBIAN.glob("*.crt")):
        data = _bytes(path)
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if sums.get(str(path).lstrip("/")) == digest:
            yield from certificates(data)


def _settings(home: Path) -> list[str]:
    files = [Path(name) for name in SETTINGS] + [home / name for name in OWN_SETTINGS]
    folders = (
        Path("/etc/apt/auth.conf.d"),
        Path("/etc/apt/apt.conf.d"),
        Path("/etc/apt/sources.list.d"),
    )
    files += [path for folder in folders for path in sorted(folder.glob("*"))]
    return [_text(path) for path in files]


def _is_address(name: str) -> bool:
    return re.fullmatch(r"[0-9.]+|[0-9a-f:]*:[0-9a-f:]*", name) is not None


def _line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
