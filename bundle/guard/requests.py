"""What a request says about its sender: the credentials as the tracker behind the door would read them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

SESSION = "phoenix-access-token"
"""The cookie of Phoenix that names a session."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request at a door (mlflow, phoenix): its credentials, and the address that it came from.

    `claimed` is the name that a Basic credential claims; nobody has looked at the password yet.
    """

    door: str
    source: str
    claimed: str = ""
    authorization: str = ""
    cookie: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether it bears nothing that the tracker would look at."""
        return not (self.authorization or self.cookie)

    @property
    def key(self) -> bytes:
        """A digest of door and credentials: what is known of them is kept under it, they themselves never are."""
        parts = (self.door, self.authorization, self.cookie)
        return hashlib.sha256("\0".join(parts).encode("latin-1", "replace")).digest()


def read(headers: Mapping[str, str]) -> Asked:
    """The request that nginx asks about; `headers` by their lower-case names."""
    door, source = headers.get("x-guard-door", ""), headers.get("x-guard-from", "")
    authorization = headers.get("authorization", "").strip()
    scheme, _, value = authorization.partition(" ")
    claimed = basic_name(value) if scheme.lower() == "basic" else ""
    if door == "mlflow":
        basic = authorization if scheme.lower() == "basic" else ""
        return Asked(door=door, source=source, authorization=basic, claimed=claimed)
    session = "" if authorization else session_of(headers.get("cookie", ""))
    bearer = authorization if scheme.lower() == "bearer" else ""
    return Asked(door=door, source=source, authorization=bearer, cookie=session, claimed=claimed)


def basic_name(value: str) -> str:
    """The name in a Basic credential; empty when it is none."""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return ""
    return text.partition(":")[0]


def session_of(cookie: str) -> str:
    """Phoenix' session in a Cookie header; empty when there is none."""
    try:
        found = SimpleCookie(cookie).get(SESSION)
    except CookieError:
        return ""
    return found.value if found else ""
