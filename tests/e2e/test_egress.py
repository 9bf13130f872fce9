"""Outbound traffic of the stack on a host that has an outside: blocked, and red when a way out is planted."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
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


@pytest.mark.nightly
def test_documented_rules_of_docker_do_the_same(stack: Stack, beyond: Outside) -> None:
    text = (Path(__file__).parents[2] / "docs/network.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("iptables -I ")]
    assert len(lines) == 2
    with beyond.routed():
        try:
            for line in lines:
                stack.host.run(["sh", "-c", line], timeout=20)
            beyond.forget()
            found = verify(stack)
            assert found["status"] == "passed"
            assert (
                "rule of the host's firewall: by hand, in the engine's own chain"
                in (found["evidence"])
            )
            assert beyond.packets() == []
        finally:
            for line in lines:
                stack.host.run(["sh", "-c", line.replace("-I", "-D", 1)], timeout=20)


REACH = """
import json, socket, ssl, sys
open_context = ssl._create_unverified_context()
def plain(name, port):
    with socket.create_connection((name, port), timeout=5) as door:
        door.settimeout(5)
        door.sendall(b"hello")
        try:
            return door.recv(100).decode() or "closed"
        except ConnectionResetError:
            return "closed"
def greet(name, port, asked):
    with socket.create_connection((name, port), timeout=5) as door:
        door.settimeout(5)
        try:
            open_context.wrap_socket(door, server_hostname=asked)
        except ssl.SSLError as error:  # the outside speaks no TLS: it was reached, and answered
            return "answered" if "WRONG_VERSION" in str(error) else "closed"
        except OSError:
            return "closed"
found = []
for what, *rest in json.load(sys.stdin):
    try:
        found.append({"plain": plain, "greet": greet}[what](*rest))
    except OSError as error:
        found.append(type(error).__name__)
json.dump(found, sys.stdout)
"""
ALLOW = ["idp.site.example:443", "llm.site.example:443=8.8.8.8", "log.site.example:53"]


def reach(stack: Stack, service: str, *tries: list[object]) -> list[str]:
    """What a container gets, each thing tried in turn."""
    name = stack.containers()[service].name
    line = ["docker", "exec", "-i", name, "/opt/venv/bin/python", "-c", REACH]
    found: list[str] = json.loads(stack.host.run(line, timeout=90, text=json.dumps(tries)))
    return found


@contextlib.contextmanager
def allowing(stack: Stack, places: list[str]) -> Iterator[None]:
    """site.toml names places outside."""
    file = stack.root / "site.toml"
    before = file.read_text("utf-8")
    file.write_text(f"allow = {json.dumps(places)}\n{before}", "utf-8")
    try:
        stack.invoke("install", "--yes", timeout=400)
        yield
    finally:
        file.write_text(before, "utf-8")
        stack.invoke("install", "--yes", timeout=400)


@pytest.mark.nightly
def test_forwarder_leads_where_the_site_says_and_nowhere_else(
    stack: Stack, beyond: Outside
) -> None:
    names = {service for service in stack.containers() if service != "forward"}
    with allowing(stack, ALLOW):
        assert set(stack.containers()) == {*names, "forward"}
        beyond.forget()
        for service in ("mlflow", "phoenix"):
            assert reach(
                stack,
                service,
                ["plain", "log.site.example", 53],
                ["greet", "idp.site.example", 443, "idp.site.example"],
                ["greet", "llm.site.example", 443, "llm.site.example"],
                ["greet", "idp.site.example", 443, "evil.example"],
                ["plain", "idp.site.example", 443],
                ["plain", "idp.site.example", 8443],
                ["plain", "evil.example", 443],
            ) == [
                "outside: hello",
                *("answered", "answered", "closed", "closed"),
                *("ConnectionRefusedError", "gaierror"),
            ], service
        reached = [(one["peer"], one["port"]) for one in beyond.log() if one["what"] == "tcp"]
        assert sorted(reached) == sorted([("10.99.0.2", 53), *[("10.99.0.2", 443)] * 2] * 2)
        gateway = stack.containers()["gateway"].name
        look = [
            "docker",
            "exec",
            gateway,
            "bash",
            "-c",
            "getent hosts idp.site.example || echo none",
        ]
        assert stack.host.run(look, timeout=30).strip() == "none"
        found = verify(stack)
        assert found["status"] == "passed", found["evidence"]
        assert f"forward: the only way out, to {', '.join(ALLOW)}" in found["evidence"]
        conf = stack.root / "rendered/forward/nginx.conf"
        text = conf.read_text("utf-8")
        conf.write_text(text.replace("idp.site.example:443;", "evil.example:443;"), "utf-8")
        assert "forward: its list is not that of site.toml" in verify(stack)["evidence"]
        conf.write_text(text, "utf-8")
        assert verify(stack)["status"] == "passed"
    assert set(stack.containers()) == names, "nothing allowed, no forwarder"
    assert stack.host.engine.network("tracking_allow") is None
    assert verify(stack)["status"] == "passed"
