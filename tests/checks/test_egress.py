"""What net-egress reads from the host, the engine and the containers: each planted way out is named."""

from __future__ import annotations

import pytest

from bundle.checks import egress
from bundle.plan import bridge
from tests.checks.stages import make_test_plan

PLAN = make_test_plan()
RIGHT = ["ping 1 0", "rights 0000000000000000"]
ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def network(**changes: object) -> dict[str, object]:
    """What the engine says of the right edge."""
    options = {egress.MASQUERADE: "false", egress.BRIDGE: bridge("edge")}
    return {"Internal": False, "EnableIPv6": False, "Options": options, **changes}


def test_routers_and_resolvers_of_the_host_are_found() -> None:
    assert egress.routers(ROUTES) == ["10.0.2.1"]
    assert egress.routers("Iface\n") == []
    texts = ("nameserver 127.0.0.53\nsearch lab\n", "nameserver 10.0.0.2\nnameserver fe80::1\n", "")
    assert egress.resolvers(texts) == ["10.0.0.2"]


@pytest.mark.parametrize("name", [service.name for service in PLAN.services])
def test_bare_container_has_nothing_to_spare(name: str) -> None:
    assert egress.surplus(RIGHT, PLAN.service(name)) == []


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (["route eth0", *RIGHT], "has a default route"),
        (["ipv6 fd00::1", *RIGHT], "has an address of IPv6"),
        (["ping 0 2147483647", RIGHT[1]], "may ping"),
        ([RIGHT[1]], "may ping: unknown"),
        ([RIGHT[0], "rights 0000000000002000"], "has rights"),
        ([RIGHT[0]], "has rights: unknown"),
    ],
)
def test_what_is_to_spare_is_named(facts: list[str], named: str) -> None:
    assert any(line.startswith(named) for line in egress.surplus(facts, PLAN.service("mlflow")))


def test_gateway_may_have_a_default_route() -> None:
    assert egress.surplus(["route eth0", *RIGHT], PLAN.service("gateway")) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Options": {egress.BRIDGE: bridge("edge")}}, "masquerades"),
        ({"Options": {egress.MASQUERADE: "false"}}, "is on the bridge None"),
        ({"Options": None}, "masquerades"),
        ({"EnableIPv6": True}, "has IPv6"),
    ],
)
def test_open_network_is_named(changes: dict[str, object], named: str) -> None:
    assert egress.unlike(network(), "edge", internal_only=False) == []
    assert any(named in line for line in egress.unlike(network(**changes), "edge", False))


def test_inner_network_must_be_internal() -> None:
    options = {egress.BRIDGE: bridge("data")}
    right = network(Internal=True, Options=options)
    assert egress.unlike(right, "data", internal_only=True) == []
    assert egress.unlike({**right, "Internal": False}, "data", True) == ["is not internal"]


def test_interface_names_fit_the_kernel() -> None:
    assert all(len(bridge(name)) < 16 for name in ("data", "app", "edge", "extras", "allow"))
