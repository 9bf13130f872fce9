"""The ways out that must not be: by the engine's own settings, and tried from inside each container.

In a network without any outside every try fails by nature. So what this host itself can reach there is tried too (its
DNS, its router), a refusal counts as reached, and the evidence says how much of all that this host reaches.
"""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bundle import firewall
from bundle.checks.model import Check, Stage, settle
from bundle.checks.stage import in_each, inspected
from bundle.model import Service
from bundle.plan import EXTRAS, NO_DNS, NO_PING, bridge
from bundle.services import forward, s3
from bundle.services.names import internal
from bundle.templates import render

OUTSIDE = (("1.1.1.1", 443), ("8.8.8.8", 53), ("9.9.9.9", 443))
OUTSIDE_NAMES = ("example.com", "pypi.org")
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
BRIDGE = "com.docker.network.bridge.name"
WITHIN_S = 4

# Each line: what was tried, and `open` or `blocked`; the first two are controls, or a broken probe would pass.
# Whoever refuses a connection was reached. The question that is sent asks for example.com; of the answer of the
# container's own resolver the code counts: 2 and 5 are its own, any other came from outside.
_TRY = r"""
export Q='\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01'
say() { case "$2" in open*) echo "$1 open";; *) echo "$1 blocked";; esac; }
tcp() {
  said=$(timeout 4 bash -c "exec 3<>/dev/tcp/$1/$2 && echo open" 2>&1)
  say "tcp $1:$2" "$(echo "$said" | sed -n 's/.*refused.*/open/p; s/^open$/open/p')"
}
udp() {
  timeout 4 bash -c "exec 3<>/dev/udp/$1/53; printf \"\$Q\" >&3; head -c 4 <&3 | od -An -tx1" 2>&1 |
    sed -n 's/.*refused.*/refused/p; s/^ \([0-9a-f][0-9a-f] .*\)/\1/p'
}
dig() { case "$(udp "$1")" in '') say "udp $1:53" no;; *) say "udp $1:53" open;; esac; }
own() { case "$(udp 127.0.0.11)" in *2|*5|'') say resolver no;; *) say resolver open;; esac; }
dns() { timeout 4 getent ahostsv4 "$1" >/dev/null && say "dns $1" open || say "dns $1" no; }
"""
# Facts of the container's own kernel side: a default route, an address of IPv6, who may ping, what rights are left.
_FACTS = r"""
awk '$2 == "00000000" && $8 == "00000000" {print "fact route " $1}' /proc/net/route
awk '$6 != "lo" && $4 != "20" {print "fact ipv6 " $1}' /proc/net/if_inet6 2>/dev/null
echo "fact ping $(cat /proc/sys/net/ipv4/ping_group_range)" | tr '\t' ' '
awk '$1 == "CapBnd:" {print "fact rights " $2}' /proc/self/status
"""

# What the forwarder was told, and the ports on which it listens beside the loopback.
_LIST = r"""
echo "fact list $(sha256sum </etc/nginx/nginx.conf | cut -d ' ' -f 1)"
awk '$4 == "0A" && $2 !~ /^(0100007F|0B00007F)/ {sub(/.*:/, "", $2); print "fact port " $2}' /proc/net/tcp
"""


def routers(table: str) -> list[str]:
    """The default routers in the text of /proc/net/route."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return [
        socket.inet_ntoa(struct.pack("<I", int(row[2], 16)))
        for row in rows
        if len(row) > 7 and row[1] == row[7] == "00000000" and row[2] != "00000000"
    ]


def resolvers(texts: Iterable[str]) -> list[str]:
    """The IPv4 name servers in texts of resolv.conf that are not this host itself."""
    rows = [line.split() for text in texts for line in text.splitlines()]
    found = [
        row[1] for row in rows if len(row) > 1 and row[0] == "nameserver" and ":" not in row[1]
    ]
    return [one for one in dict.fromkeys(found) if not one.startswith("127.")]


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def neighbours() -> tuple[tuple[str, int], ...]:
    """What this host uses outside of itself: its name servers and its routers."""
    servers, ways = resolvers(map(_text, RESOLVERS)), routers(_text("/proc/net/route"))
    return (*((one, 53) for one in servers), *((one, 80) for one in ways))


def _reached(place: tuple[str, int]) -> bool:
    """Whether this host reaches an address; who refuses was reached."""
    try:
        socket.create_connection(place, timeout=WITHIN_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def net_egress(stage: Stage) -> list[str]:
    """No container reaches an outside address or resolves a name of outside; what is near is, so the probe works."""
    places = (*OUTSIDE, *neighbours())
    tries = [f"tcp {host} {port}" for host, port in places]
    tries += [f"dig {host}" for host in dict.fromkeys(host for host, _ in places)]
    tries += ["own", *(f"dns {name}" for name in OUTSIDE_NAMES)]
    outside = "".join(f"{line} &\n" for line in tries) + "wait\n"

    def script(service: Service) -> str:
        own = _LIST if service.name == forward.NAME else outside
        return "\n".join((_TRY, *_near(stage, service), own, _FACTS))

    with ThreadPoolExecutor(max_workers=len(places)) as pool:
        here = sum(pool.map(_reached, places))
    wrong: list[str] = []
    evidence: list[str] = []
    for name, lines in in_each(stage, script, timeout=30).items():
        found = _judge(stage, stage.plan.service(name), lines, len(tries))
        wrong += [f"{name}: {line}" for line in found]
        evidence.append(f"{name}: {len(tries)} ways out tried (TCP, UDP, DNS), all blocked")
        if name == forward.NAME:
            evidence[-1] = f"{name}: the only way out, to {', '.join(stage.plan.site.allow)}"
    wrong += open_networks(stage)
    evidence.append("by the engine: data and app internal, edge without masquerading and DNS")
    rule = firewall.state(stage.host)
    good = rule.good(stage.plan.site.profile)
    (evidence if good else wrong).append(f"rule of the host's firewall: {rule.told()}")
    evidence.append(f"this host itself reaches {here} of the {len(places)} addresses tried")
    return settle(wrong, evidence)


def _near(stage: Stage, service: Service) -> list[str]:
    """What a container must reach: the controls, and the forwarder by the names that are allowed."""
    mlflow = internal(stage.plan.site, "mlflow")
    known = f"tcp 127.0.0.1 {service.port}" if service.port else f"tcp {mlflow} 5000"
    allowed = forward.places(stage.plan.site) if service.links else ()
    return [
        known,
        f"dns {service.names[0]}",
        *(f"tcp {place.name} {place.port}" for place in allowed),
    ]


def _judge(stage: Stage, service: Service, lines: list[str], tries: int) -> list[str]:
    """What is wrong in a container, by the lines that its script printed."""
    near = len(_near(stage, service))
    tried = [line for line in lines if not line.startswith("fact ")]
    facts = [line.removeprefix("fact ") for line in lines if line.startswith("fact ")]
    forwarder = service.name == forward.NAME
    wrong = surplus(facts, service) + (other_list(stage, facts) if forwarder else [])
    wanted = near + (0 if forwarder else tries)
    if len(tried) != wanted or not all(line.endswith(" open") for line in tried[:near]):
        wrong.append(f"the probe does not work there: {lines}")
    return wrong + [line for line in tried[near:] if line.endswith("open")]


def other_list(stage: Stage, facts: list[str]) -> list[str]:
    """Where the forwarder's list is not that of site.toml: what it was told, and where it listens."""
    wanted = next(file for file in render(stage.plan) if file.path.parent.name == forward.NAME)
    digest = hashlib.sha256(wanted.text.encode()).hexdigest()
    found = dict(fact.split(" ", 1) for fact in facts if fact.startswith("list"))
    ports = {int(fact.split()[1], 16) for fact in facts if fact.startswith("port")}
    wrong = [] if found.get("list") == digest else ["its list is not that of site.toml"]
    more = ports - set(forward.by_port(stage.plan.site))
    return wrong + [f"listens on {port}, which is not allowed" for port in sorted(more)]


def surplus(facts: list[str], service: Service) -> list[str]:
    """What a container has and needs not: a route out, an address of IPv6, the right to ping or any other."""
    found = dict(fact.split(" ", 1) for fact in facts if not fact.startswith("route"))
    wrong = [f"has an address of IPv6: {found['ipv6']}"] if "ipv6" in found else []
    outer = {"edge", forward.NETWORK} & set(service.networks)
    if any(fact.startswith("route") for fact in facts) and not outer:
        wrong.append("has a default route")
    if found.get("ping", "").split() != NO_PING.split():
        wrong.append(f"may ping: {found.get('ping', 'unknown')}")
    if int(found.get("rights", "f"), 16):
        wrong.append(f"has rights: {found.get('rights', 'unknown')}")
    return wrong


def open_networks(stage: Stage) -> list[str]:
    """What the engine says of the networks: in a closed network a way out would lead nowhere and look blocked."""
    wrong = []
    networks = [("data", True), ("app", True), ("edge", False)]
    networks += [(name, True) for name in s3.door_networks(stage.plan.site)]
    networks += [(EXTRAS, True)] if stage.plan.extras else []
    networks += [(forward.NETWORK, False)] if stage.plan.site.allow else []
    for network, internal_only in networks:
        name = f"{stage.plan.project}_{network}"
        found = stage.host.engine.network(name)
        if found is None:
            wrong.append(f"network {name} is not there")
            continue
        wrong += [f"network {name} {line}" for line in unlike(found, network, internal_only)]
    return wrong + _unplanned(stage)


def unlike(found: Mapping[str, Any], network: str, internal_only: bool) -> list[str]:
    """Where a network is not as it was planned."""
    options = found.get("Options") or {}
    wrong = []
    if internal_only and not found.get("Internal"):
        wrong.append("is not internal")
    if network == "edge" and options.get(MASQUERADE) != "false":
        wrong.append("masquerades: containers on it get out")
    if found.get("EnableIPv6"):
        wrong.append("has IPv6")
    if options.get(BRIDGE) != bridge(network):
        wrong.append(f"is on the bridge {options.get(BRIDGE)}, not on {bridge(network)}")
    return wrong


def _unplanned(stage: Stage) -> list[str]:
    """Containers on networks that they should not be on, and those that ask a name server outside."""
    project = stage.plan.project
    allowed = {s.name: {f"{project}_{n}" for n in s.networks} for s in stage.plan.services}
    allowed |= {extra.slug: {f"{project}_{EXTRAS}"} for extra in stage.plan.extras}
    wrong = []
    for service, facts in inspected(stage).items():
        extra = set(facts["NetworkSettings"]["Networks"]) - allowed.get(service, set())
        wrong += [f"{service} is on the network {name}, which is not planned" for name in extra]
        if service != forward.NAME and facts["HostConfig"].get("Dns") != [NO_DNS]:
            wrong.append(f"{service} asks the name server {facts['HostConfig'].get('Dns')}")
    return wrong


CHECKS = (
    Check(
        id="net-egress",
        group="network",
        title={
            "ko": "컨테이너에서 외부로 나가는 길이 없음 (TCP, UDP, DNS, ICMP)",
            "en": "No way out of any container (TCP, UDP, DNS, ICMP)",
        },
        hint={
            "ko": "invoke uninstall, install로 네트워크를 다시 만드십시오(데이터는 남음). docs/network.md 참고.",
            "en": "invoke uninstall, then install, make the networks anew (data stays); see docs/network.md.",
        },
        probe=net_egress,
        timeout=40,
    ),
)
