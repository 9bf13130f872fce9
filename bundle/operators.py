"""Who runs this task, and from where: what the kernel and sudo know, else nothing is said."""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
UNSET = 2**32 - 1
"""The login of what nobody started, as a job of the host."""
GENERATIONS = 32


@dataclass(frozen=True, kw_only=True)
class Operator:
    """`user`, how that is `known` (login: the kernel remembers it; sudo said so; uid), and the terminal's address."""

    user: str
    known: str
    uid: int
    origin: str


def whoami(proc: Path = PROC, uid: int | None = None) -> Operator:
    """The operator of this process."""
    own = os.getuid() if uid is None else uid
    ancestors = _environments(proc)
    origin = next((e["SSH_CLIENT"].split()[0] for e in ancestors if e.get("SSH_CLIENT")), "local")
    login = _login(proc)
    if login is not None:
        return Operator(user=_name(login), known="login", uid=own, origin=origin)
    sudo = next((e["SUDO_USER"] for e in ancestors if e.get("SUDO_USER")), "")
    if own == 0 and sudo:
        return Operator(user=sudo, known="sudo", uid=own, origin=origin)
    return Operator(user=_name(own), known="uid", uid=own, origin=origin)


def _login(proc: Path) -> int | None:
    """The number under which this session was opened, which neither sudo nor su changes."""
    with contextlib.suppress(OSError, ValueError):
        number = int((proc / "self/loginuid").read_text("ascii"))
        return number if number != UNSET else None
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _environments(proc: Path) -> list[dict[str, str]]:
    """The environment of this process, then of each that it comes from: sudo keeps none of the session's."""
    found, pid = [], "self"
    for _ in range(GENERATIONS):
        try:
            raw = (proc / pid / "environ").read_bytes().decode("utf-8", "replace")
            status = (proc / pid / "status").read_text("utf-8", "replace")
        except OSError:
            break
        found.append(dict(e.split("=", 1) for e in raw.split("\0") if "=" in e))
        parents = [line.split()[1] for line in status.splitlines() if line.startswith("PPid:")]
        if not parents or parents[0] in ("0", "1"):
            break
        pid = parents[0]
    return found
