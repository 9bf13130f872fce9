"""What the tasks about the network do on the closed host, as lists of named steps."""

from __future__ import annotations

from pathlib import Path

from bundle import firewall as wall
from bundle.run import log, step
from bundle.words import say
from bundle.workflows.closed import open_host


def firewall(here: Path, *, add: bool, remove: bool) -> str:
    """Put the rule of the host's firewall in force, or take it away; the rule as nft reads it."""
    host, _ = open_host(here)
    if add or remove:
        with host.lock("firewall"), step(say("the host's firewall", "호스트 방화벽")):
            (wall.remove if remove else wall.put)(host)
    log.info("  %s: %s", say("rule", "규칙"), wall.state(host).told())
    return wall.rules().rstrip()
