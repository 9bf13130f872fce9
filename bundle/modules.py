"""Go modules: out of the host's module proxy into a store in the proxy's own form, each checked against go.sum.

The store can be given to Go as GOPROXY=file://…; the sources that travel are cut from it.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import os
import shutil
import ssl
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from bundle.errors import CommandError, IntegrityError, PreconditionError
from bundle.host import write_file
from bundle.recipes import file_digest
from bundle.run import log
from bundle.words import say

AT_ONCE = 2
SHOW_EVERY = 10.0
TIMEOUT = 120.0
DEFAULT = "https://proxy.golang.org"


@dataclass(frozen=True, kw_only=True, order=True)
class Wanted:
    """One file of a module: its zip or its go.mod, and the sum that go.sum has of it."""

    path: str
    version: str
    kind: str
    h1: str

    @property
    def place(self) -> str:
        """Where a module proxy has it: capitals are written as ! and the small letter."""
        return f"{escape(self.path)}/@v/{escape(self.version)}.{self.kind}"


def escape(text: str) -> str:
    """A module's path or version as it stands in a module proxy."""
    return "".join(f"!{letter.lower()}" if letter.isupper() else letter for letter in text)


def sum_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Go's sum `h1:` over the digests of named files."""
    lines = (f"{digest.hex()}  {name}\n" for name, digest in sorted(files))
    whole = hashlib.sha256("".join(lines).encode()).digest()
    return "h1:" + base64.b64encode(whole).decode()


def file_sum(path: Path, kind: str) -> str:
    """Go's sum of a module zip or a go.mod file; empty when it is not what its name says."""
    if kind == "mod":
        return sum_of([("go.mod", hashlib.sha256(path.read_bytes()).digest())])
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            return sum_of((name, hashlib.sha256(archive.read(name)).digest()) for name in names)
    except zipfile.BadZipFile:
        return ""


def proxies(setting: str) -> tuple[str, ...]:
    """The module proxies that GOPROXY names; `direct` (version control) is not one that can be asked here.

    Raises PreconditionError when it names none.
    """
    named = [part.strip().rstrip("/") for part in setting.replace("|", ",").split(",")]
    found = tuple(part for part in named if part not in ("", "direct", "off"))
    if not found:
        message = say(
            f"GOPROXY is {setting!r}, no module proxy", f"GOPROXY가 {setting!r}: 모듈 프록시가 아님"
        )
        hint = say(
            "Set GOPROXY to a module proxy; the sources of MinIO's build are fetched from it.",
            "GOPROXY에 모듈 프록시를 지정하십시오. MinIO 빌드의 소스를 거기서 받습니다.",
        )
        raise PreconditionError(message, hint=hint)
    return found


@dataclass(frozen=True, kw_only=True)
class Store:
    """Module files by their place in a proxy; a file beside each says which sum it was proven to have."""

    root: Path

    def file(self, wanted: Wanted) -> Path:
        """Where `wanted` lies."""
        return self.root / wanted.place

    def mark(self, wanted: Wanted) -> Path:
        """Where it is noted what was proven of `wanted`."""
        path = self.file(wanted)
        return path.with_name(path.name + ".proven")

    def proven(self, wanted: Wanted) -> str:
        """The sha256 of the file of `wanted`; empty unless it was fetched and its sum proven."""
        try:
            size, h1, sha256 = self.mark(wanted).read_text("utf-8").split()
            same = h1 == wanted.h1 and self.file(wanted).stat().st_size == int(size)
        except (OSError, ValueError):
            return ""
        return sha256 if same else ""

    def take(self, wanted: Wanted, partial: Path, source: str) -> None:
        """Move the fetched file into its place.

        Raises IntegrityError when it is not the locked one.
        """
        if file_sum(partial, wanted.kind) != wanted.h1:
            message = say(
                f"{wanted.place} from {source} is not the locked module",
                f"{source}에서 받은 {wanted.place}이(가) 잠긴 모듈과 다릅니다",
            )
            hint = say(
                "The module proxy gave another file than the one that was locked: do not use it.",
                "모듈 프록시가 잠긴 것과 다른 파일을 주었습니다. 사용하지 마십시오.",
            )
            raise IntegrityError(message, where="images/minio/go.sum", hint=hint)
        path = self.file(wanted)
        note = f"{partial.stat().st_size} {wanted.h1} {file_digest(partial)}\n"
        partial.replace(path)
        write_file(self.mark(wanted), note.encode())


def fetch(
    wanted: Sequence[Wanted], store: Store, setting: str, authorities: Callable[[], Path]
) -> None:
    """Every file of `wanted` into `store`, by the proxies that GOPROXY (`setting`) names.

    Raises CommandError when none of them has one, IntegrityError when it is not the locked one.
    """
    missing = [item for item in wanted if not store.proven(item)]
    if not missing:
        return
    servers = proxies(setting or DEFAULT)
    trust = ssl.create_default_context(cafile=str(authorities()))
    netrc = Path.home() / ".netrc"  # as Go does by itself
    login = httpx.NetRCAuth(str(netrc)) if netrc.is_file() else None
    done, shown_at = 0, time.monotonic()
    with (
        httpx.Client(verify=trust, timeout=TIMEOUT, follow_redirects=True, auth=login) as client,
        concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        jobs = [pool.submit(_fetch, client, servers, store, item) for item in missing]
        try:
            for job in concurrent.futures.as_completed(jobs):
                done += job.result()
                if time.monotonic() - shown_at > SHOW_EVERY:
                    shown_at = time.monotonic()
                    log.info("  Go modules: %.0f MB", done / 1e6)
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(client: httpx.Client, servers: Sequence[str], store: Store, wanted: Wanted) -> int:
    """Fetch `wanted` from the first of `servers` that has it; its bytes."""
    name = f".{escape(wanted.version)}.{wanted.kind}.{os.getpid()}.partial"
    partial = store.file(wanted).with_name(name)
    partial.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    try:
        for server in servers:
            problem = _download(client, f"{server}/{wanted.place}", partial)
            if not problem:
                store.take(wanted, partial, shown(server))
                return store.file(wanted).stat().st_size
            problems.append(f"{shown(server)}: {problem}")
    finally:
        partial.unlink(missing_ok=True)
    hint = say(
        "Look at GOPROXY, the proxy and the certificates of this host, then run this again.",
        "GOPROXY와 이 호스트의 프록시, 인증서를 확인하고 다시 실행하십시오.",
    )
    message = say("fetching", "받는 중") + f" {wanted.place}: {'; '.join(problems)}"
    raise CommandError(message, where="images/minio/go.sum", hint=hint)


def _download(client: httpx.Client, url: str, target: Path) -> str:
    """Fetch `url` into `target`; what went wrong, or empty."""
    if url.startswith("file:"):
        try:
            shutil.copyfile(url2pathname(urlsplit(url).path), target)
        except OSError as error:
            return str(error.strerror)
        return ""
    problem = ""
    for _ in range(3):
        try:
            with client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    return f"answered {answer.status_code}"
                with target.open("wb") as file:
                    for chunk in answer.iter_bytes(1 << 20):
                        file.write(chunk)
            return ""
        except httpx.HTTPError as error:
            problem = str(error) or type(error).__name__
    return problem


def shown(server: str) -> str:
    """A server's address without a login."""
    parts = urlsplit(server)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def locked(
    modules: Mapping[tuple[str, str], str], files: Mapping[tuple[str, str], str]
) -> tuple[Wanted, ...]:
    """All that go.sum names: whole modules, and the go.mod files by which Go chooses versions."""
    zips = [
        Wanted(path=path, version=version, kind="zip", h1=h1)
        for (path, version), h1 in modules.items()
    ]
    mods = [
        Wanted(path=path, version=version, kind="mod", h1=h1)
        for (path, version), h1 in files.items()
    ]
    return tuple(sorted(zips + mods))
