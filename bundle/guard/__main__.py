"""`python -m bundle.guard`: serve. `python -m bundle.guard probe`: healthy is, that a request is answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys

from bundle.guard.service import ROOT_CA, SOCKET, DenyList, Guard, Trackers, listen


def probe() -> int:
    """Ask as nginx does, for nobody; the exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(4)
        connection.connect(str(SOCKET))
        connection.sendall(b"GET / HTTP/1.0\r\nX-Guard-Door: mlflow\r\n\r\n")
        line = connection.recv(1024).split(b"\r\n")[0].decode("latin-1")
    sys.stdout.write(f"{line}\n")
    return 0 if " 200 " in line else 1


def main() -> None:
    """Serve until a signal ends it."""
    bases = {"mlflow": os.environ["GUARD_MLFLOW"], "phoenix": os.environ["GUARD_PHOENIX"]}
    trackers = Trackers(bases=bases, context=ssl.create_default_context(cafile=ROOT_CA))
    guard = Guard(denied=DenyList().now, ask=trackers.who)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(listen(guard))


if __name__ == "__main__":
    sys.exit(probe()) if sys.argv[1:] == ["probe"] else main()
