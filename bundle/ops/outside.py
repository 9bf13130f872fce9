"""Try the ways out of the network that this container is on, and what must work: or a broken probe would pass."""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

WITHIN_S = 4.0


def _works(place: str | list[Any]) -> bool:
    """Whether a name resolves, or [host, port] connects."""
    try:
        if isinstance(place, str):
            return bool(socket.getaddrinfo(place, None, socket.AF_INET))
        with socket.create_connection((place[0], int(place[1])), timeout=WITHIN_S):
            return True
    except OSError:
        return False


def _name(place: str | list[Any]) -> str:
    return f"dns {place}" if isinstance(place, str) else f"tcp {place[0]}:{place[1]}"


def main(request: dict[str, list[str | list[Any]]]) -> dict[str, dict[str, bool]]:
    """Whether each of `inside` and `outside` works."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return {
            side: dict(zip(map(_name, places), pool.map(_works, places), strict=True))
            for side, places in request.items()
        }


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
