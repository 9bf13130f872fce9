"""One request over HTTP/2, its header fields just as they are written here, which no client does."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping

DATA, HEADERS, RESET, SETTINGS, AWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
STATUSES = {0x88: 200, 0x89: 204, 0x8C: 400, 0x8D: 404, 0x8E: 500}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def ask(
    place: tuple[str, int],
    authority: str,
    context: ssl.SSLContext,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
) -> int:
    """Send it; the status of the answer where one byte says it (RFC 7541, appendix A), else 0."""
    context.set_alpn_protocols(["h2"])
    own = {":method": method, ":scheme": "https", ":authority": authority, ":path": target}
    fields = b"".join(b"\x00" + _text(k) + _text(v) for k, v in {**own, **headers}.items())
    with (
        socket.create_connection(place, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=place[0]) as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
        asked = _frame(HEADERS, END_HEADERS, 1, fields) + _frame(DATA, END_STREAM, 1, body)
        secure.sendall(PREFACE + _frame(SETTINGS, 0, 0, b"") + asked)
        with secure.makefile("rb") as answer:
            while head := answer.read(9):
                kind, payload = head[3], answer.read(int.from_bytes(head[:3], "big"))
                if kind in (RESET, AWAY, HEADERS):
                    return STATUSES.get(payload[0], 0) if kind == HEADERS else 0
    return 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """A string literal of HPACK (RFC 7541, 5.2), without Huffman's code."""
    data = value.encode("latin-1")
    length, rest = (len(data), b"") if len(data) < 127 else (127, _more(len(data) - 127))
    return bytes([length]) + rest + data


def _more(number: int) -> bytes:
    low = number % 128
    return bytes([low]) if number < 128 else bytes([low | 128]) + _more(number // 128)
