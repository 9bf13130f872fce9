"""The guard at work: reads the deny list when it changes, asks the trackers, answers nginx."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from bundle.guard.decide import Answer, Found, Known, Locks, refused
from bundle.guard.requests import SESSION, Asked, read

DENIED = Path("/run/secrets/denied.json")
SOCKET = Path("/run/guard/guard.sock")
ROOT_CA = "/run/secrets/root.crt"
WHO = {"mlflow": "/api/2.0/mlflow/users/current", "phoenix": "/v1/user"}
PATIENCE_S = 5.0
HEAD = 128 * 1024
REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden"}


@dataclass(kw_only=True)
class DenyList:
    """The names in the file, read again whenever another file is in its place."""

    path: Path = DENIED
    stamp: tuple[int, int, int] = (0, 0, 0)
    names: frozenset[str] = frozenset()

    def now(self) -> frozenset[str]:
        """Whom the site has disabled, at this moment.

        Raises OSError or ValueError when that cannot be told: then nobody may pass.
        """
        status = os.stat(self.path)
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self.stamp:
            names = json.loads(self.path.read_text("utf-8"))["denied"]
            self.names, self.stamp = frozenset(map(str, names)), stamp
        return self.names


@dataclass(frozen=True, kw_only=True)
class Trackers:
    """The trackers behind the doors, asked over verified TLS."""

    bases: Mapping[str, str]
    context: ssl.SSLContext

    def who(self, asked: Asked) -> Found:
        """Whose credentials these are, as the tracker says; blocking."""
        base = urlsplit(self.bases[asked.door])
        headers = {"Accept": "application/json"}
        if asked.authorization:
            headers["Authorization"] = asked.authorization
        if asked.cookie:
            headers["Cookie"] = f"{SESSION}={asked.cookie}"
        connection = http.client.HTTPSConnection(
            str(base.hostname), base.port, timeout=PATIENCE_S, context=self.context
        )
        with contextlib.closing(connection):
            try:
                connection.request("GET", WHO[asked.door], headers=headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                return Found()
        return found_in(asked.door, answer.status, body)


def found_in(door: str, status: int, body: bytes) -> Found:
    """What an answer of a tracker says of the one who asked."""
    if status == 401:
        return Found(wrong=True)
    try:
        user = json.loads(body)["user" if door == "mlflow" else "data"]
        names = (user.get("username"), user.get("email"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Found()
    return Found(names=tuple(str(name) for name in names if name) if status == 200 else ())


@dataclass(kw_only=True)
class Guard:
    """What is asked of each request, in this order: deny list, lock, who it is, deny list once more."""

    denied: Callable[[], frozenset[str]]
    ask: Callable[[Asked], Found]
    clock: Callable[[], float] = time.monotonic
    known: Known = field(init=False)
    locks: Locks = field(init=False)

    def __post_init__(self) -> None:
        self.known, self.locks = Known(clock=self.clock), Locks(clock=self.clock)

    async def decide(self, asked: Asked) -> Answer:
        """Whether the request may pass, and whose it is.

        Raises OSError or ValueError when the deny list cannot be read.
        """
        if refused([asked.claimed], self.denied()):
            return Answer(status=403, who=asked.claimed, why="disabled")
        if asked.anonymous:
            return Answer(status=200, who="")
        if asked.claimed and self.locks.locked(asked.claimed, asked.source):
            return Answer(status=403, why="locked")
        found = self.known.get(asked.key)
        if found is None:
            found = await asyncio.to_thread(self.ask, asked)
            self.known.put(asked.key, found)
            if asked.claimed:
                (self.locks.failed if found.wrong else self.locks.passed)(
                    asked.claimed, asked.source
                )
        if refused(found.names, self.denied()):
            return Answer(status=403, who=found.who, why="disabled")
        if found.wrong and asked.claimed:
            return Answer(status=401)
        return Answer(status=200, who=found.who)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection of nginx, request after request."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                try:
                    answer = await self.decide(read(headers_of(head)))
                except (OSError, ValueError) as error:
                    sys.stderr.write(f"nobody passes: {type(error).__name__}: {error}\n")
                    answer = Answer(status=503)
                writer.write(encoded(answer))
                await writer.drain()
        writer.close()


def headers_of(head: bytes) -> dict[str, str]:
    """The headers of a request that nginx wrote, by their lower-case names."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    split = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in split}


def encoded(answer: Answer) -> bytes:
    """The answer as nginx reads it; a name is percent-encoded, so that any name is one word of ASCII."""
    lines = [
        f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unavailable')}",
        "Content-Length: 0",
        f"X-Guard-Who: {quote(answer.who, safe='@+')}",
        f"X-Guard-Why: {answer.why}",
    ]
    if answer.status == 401:
        lines.append('WWW-Authenticate: Basic realm="mlflow"')
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def listen(guard: Guard, path: Path = SOCKET) -> None:
    """Serve on the socket until the end."""
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(guard.serve, path, limit=HEAD)
    path.chmod(0o666)  # of the two that see the folder, the other one is the gateway
    async with server:
        await server.serve_forever()
