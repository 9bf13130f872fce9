"""Outbound traffic of the stack on a host that has an outside: blocked, and red when a way out is planted."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.outside import ADDRESSES, Outside, outside
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(400)
LINE = "net-egress"


@pytest.fixture(scope="module")
def beyond(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """The installed stack's host, with an outside."""
    with outside(stack.host, tmp_path_factory.mktemp("outside")) as found:
        yield found


def verify(stack: Stack) -> dict[str, Any]:
    """The line's result, whatever came out."""
    stack.invoke("verify", "--only", LINE, timeout=120, check=False)
    report = json.loads((stack.root / "reports/part/verify.json").read_text("utf-8"))
    found: dict[str, Any] = next(r for r in report["results"] if r["id"] == LINE)
    return found


def network(stack: Stack, name: str) -> dict[str, Any]:
    """What the engine says of a network of the stack."""
    found = stack.host.engine.network(f"tracking_{name}")
    assert found is not None
    return found


def subnet(stack: Stack, name: str) -> ipaddress.IPv4Network:
    """The addresses of a network of the stack."""
    return ipaddress.IPv4Network(network(stack, name)["IPAM"]["Config"][0]["Subnet"])


@contextlib.contextmanager
def masqueraded(stack: Stack) -> Iterator[None]:
    """The host masquerades the edge's addresses, although the engine was told not to."""
    rule = ["POSTROUTING", "-s", str(subnet(stack, "edge")), "-j", "MASQUERADE"]
    stack.host.run(["iptables", "-t", "nat", "-I", *rule], timeout=20)
    yield
    stack.host.run(["iptables", "-t", "nat", "-D", *rule], timeout=20)


@contextlib.contextmanager
def second_network(stack: Stack) -> Iterator[None]:
    """MLflow is on a usual network too."""
    name = stack.containers()["mlflow"].name
    stack.host.run(["docker", "network", "create", "leak"], timeout=30)
    stack.host.run(["docker", "network", "connect", "leak", name], timeout=30)
    yield
    stack.host.run(["docker", "network", "disconnect", "leak", name], timeout=30)
    stack.host.run(["docker", "network", "rm", "leak"], timeout=30)


def test_host_has_an_outside_and_no_container_has(stack: Stack, beyond: Outside) -> None:
    """The host reaches everything that was tried, so blocked means blocked."""
    beyond.forget()
    found = verify(stack)
    assert found["status"] == "passed", found["evidence"]
    reached, tried = (int(word) for word in found["evidence"][-1].split() if word.isdecimal())
    assert reached == tried >= len(ADDRESSES) + 2
    assert {one["peer"] for one in beyond.log() if one["what"] == "tcp"} == {"10.99.0.2"}
    edge = subnet(stack, "edge")
    senders = {ipaddress.IPv4Address(one["source"]) for one in beyond.packets()}
    assert all(one in edge for one in senders), "only the gateway's own, which nobody can answer"


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (masqueraded, ["gateway: tcp 1.1.1.1:443 open", "gateway: udp 8.8.8.8:53 open"]),
        pytest.param(
            second_network,
            [
                "mlflow: tcp 9.9.9.9:443 open",
                "mlflow: has a default route",
                "mlflow is on the network leak, which is not planned",
            ],
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_planted_way_out_is_red(
    plant: Any, named: list[str], stack: Stack, beyond: Outside
) -> None:
    beyond.forget()
    with plant(stack):
        found = verify(stack)
    assert found["status"] == "failed"
    assert not set(named) - set(found["evidence"])
    assert any(one["what"] == "tcp" and one["port"] == 443 for one in beyond.log())


def test_routed_site_needs_the_hosts_rule(stack: Stack, beyond: Outside) -> None:
    """Where routers know the way back to containers, only the rule keeps the gateway in; then nothing at all leaves."""
    with beyond.routed():
        found = verify(stack)
        assert "gateway: tcp 1.1.1.1:443 open" in found["evidence"]
        assert stack.invoke("firewall", "--install", timeout=60).startswith("# tracking-bundle")
        try:
            beyond.forget()
            found = verify(stack)
            assert found["status"] == "passed", found["evidence"]
            assert any("firewall: in force, refused" in line for line in found["evidence"])
            assert beyond.packets() == []
        finally:
            stack.invoke("firewall", "--remove", timeout=60)
    assert not (stack.root / "firewall.nft").exists()
    assert "tracking_bundle" not in stack.host.run(["nft", "list", "tables"], timeout=20)


@pytest.mark.nightly
def test_rule_that_was_flushed_is_missed_and_comes_back(stack: Stack) -> None:
    stack.invoke("firewall", "--install", timeout=60)
    try:
        stack.invoke("firewall", "--install", timeout=60)
        stack.host.run(["nft", "delete", "table", "inet", "tracking_bundle"], timeout=20)
        found = verify(stack)
        assert "rule of the host's firewall: asked for, but NOT in force" in found["evidence"]
        stack.invoke("start", timeout=200)
        assert verify(stack)["status"] == "passed"
    finally:
        stack.invoke("firewall", "--remove", timeout=60)
