"""Every line of the checklist, in its order; adding one is a check in its group and a line in checklist.md."""

from __future__ import annotations

import difflib

from bundle.checks import (
    audit,
    authority,
    backup,
    egress,
    extras,
    hardening,
    network,
    operations,
    safety,
    services,
    storage,
)
from bundle.checks.model import Check
from bundle.errors import ConfigError, Problem

CHECKS: tuple[Check, ...] = (
    *egress.CHECKS,
    *network.CHECKS,
    *authority.CHECKS,
    *audit.CHECKS,
    *storage.CHECKS,
    *services.CHECKS,
    *hardening.CHECKS,
    *extras.CHECKS,
    *operations.CHECKS,
    *safety.CHECKS,
    *backup.CHECKS,
)


def chosen(only: tuple[str, ...], checks: tuple[Check, ...] = CHECKS) -> tuple[Check, ...]:
    """The checks called `only`, and those that they need; all when `only` is empty.

    Raises ConfigError with every id that there is not.
    """
    known = {check.id: check for check in checks}
    problems = []
    for name in (name for name in only if name not in known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
        problems.append(Problem(where="--only", message=f"{name!r} is not a line", hint=hint))
    if problems:
        raise ConfigError.of(problems)
    wanted: set[str] = set()
    more = set(only)
    while more:
        wanted |= more
        more = {need for name in wanted for need in known[name].needs} - wanted
    return tuple(check for check in checks if not only or check.id in wanted)
