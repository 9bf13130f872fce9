"""Asking the published doors from the host itself: by their public names, over verified TLS, without a DNS.

A proxy in the environment is never used, and the only root that is trusted is the installation's own.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bundle.errors import CommandError
from bundle.host import Host
from bundle.plan import Plan
from bundle.services.names import port, public

TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Door:
    """One published door: `name` is in its certificate, `address` is where it listens on this host."""

    service: str
    name: str
    address: str
    port: int
    client: httpx.Client

    @property
    def authority(self) -> str:
        """Name and port as a browser sends them."""
        return self.name if self.port == 443 else f"{self.name}:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        *,
        auth: tuple[str, str] | None = None,
        bearer: str = "",
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> httpx.Response:
        """Send one request as `auth` (user, password), as the holder of the key `bearer`, or as nobody.

        Raises CommandError when the door does not answer.
        """
        sent = {"Host": self.authority, **(headers or {})}
        if bearer:
            sent["Authorization"] = f"Bearer {bearer}"
        try:
            return self.client.request(
                method,
                f"https://{self.address}:{self.port}{path}",
                headers=sent,
                auth=auth,
                extensions={"sni_hostname": self.name},
                **content,
            )
        except httpx.HTTPError as error:
            raise CommandError(
                f"no answer to {method} {path}: {type(error).__name__}: {error}",
                where=f"https://{self.authority}",
                hint="Look at invoke status and invoke logs --service gateway.",
            ) from error


def address(plan: Plan) -> str:
    """Where this host reaches the doors."""
    return "127.0.0.1" if plan.site.bind == "0.0.0.0" else plan.site.bind


def clients_ca(host: Host) -> Path:
    """What clients trust at the doors."""
    path = host.path("pki", "clients.crt")
    return path if path.exists() else host.path("pki", "root.crt")  # as an earlier version left it


def trust(host: Host) -> ssl.SSLContext:
    """A context that trusts the installation's root and nothing else.

    Raises CommandError when the root cannot be read.
    """
    path = clients_ca(host)
    try:
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:
        raise CommandError(
            f"the root certificate cannot be read: {error}",
            where=str(path),
            hint="Run invoke install again.",
        ) from error


def door(plan: Plan, host: Host, service: str, timeout: float = TIMEOUT_S) -> Door:
    """The door of `service` (portal, mlflow, phoenix), with a session of its own.

    Raises CommandError when the root certificate cannot be read.
    """
    # A connection a request: none is left open, and none is met that the server has closed in the meantime.
    limits = httpx.Limits(max_keepalive_connections=0)
    client = httpx.Client(verify=trust(host), trust_env=False, timeout=timeout, limits=limits)
    return Door(
        service=service,
        name=public(plan.site, service),
        address=address(plan),
        port=port(plan.site, service),
        client=client,
    )
