"""New values of stored secrets on their way: which there are, what is under way, and when each was changed last.

`<root>/secrets/next` holds values that are drawn and not in use yet, `<root>/secrets/old` those that were replaced and
have not yet been seen refused. Both are empty when no rotation is under way; whatever lies there, the next run of
`invoke secrets.rotate` takes up.
"""

from __future__ import annotations

import datetime
import difflib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bundle.authority import PASSPHRASE
from bundle.errors import ConfigError, Problem
from bundle.host import Host, make_folder, write_file
from bundle.model import Rotation, Secret, SecretSpec
from bundle.plan import Plan
from bundle.vault import generate

CLASSES: tuple[Rotation, ...] = get_args(Rotation)
STAY: dict[str, str] = {
    "kit": "It changes with the root: invoke pki.rotate, then a new recovery kit.",
    "backup": "It opens the backups that there are, and is in the recovery kit.",
}
"""Classes whose secrets are not changed by themselves, and what to do instead."""
NOTES = "rotated.json"
NEXT, OLD, STORE = "next", "old", "store"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stored secret as status shows it; never its value."""

    name: str
    rotation: Rotation
    since: datetime.datetime
    rotated: str
    state: str

    @property
    def days(self) -> int:
        """Whole days since the value was made."""
        return (datetime.datetime.now(datetime.timezone.utc) - self.since).days

    def as_dict(self) -> dict[str, Any]:
        """It in the form of `invoke secrets.status --format json`."""
        return {
            "name": self.name,
            "class": self.rotation,
            "since": self.since.isoformat(timespec="seconds"),
            "days": self.days,
            "rotated": self.rotated,
            "state": self.state,
        }


def specs(plan: Plan, accounts: Iterable[str]) -> tuple[SecretSpec, ...]:
    """Every secret of the store: those of the services, of our own `accounts`, and of the root's key."""
    every = [spec for service in plan.services for spec in service.secrets]
    declared = [spec for spec in every if not spec.reference]  # the others are the site's to change
    own = [SecretSpec(name=name) for name in accounts]
    return (*declared, *own, SecretSpec(name=PASSPHRASE, rotation="kit"))


def chosen(known: tuple[SecretSpec, ...], only: Iterable[str]) -> tuple[SecretSpec, ...]:
    """The secrets that `only` names, by class or name; the free ones without any.

    Raises ConfigError with everything that cannot be chosen.
    """
    wanted = tuple(only) or ("free",)
    names = [spec.name for spec in known]
    stay = {spec.name: spec.rotation for spec in known if spec.rotation in STAY}
    choices = [*(c for c in CLASSES if c not in STAY), *(n for n in names if n not in stay)]
    problems = []
    for word in wanted:
        near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(choices)}."
        if kept := stay.get(word, word if word in STAY else ""):
            hint = STAY[kept]
            problems.append(Problem(where="--only", message=f"{word} stays", hint=hint))
        elif word not in choices:
            problems.append(
                Problem(where="--only", message=f"{word!r} is no secret and no class", hint=hint)
            )
    if problems:
        raise ConfigError.of(problems)
    return tuple(s for s in known if s.rotation not in STAY and {s.name, s.rotation} & {*wanted})


def _place(host: Host, kind: str, name: str) -> Path:
    return host.path("secrets", kind, name)


def _values(host: Host, kind: str) -> dict[str, Secret]:
    folder = host.path("secrets", kind)
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.name: Secret(path.read_text("utf-8"))
        for path in found
        if not path.name.startswith(".")
    }


def drawn(host: Host) -> dict[str, Secret]:
    """The new values that are not in use yet."""
    return _values(host, NEXT)


def replaced(host: Host) -> dict[str, Secret]:
    """The former values that have not been seen refused yet."""
    return _values(host, OLD)


def under_way(host: Host) -> list[str]:
    """The names of the secrets whose rotation has begun and has not come to its end."""
    return sorted({*drawn(host), *replaced(host)})


def draw(host: Host, wanted: Iterable[SecretSpec]) -> None:
    """Draw a new value for each of `wanted` that is not under way already."""
    known = set(under_way(host))
    for spec in wanted:
        if spec.name not in known and _place(host, STORE, spec.name).exists():
            make_folder(host.path("secrets", NEXT), 0o700)
            value = generate(spec).reveal().encode()
            write_file(_place(host, NEXT, spec.name), value, mode=0o400)


def commit(host: Host, name: str) -> None:
    """Put the new value of `name` in the place of the old one, which is kept until it has been seen refused."""
    keep_old(host, name)
    os.replace(_place(host, NEXT, name), _place(host, STORE, name))


def keep_old(host: Host, name: str) -> None:
    """Remember the value that is in use, to see later that it is refused; the first one counts."""
    old, now = _place(host, OLD, name), _place(host, STORE, name)
    if now.exists() and not old.exists():
        make_folder(host.path("secrets", OLD), 0o700)
        write_file(old, now.read_bytes(), mode=0o400)


def renew(host: Host, name: str, make: Callable[[], None]) -> None:
    """Have `make` put a new value of `name` into the store, for what only a tracker can make."""
    keep_old(host, name)
    _place(host, STORE, name).unlink(missing_ok=True)
    make()
    _place(host, NEXT, name).unlink(missing_ok=True)


def leave(host: Host, name: str) -> None:
    """Keep the value of `name` as it is, and end its rotation."""
    _place(host, NEXT, name).unlink(missing_ok=True)


def finish(host: Host, names: Iterable[str], when: datetime.datetime) -> None:
    """Note that `names` were changed, and forget their former values."""
    done = tuple(names)
    notes = _notes(host) | {name: when.isoformat(timespec="seconds") for name in done}
    write_file(host.path("secrets", NOTES), json.dumps(notes, indent=1).encode(), mode=0o600)
    for name in done:
        _place(host, OLD, name).unlink(missing_ok=True)


def _notes(host: Host) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(host.path("secrets", NOTES).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def status(host: Host, known: tuple[SecretSpec, ...]) -> list[Row]:
    """Each secret that the store has: its class, its age, its last rotation, and whether one is under way."""
    notes, begun, rows = _notes(host), under_way(host), []
    for spec in known:
        path = _place(host, STORE, spec.name)
        if path.exists() or spec.name in begun:
            made = path.stat().st_mtime if path.exists() else 0.0
            rows.append(
                Row(
                    name=spec.name,
                    rotation=spec.rotation,
                    since=datetime.datetime.fromtimestamp(made, datetime.timezone.utc),
                    rotated=notes.get(spec.name, ""),
                    state="under way" if spec.name in begun else "",
                )
            )
    return rows
