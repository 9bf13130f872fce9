"""An outside for a closed host: another network namespace at the other end of a wire, which answers and logs all.

It has well-known addresses, listens on TCP 443 and 53, and is a DNS that resolves every name. Run as a program it is
that outside, until its standard input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.closed import ClosedHost
from bundle.run import run

ADDRESSES = ("1.1.1.1", "8.8.8.8", "9.9.9.9")
HERE, THERE = "10.99.0.2", "10.99.0.1"
PORTS = (443, 53)
CONTAINERS = "172.16.0.0/12"
IP_FREEBIND = 15


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The outside of `host`; `pid` holds its namespace, `path` its log."""

    host: ClosedHost
    pid: int
    path: Path

    def log(self) -> list[dict[str, Any]]:
        """What has arrived so far."""
        return [json.loads(line) for line in self.path.read_text("ascii").splitlines()]

    def forget(self) -> None:
        """Start the log anew."""
        os.truncate(self.path, 0)

    def packets(self) -> list[dict[str, Any]]:
        """The packets that came from containers, as they were sent: nobody masqueraded them."""
        return [one for one in self.log() if one["what"] == "packet"]

    def run(self, *command: str) -> None:
        """Run a command in the outside's namespace."""
        run(["nsenter", "--target", str(self.pid), "--net", "--", *command], timeout=20)

    @contextlib.contextmanager
    def routed(self) -> Iterator[None]:
        """A site whose routers know the way back to the containers' own addresses."""
        self.run("ip", "route", "add", CONTAINERS, "via", HERE)
        yield
        self.run("ip", "route", "del", CONTAINERS, "via", HERE)


@contextlib.contextmanager
def outside(host: ClosedHost, folder: Path) -> Iterator[Outside]:
    """Join `host` by a wire to an outside, which is its default route and its DNS; `folder` holds the log."""
    log, resolver = folder / "outside.log", host.root / "etc/resolv.conf"
    log.touch()
    before = resolver.read_bytes()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    line = ["unshare", "--net", sys.executable, "-m", "tests.e2e.outside", str(log)]
    with subprocess.Popen(line, env=env, stdin=subprocess.PIPE) as child:
        try:
            wires = f"wo{child.pid}", f"wi{child.pid}"
            _until(
                lambda: os.readlink(f"/proc/{child.pid}/ns/net") != os.readlink("/proc/self/ns/net")
            )
            run(
                ["ip", "link", "add", wires[0], "type", "veth", "peer", "name", wires[1]],
                timeout=20,
            )
            run(["ip", "link", "set", wires[0], "netns", str(child.pid)], timeout=20)
            run(["ip", "link", "set", wires[1], "netns", str(host.pid)], timeout=20)
            found = Outside(host=host, pid=child.pid, path=log)
            found.run("ip", "address", "add", f"{THERE}/24", "dev", wires[0])
            found.run("ip", "link", "set", wires[0], "up")
            for command in (
                ["address", "add", f"{HERE}/24", "dev", wires[1]],
                ["link", "set", wires[1], "up"],
                ["route", "add", "default", "via", THERE],
            ):
                host.run(["ip", *command], timeout=20)
            resolver.write_text(f"nameserver {THERE}\n", "ascii")
            _until(lambda: any(one["what"] == "ready" for one in found.log()))
            found.forget()
            yield found
        finally:
            resolver.write_bytes(before)
            child.terminate()


def _until(done: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "the outside does not come up"
        time.sleep(0.1)


def _note(log: Path, what: str, **facts: object) -> None:
    with log.open("a", encoding="ascii") as file:
        file.write(json.dumps({"what": what, **facts}) + "\n")


def _listen(log: Path, port: int) -> None:
    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            connection, peer = server.accept()
            _note(log, "tcp", peer=peer[0], port=port)
            connection.settimeout(2)
            with contextlib.suppress(OSError), connection:
                said = connection.recv(4096)
                connection.sendall(b"outside: " + said)


def _resolve(log: Path, address: str) -> None:
    """Answer each question of one name with one address, from the address that was asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        server.bind((address, 53))
        while True:
            question, peer = server.recvfrom(4096)
            labels, at = [], 12
            while question[at]:
                labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
                at += 1 + question[at]
            _note(log, "dns", peer=peer[0], name=".".join(labels))
            head = (
                question[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + question[12 : at + 5]
            )
            answer = b"\xc0\x0c\x00\x01\x00\x01" + struct.pack("!IH", 60, 4) + bytes([9, 9, 9, 9])
            with contextlib.suppress(OSError):  # nobody knows the way back to a container
                server.sendto(head + answer, peer)


def _watch(log: Path) -> None:
    """Note each packet that has a container's own address."""
    kinds = {1: "icmp", 6: "tcp", 17: "udp"}
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as wire:
        while True:
            data, where = wire.recvfrom(65535)
            source, target = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20])
            if where[2] != socket.PACKET_OUTGOING and source not in (HERE, THERE, *ADDRESSES):
                _note(log, "packet", kind=kinds.get(data[9], data[9]), source=source, target=target)


def main(log: Path) -> None:
    """Be the outside."""
    for address in ADDRESSES:
        run(["ip", "address", "add", f"{address}/32", "dev", "lo"], timeout=20)
    run(["ip", "link", "set", "lo", "up"], timeout=20)
    for port in PORTS:
        threading.Thread(target=_listen, args=(log, port), daemon=True).start()
    for address in (THERE, *ADDRESSES):
        threading.Thread(target=_resolve, args=(log, address), daemon=True).start()
    threading.Thread(target=_watch, args=(log,), daemon=True).start()
    _note(log, "ready")
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
