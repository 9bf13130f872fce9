"""What site.toml allows outside: refused entries with their reasons, and the forwarder as it is rendered."""

from __future__ import annotations

import pytest

from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.plan import Plan, make_plan
from bundle.services import forward, services
from bundle.templates import render

SEVERAL = ["idp.site.example:443", "llm.site.example:443=10.1.2.3", "smtp.site.example:587"]


def plan(*allow: str) -> Plan:
    text = f'domain = "lab.internal"\nallow = {list(allow)!r}'
    return make_plan(parse_site(text), site_id="0a1b2c3d", version="1.2.3")


def rendered(made: Plan, name: str) -> str:
    return next(f.text for f in render(made) if str(f.path) == f"rendered/{name}")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("idp.site.example", "is not host:port"),
        ("idp.site.example:https", "is not host:port"),
        ("idp.site.example:0", "is not host:port"),
        ("idp.site.example:65536", "is not host:port"),
        ("10.1.2.3:443", "has an address for a name"),
        ("[fd00::1]:443", "has an address for a name"),
        ("*.site.example:443", "is not the name of one host"),
        ("IDP.site.example:443", "is not the name of one host"),
        ("https://idp.site.example:443", "is not the name of one host"),
        ("idp.site.example:443=llm", "is not an IPv4 address"),
        (":443", "is not the name of one host"),
        ('a"b:443', "is not the name of one host"),
    ],
)
def test_bad_entry_is_refused_with_its_reason(entry: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_site(f"allow = [{entry!r}]")
    assert "site.toml: allow" in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (["idp.site.example:443", "idp.site.example:443=10.1.2.3"], "is there twice"),
        (["mlflow.svc.lab.internal:5000"], "is a name of this stack"),
        (["lab.internal:8443"], "is a name of this stack"),
        (["idp.site.example:8"], "port 8 is the forwarder's own"),
    ],
)
def test_entries_that_cannot_be(entries: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        plan(*entries)


def test_nothing_allowed_is_no_forwarder() -> None:
    names = [service.name for service in services(parse_site('domain = "lab.internal"'))]
    assert forward.NAME not in names
    compose = rendered(plan(), "compose.yaml")
    assert "forward" not in compose
    assert "tracking-allow" not in compose
    assert "links:" not in compose


def test_forwarder_alone_has_the_way_out() -> None:
    made = plan(*SEVERAL)
    on = {s.name: s.networks for s in made.services if forward.NETWORK in s.networks}
    assert on == {"forward": ("app", "allow")}
    compose = rendered(made, "compose.yaml")
    assert compose.count("forward:idp.site.example") == 2, "MLflow and Phoenix know the name"
    assert compose.count("dns: [") == len(made.services) - 1


def test_each_port_leads_where_the_site_says() -> None:
    text = rendered(plan(*SEVERAL), "forward/nginx.conf")
    assert "map $ssl_preread_server_name $place_443" in text
    assert "        idp.site.example idp.site.example:443;" in text
    assert "        llm.site.example 10.1.2.3:443;" in text
    assert "map $server_port $place_587" in text
    assert "        587 smtp.site.example:587;" in text
    assert text.count("ssl_preread on;") == 1
    assert "default" not in text, "another name leads nowhere"
