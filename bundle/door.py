"""The bundle serves itself: a read-only registry on loopback, five routes, blobs sent from their place in the file.

Nothing is unpacked and little memory is used; whoever pulls checks the digests.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle import unseal
from bundle.manifest import MANIFEST_TYPE, PRODUCT, Manifest, as_bundle_error
from bundle.run import log

ROUTE = re.compile(rf"/v2/{PRODUCT}/([a-z0-9._/-]+)/(manifests|blobs)/([A-Za-z0-9._:-]+)")


@dataclass(kw_only=True)
class Shelf:
    """What the door gives out: where each blob lies in the file, which manifest a name and a tag mean.

    `visits` counts requests, `refused` keeps the blobs that were asked for and are not in the file (a delta's base).
    """

    file: Path
    blobs: Mapping[str, tuple[int, int]]
    images: Mapping[tuple[str, str], str]
    address: str = ""
    visits: int = field(default=0)
    refused: set[str] = field(default_factory=set)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of the few routes that a pull needs."""

    protocol_version = "HTTP/1.1"
    server_version = PRODUCT
    timeout = 120
    shelf: Shelf

    def handle(self) -> None:
        """Answer TLS in plain HTTP, which tells the engine to speak that; then serve."""
        with contextlib.suppress(OSError):
            if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
                self.connection.recv(1 << 16)
                self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(1)
                while self.connection.recv(
                    1 << 16
                ):  # closing with unread bytes would reset the answer away
                    pass
                return
            super().handle()

    def do_GET(self) -> None:
        """Send a manifest or a blob."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send the head of a manifest or a blob."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.shelf.visits += 1
        if path in ("/v2/", "/v2"):
            self._head(200, 2, {"Content-Type": "application/json"})
            if body:
                self.wfile.write(b"{}")
            return
        found = ROUTE.fullmatch(path)
        digest = found[3] if found else ""
        if found and found[2] == "manifests":
            digest = self.shelf.images.get((found[1], digest), digest)
        place = self.shelf.blobs.get(digest)
        if found is None or place is None:
            self.shelf.refused.update({digest} if found and found[2] == "blobs" else ())
            text = b'{"errors":[{"code":"NOT_FOUND","message":"not in this bundle"}]}'
            self._head(404, len(text), {"Content-Type": "application/json"})
            if body:
                self.wfile.write(text)
            return
        kind = MANIFEST_TYPE if found[2] == "manifests" else "application/octet-stream"
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        self._send(place, {**headers, "Accept-Ranges": "bytes"}, body)

    def _send(self, place: tuple[int, int], headers: dict[str, str], body: bool) -> None:
        offset, size = place
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]), size - 1) if wanted and wanted[2] else size - 1
        if wanted and start <= end:
            self._head(
                206, end + 1 - start, {**headers, "Content-Range": f"bytes {start}-{end}/{size}"}
            )
        else:
            start, end = 0, size - 1
            self._head(200, size, headers)
        if body and end >= start:
            self.wfile.flush()
            with unseal.Reader(self.shelf.file) as file:
                found = file.pieces(offset + start, end + 1 - start)
                sent = sum(self.connection.sendfile(*piece) for piece in found)
            self.close_connection |= (
                sent != end + 1 - start
            )  # the file is shorter than when it was checked

    def _head(self, code: int, size: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        """Keep the requests for --debug."""
        log.debug("door: " + format, *args)


class Server(http.server.ThreadingHTTPServer):
    """One thread a connection; a client that hangs up is nothing to report."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection: the engine comes again by itself."""
        log.debug("door: %s went away (%s)", client_address, request, exc_info=True)


@contextlib.contextmanager
def serve(bundle: Path, manifest: Manifest) -> Iterator[Shelf]:
    """Serve the images of `bundle` on a free port of loopback; the shelf knows the address as host:port.

    Raises IntegrityError.
    """
    images = {(image.name, manifest.version): image.manifest for image in manifest.images}
    shelf = Shelf(file=bundle, blobs=places(bundle), images=images)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"shelf": shelf}))
    shelf.address = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield shelf
    finally:
        server.shutdown()
        server.server_close()


def places(bundle: Path) -> dict[str, tuple[int, int]]:
    """Where each blob lies in `bundle`: sha256:… → (offset, size).

    Raises IntegrityError.
    """
    try:
        members = unseal.members(bundle)
    except unseal.SealError as error:
        raise as_bundle_error(error) from error
    return {
        name.removeprefix("blobs/").replace("/", ":"): place
        for name, place in members.items()
        if name.startswith("blobs/")
    }
