"""The deny list: whom the site has disabled. The guard at the gateway reads it anew for each request.

It lies in the guard's folder and nowhere else; the guard lets nobody pass while it is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from bundle.errors import ConfigError
from bundle.host import Host, write_file
from bundle.plan import Plan
from bundle.words import say

FILE = "denied.json"
NOBODY = "nobody"
"""Stands on every list, and is no account: by that name the checklist sees that the list holds at both doors."""


def read_denied(host: Host) -> frozenset[str]:
    """Every name and address that is refused; none before the first install.

    Raises ConfigError when the list cannot be read.
    """
    path = host.path("secrets", "guard", FILE)
    if not path.exists():
        return frozenset()
    try:
        names = json.loads(path.read_text("utf-8"))["denied"]
        return frozenset(map(str, names)) - {NOBODY}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            say(f"cannot be read: {error}", f"읽을 수 없습니다: {error}"),
            where=str(path),
            hint=say(
                "Put it back from a backup of the folder secrets/: nobody can log in until then.",
                "secrets/ 백업에서 되돌리십시오. 그때까지는 아무도 로그인할 수 없습니다.",
            ),
        ) from error


def write_denied(plan: Plan, host: Host, names: Iterable[str]) -> None:
    """Make the deny list so; it holds from the next request on."""
    data = json.dumps({"denied": sorted({*names, NOBODY})}, ensure_ascii=False).encode()
    uid = plan.service("guard").uid
    write_file(host.path("secrets", "guard", FILE), data, mode=0o400, uid=uid, gid=uid)


def ensure_denied(plan: Plan, host: Host) -> None:
    """See that there is a list, which may be empty.

    Raises ConfigError when the one that is there cannot be read.
    """
    if host.path("secrets", "guard", FILE).exists():
        read_denied(host)
    else:
        write_denied(plan, host, ())
