"""Have running servers take the certificates that lie on disk, without a dropped request, and see that they did.

Those that can reload get a SIGHUP by a command inside the container (by the engine it would end their restart policy);
the others are made anew by `install`. What a server was told last is noted, so that a killed run is gone on with.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import socket
import ssl
import struct
import time
from typing import Any

from bundle.errors import CommandError
from bundle.host import Host, write_file
from bundle.inside import execute, inspect
from bundle.model import RELOADED, Service
from bundle.plan import Plan
from bundle.run import log
from bundle.words import say

SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # how a client of Postgres asks for TLS
WITHIN_S = 20.0


def lies(host: Host, service: str) -> str:
    """A digest of the files that a server takes when it reloads."""
    whole = hashlib.sha256()
    for name in RELOADED:
        path = host.path("secrets", service, name)
        whole.update(path.read_bytes() if path.exists() else b"-")
    return whole.hexdigest()


def _noted(host: Host) -> dict[str, str]:
    path = host.path("pki", "served.json")
    try:
        found: dict[str, str] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _note(host: Host, service: str, digest: str) -> None:
    noted = _noted(host) | {service: digest}
    write_file(host.path("pki", "served.json"), json.dumps(noted).encode(), mode=0o600)


def _newest(host: Host, service: str) -> float:
    """When the last of the files was put there: the link counts, not what it leads to."""
    paths = [host.path("secrets", service, name) for name in (*RELOADED, "tls")]
    return max(path.lstat().st_mtime for path in paths if path.is_symlink() or path.exists())


def _since(started: str) -> float:
    """The engine's time of a start, whole seconds (earlier, so that a reload is rather one too many)."""
    whole = datetime.datetime.strptime(started[:19], "%Y-%m-%dT%H:%M:%S")
    return whole.replace(tzinfo=datetime.timezone.utc).timestamp()


def _running(attributes: dict[str, Any] | None) -> bool:
    return bool(attributes) and attributes["State"]["Status"] == "running"  # type: ignore[index]


def reload_changed(plan: Plan, host: Host, only: tuple[str, ...] = ()) -> list[str]:
    """Have every running server (of `only`) that can reload take what lies on disk; the names of those that had to.

    Raises CommandError when one still presents something else after `WITHIN_S`.
    """
    told, found = [], inspect(plan, host)
    for service in (s for s in plan.services if s.reloads and (not only or s.name in only)):
        digest, attributes = lies(host, service.name), found.get(service.name)
        if attributes is None or not _running(attributes):
            continue
        started = attributes["State"]["StartedAt"]
        if _noted(host).get(service.name) == f"{digest} {started}" or _since(started) > _newest(
            host, service.name
        ):
            continue
        execute(plan, host, service.name, "kill -HUP 1", timeout=30)
        wait_presented(host, service, attributes)
        _note(host, service.name, f"{digest} {started}")
        told.append(service.name)
    if told:
        log.info("  %s: %s", say("reloaded", "다시 읽음"), ", ".join(told))
    return told


def wait_presented(host: Host, service: Service, attributes: dict[str, Any]) -> None:
    """Wait until a server presents the certificate that lies on disk.

    Raises CommandError when it does not.
    """
    first = host.path("secrets", service.name, "tls.crt").read_text("ascii")
    end = "-----END CERTIFICATE-----"
    wanted = ssl.PEM_cert_to_DER_cert(first[: first.index(end) + len(end)] + "\n")
    address, stop, seen = _address(attributes), time.monotonic() + WITHIN_S, "nothing"
    while time.monotonic() < stop:
        try:
            if presented(address, service) == wanted:
                return
            seen = "another certificate"
        except OSError as error:
            seen = str(error)
        time.sleep(0.2)
    raise CommandError(
        f"presents {seen} {WITHIN_S:.0f} s after it was told to reload",
        where=service.name,
        hint=f"Look at invoke logs --service {service.name}, then run this again.",
    )


def _address(attributes: dict[str, Any]) -> str:
    """An address of a container that this host reaches."""
    networks = attributes["NetworkSettings"]["Networks"].values()
    return next(str(network["IPAddress"]) for network in networks if network["IPAddress"])


def presented(address: str, service: Service) -> bytes:
    """The certificate (DER) that a server presents now; it is compared with a file, so nothing else is verified.

    Raises OSError when none is had.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, service.port), timeout=5) as plain:
        if service.name == "postgres":
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                raise ConnectionError("the server offers no TLS")
        with context.wrap_socket(plain, server_hostname=service.names[0]) as secure:
            return secure.getpeercert(binary_form=True) or b""
