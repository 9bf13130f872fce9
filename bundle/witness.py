"""Who a browser asks for beside the stack: a name server and a proxy that note everything and give nothing.

They stand in the closed host's network, where nobody else answers; the browser is told of both.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

CONTROL = "control.example"
"""A name that must be noted by both, or they would see nothing."""
BROWSER = ("accounts.google.com", "content-autofill.googleapis.com", "update.googleapis.com")
"""What Chromium asks for by itself, whatever page is open; a page's own requests are looked at apart."""
NOTHING = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\nConnection: close\r\n\r\nnothing"


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What was asked for: names of the name server, first lines of requests to the proxy, which listens on `port`."""

    port: int
    names: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def strangers(self) -> list[str]:
        """What was asked for, without the control and what the browser asks for by itself.

        Raises AssertionError when the control itself was not seen.
        """
        assert any(CONTROL in name for name in self.names), "the name server sees nothing"
        assert any(CONTROL in line for line in self.requests), "the proxy sees nothing"
        known = (CONTROL, *BROWSER)
        return [
            one for one in (*self.names, *self.requests) if not any(name in one for name in known)
        ]


def question(packet: bytes) -> str:
    """The name that a packet of DNS asks for."""
    labels, at = [], 12
    while at < len(packet) and packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode("latin-1"))
        at += 1 + packet[at]
    return ".".join(labels)


@contextlib.contextmanager
def witness() -> Iterator[Witness]:
    """Listen on the loopback: DNS on port 53, a proxy on any."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver,
        socket.create_server(("127.0.0.1", 0)) as proxy,
    ):
        resolver.bind(("127.0.0.1", 53))
        seen = Witness(port=proxy.getsockname()[1])
        for listen, where in ((_resolve, resolver), (_refuse, proxy)):
            threading.Thread(target=listen, args=(where, seen), daemon=True).start()
        yield seen


def _resolve(server: socket.socket, seen: Witness) -> None:
    """Say of every name that there is none."""
    with contextlib.suppress(OSError):
        while True:
            packet, peer = server.recvfrom(4096)
            seen.names.append(question(packet))
            server.sendto(packet[:2] + b"\x81\x83" + packet[4:6] + bytes(6) + packet[12:], peer)


def _refuse(server: socket.socket, seen: Witness) -> None:
    """Fetch nothing."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                seen.requests.append(connection.recv(4096).decode("latin-1").partition("\r\n")[0])
                connection.sendall(NOTHING)
