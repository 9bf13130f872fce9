"""The site's services as clients: one account each in both trackers, its credentials in a file that is its own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import access, clients, users
from bundle.errors import CommandError, ConfigError
from bundle.host import Host
from bundle.model import ExtraService, Layout
from bundle.plan import Plan
from bundle.rights import Seat
from tests.test_users import host, plan, trackers
from tests.trackers import Trackers

__all__ = ["host", "plan", "trackers"]  # fixtures
JUDGE = ExtraService(name="judge-1", image="judge", user=os.getuid(), client=True)
QUEUE = ExtraService(name="queue", image="judge", user=os.getuid())
SLUG = "extra-judge-1"


@pytest.fixture
def served(plan: Plan) -> Plan:
    """A plan with a client and a service that is none."""
    return replace(plan, extras=(JUDGE, QUEUE))


def variables(host: Host) -> dict[str, str]:
    """What the client's file says."""
    text = host.path("secrets", SLUG, clients.FILE).read_text("utf-8")
    return dict(line.split("=", 1) for line in text.splitlines())


def test_client_has_an_account_in_both(served: Plan, host: Host, trackers: Trackers) -> None:
    assert clients.make_clients(served, host) == ([SLUG], [])
    found = variables(host)
    assert found["MLFLOW_TRACKING_USERNAME"] == SLUG
    assert trackers.passwords[SLUG] == found["MLFLOW_TRACKING_PASSWORD"]
    assert trackers.keys[found["PHOENIX_API_KEY"]][0] == SLUG
    assert trackers.assigned[SLUG] == "editor"
    assert trackers.people[SLUG]["role"] == "MEMBER"
    assert found["SSL_CERT_FILE"] == "/run/secrets/root.crt"
    assert [path.name for path in host.path("secrets").iterdir()] != []
    assert not host.path("secrets", "extra-queue").exists()


def test_files_are_for_their_owner_only(served: Plan, host: Host, trackers: Trackers) -> None:
    clients.make_clients(served, host)
    folder = host.path("secrets", SLUG)
    assert folder.stat().st_mode & 0o777 == 0o500
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        clients.FILE: 0o400,
        "root.crt": 0o400,
    }


def test_twice_changes_nothing(served: Plan, host: Host, trackers: Trackers) -> None:
    clients.make_clients(served, host)
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in host.path("secrets").rglob("*")}
    accounts = dict(trackers.passwords), dict(trackers.keys)
    clients.make_clients(served, host)
    after = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in host.path("secrets").rglob("*")}
    assert (before, accounts) == (after, (trackers.passwords, trackers.keys))


def test_refused_credentials_are_made_anew(served: Plan, host: Host, trackers: Trackers) -> None:
    clients.make_clients(served, host)
    old = variables(host)
    trackers.passwords[SLUG] = "changed by somebody"
    trackers.keys.clear()
    clients.make_clients(served, host)
    new = variables(host)
    assert new["MLFLOW_TRACKING_PASSWORD"] != old["MLFLOW_TRACKING_PASSWORD"]
    assert trackers.passwords[SLUG] == new["MLFLOW_TRACKING_PASSWORD"]
    assert list(trackers.keys) == [new["PHOENIX_API_KEY"]]


@pytest.mark.parametrize(
    "broken",
    [
        "/api/2.0/mlflow/users/create",
        "/api/3.0/mlflow/roles/assign",
        "/v1/user/api_keys",
        "/graphql",
    ],
)
def test_broken_off_run_is_finished_by_the_next(
    broken: str, served: Plan, host: Host, trackers: Trackers
) -> None:
    trackers.refuse.add(broken)
    with pytest.raises(CommandError, match="planted"):
        clients.make_clients(served, host)
    trackers.refuse.clear()
    clients.make_clients(served, host)
    found = variables(host)
    assert trackers.passwords[SLUG] == found["MLFLOW_TRACKING_PASSWORD"]
    assert trackers.assigned[SLUG] == "editor"
    assert found["PHOENIX_API_KEY"] in trackers.keys


def test_account_of_a_service_that_is_gone_goes(
    served: Plan, host: Host, trackers: Trackers
) -> None:
    clients.make_clients(served, host)
    gone = replace(served, extras=(replace(JUDGE, client=False), QUEUE))
    assert clients.make_clients(gone, host) == ([], [SLUG])
    assert SLUG not in trackers.passwords
    assert SLUG not in trackers.people
    assert not host.path("secrets", SLUG).exists()
    assert not list(host.path("secrets", "store").glob("EXTRA_*"))
    assert clients.make_clients(gone, host) == ([], [])


@pytest.mark.parametrize("layout", ["ports", "names"])
def test_urls_are_those_that_work_inside(layout: Layout, served: Plan, host: Host) -> None:
    site = replace(
        served.site, layout=layout, ports_mlflow=9000, ports_phoenix=9001, ports_portal=443
    )
    inside = clients.inside(site)
    assert (inside.ports_portal, inside.ports_mlflow, inside.ports_phoenix) == (8443, 8444, 8445)
    gateway = replace(served, site=site).service("gateway")
    names = replace(served, site=site).aliases(gateway, "extras")
    wanted = (
        {"lab.internal"}
        if layout == "ports"
        else {"lab.internal", "mlflow.lab.internal", "phoenix.lab.internal"}
    )
    assert set(names) - set(gateway.names) == wanted


def test_people_cannot_take_a_service_s_account(
    served: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    clients.make_clients(served, host)
    with pytest.raises(ConfigError, match="is reserved"):
        users.users_add(served, host, SLUG, Seat(role="editor"))
    with pytest.raises(ConfigError, match="that the product keeps"):
        access.users_env(served, host, SLUG, tmp_path / "x")
