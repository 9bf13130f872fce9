"""A rule of this host's firewall, on request: nothing that a container begins leaves its networks.

The engine's settings let no answer come back to a container; this rule, a table of its own for nftables, lets nothing
out in the first place, not even a packet that needs no answer, and closes this host's own ports to containers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import CommandError, PreconditionError
from bundle.host import Host, write_file
from bundle.plan import EXTRAS, bridge
from bundle.run import run
from bundle.services import s3
from bundle.words import say

TABLE = "tracking_bundle"
NETWORKS = ("data", "app", "edge", s3.NETWORK, EXTRAS)


@dataclass(frozen=True, kw_only=True)
class State:
    """Whether the rule was asked for, whether it is in force, and how many packets it has refused.

    `by_engine`: the same was put into the engine's own chain, by hand.
    """

    wanted: bool
    loaded: bool
    refused: int = 0
    by_engine: bool = False

    def good(self, profile: str) -> bool:
        """Whether it is as it was asked for; production has one, whichever it is."""
        if profile == "prod":
            return self.loaded or self.by_engine
        return self.loaded or not self.wanted

    def told(self) -> str:
        """The state in words."""
        if self.by_engine and not self.wanted:
            return say("by hand, in the engine's own chain", "엔진의 체인에 직접 적용됨")
        if self.loaded:
            return say(f"in force, refused {self.refused}", f"적용 중, 거부 {self.refused}개")
        if self.wanted:
            return say("asked for, but NOT in force", "요청되었으나 적용되지 않음")
        return say("not asked for", "요청되지 않음")


def rules() -> str:
    """The rule as nft reads it; loading it again puts it in its own place."""
    ours = ", ".join(f'"{bridge(name)}"' for name in NETWORKS)
    refuse = "ct state != { established, related } counter reject with icmpx admin-prohibited"
    return f"""# tracking-bundle: what containers begin stays inside (invoke firewall --install, --remove).
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname {{ {ours} }} oifname != {{ {ours} }} {refuse}
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname {{ {ours} }} {refuse}
  }}
}}
"""


def place(host: Host) -> Path:
    """The file whose presence says that the rule is wanted."""
    return host.path("firewall.nft")


def _nft(*arguments: str, text: str | None = None, check: bool = True) -> str:
    hint = say("Install the package nftables.", "nftables 패키지를 설치하십시오.")
    return run(["nft", *arguments], timeout=30, text=text, check=check, hint=hint)


def put(host: Host) -> None:
    """Load the rule, and have it loaded at every start.

    Raises PreconditionError without nft, CommandError when the kernel refuses.
    """
    _nft("--file", "-", text=rules())
    if not place(host).exists() or place(host).read_text("utf-8") != rules():
        write_file(place(host), rules().encode(), mode=0o644)


def keep(host: Host) -> None:
    """Load the rule if it was asked for: after a boot it is gone.

    Raises PreconditionError without nft, CommandError when the kernel refuses.
    """
    if place(host).exists():
        put(host)


def remove(host: Host) -> None:
    """Take the rule away.

    Raises CommandError when it cannot be.
    """
    if state(host).loaded:
        _nft("delete", "table", "inet", TABLE)
    place(host).unlink(missing_ok=True)


def state(host: Host) -> State:
    """How it is."""
    wanted = place(host).exists()
    try:
        found = _nft("list", "table", "inet", TABLE)
    except (CommandError, PreconditionError):  # no such table, or no nft at all
        return State(wanted=wanted, loaded=False, by_engine=_by_engine())
    refused = sum(int(number) for number in re.findall(r"packets (\d+)", found))
    return State(wanted=wanted, loaded=found.count("reject") == 2, refused=refused)


def _by_engine() -> bool:
    """Whether both lines of docs/network.md for hosts without nft are there."""
    try:
        found = run(["iptables", "-S"], timeout=30)
    except (CommandError, PreconditionError):
        return False
    edge = re.escape(bridge("edge"))
    lines = re.findall(rf"^-A (?:[A-Z]+-USER|INPUT) -i {edge} .*-j REJECT", found, re.MULTILINE)
    return len(lines) >= 2
