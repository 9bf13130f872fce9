"""People: in both trackers or in neither, and an environment that is for its owner only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from bundle import access, accounts, authority, own, users
from bundle.config import parse_site
from bundle.errors import CommandError, ConfigError
from bundle.host import Host
from bundle.model import Secret
from bundle.plan import Plan, make_plan
from bundle.rights import Seat
from tests.trackers import ADMIN_PASSWORD, ADMIN_SECRET, STACK, STACK_PASSWORD, Trackers

STORE = {
    "MLFLOW_STACK_PASSWORD": STACK_PASSWORD,
    "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD,
    "PHOENIX_ADMIN_SECRET": ADMIN_SECRET,
    "PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD": "F1rst_password",
}


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_site('domain = "lab.internal"'), site_id="0a1b2c3d", version="1.2.3")


@pytest.fixture
def host(tmp_path: Path, plan: Plan) -> Host:
    made = Host(root=tmp_path / "root")
    made.root.mkdir()
    authority.authorities(made, plan)
    for name, value in STORE.items():
        own.keep(made, name, Secret(value))
    return made


@pytest.fixture
def trackers(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Trackers:
    made = Trackers(mlflow_port=plan.site.ports_mlflow)
    made.people["admin"] = {
        "email": "admin@localhost",
        "password": STORE["PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD"],
        "role": "ADMIN",
    }
    real = httpx.Client

    def client(**given: Any) -> httpx.Client:
        assert given["trust_env"] is False
        return real(transport=httpx.MockTransport(made.answer))

    monkeypatch.setattr(httpx, "Client", client)
    return made


def secrets() -> dict[str, Secret]:
    return {name: Secret(value) for name, value in STORE.items()}


def test_stack_changes_its_own_password_by_the_present_one(
    plan: Plan, host: Host, trackers: Trackers
) -> None:
    """MLflow asks whoever changes his own password for the present one."""
    found = own.open_trackers(plan, host)
    new = accounts.Login(name=STACK, password=Secret("N3w_password"))
    accounts.mlflow_set_password(found.mlflow, found.admin, new)
    assert trackers.passwords[STACK] == "N3w_password"


def test_bootstrap_makes_everything_once(plan: Plan, host: Host, trackers: Trackers) -> None:
    users.bootstrap_people(plan, host, secrets())
    stored = [host.path("secrets", "store", name) for name in (own.VERIFY.password, own.VERIFY.key)]
    before = [path.read_bytes() for path in stored]
    assert {path.stat().st_mode & 0o777 for path in stored} == {0o400}
    assert trackers.experiments == {"evalvault"}
    assert set(trackers.roles) == {"viewer", "editor", "member"}
    assert trackers.assigned["verify"] == "member"
    users.bootstrap_people(plan, host, secrets())
    assert [path.read_bytes() for path in stored] == before
    assert len(trackers.keys) == 1


def test_bootstrap_mends_refused_credentials(plan: Plan, host: Host, trackers: Trackers) -> None:
    users.bootstrap_people(plan, host, secrets())
    trackers.passwords["verify"] = "changed by hand"
    trackers.keys.clear()
    users.bootstrap_people(plan, host, secrets())
    assert trackers.passwords["verify"] == own.stored(host, own.VERIFY.password).reveal()
    assert list(trackers.keys) == [own.stored(host, own.VERIFY.key).reveal()]


def test_bootstrap_refuses_open_trackers(plan: Plan, host: Host, trackers: Trackers) -> None:
    trackers.open_door = True
    with pytest.raises(CommandError, match="MLflow answers anonymous requests; Phoenix answers"):
        users.bootstrap_people(plan, host, secrets())


@pytest.mark.parametrize("role", users.ROLES)
def test_person_is_in_both(role: str, plan: Plan, host: Host, trackers: Trackers) -> None:
    users.users_add(plan, host, "kim", Seat(role=role))
    found = {person.name: person for person in users.users_list(plan, host)}
    assert found["kim"] == users.Person(name="kim", mlflow=role, phoenix=role)
    assert (role == "admin") == ("kim" in trackers.admins)
    assert trackers.people["kim"]["password"] == trackers.passwords["kim"]
    with pytest.raises(ConfigError, match="there already"):
        users.users_add(plan, host, "kim", Seat(role=role))


def test_person_is_in_neither_when_one_refuses(plan: Plan, host: Host, trackers: Trackers) -> None:
    trackers.refuse.add("/api/2.0/mlflow/users/create")
    with pytest.raises(CommandError, match="adding kim: status 500: planted"):
        users.users_add(plan, host, "kim", Seat(role="editor"))
    assert "kim" not in trackers.people
    assert "kim" not in trackers.passwords


@pytest.mark.parametrize("there", ["people", "passwords"])
def test_half_a_person_is_completed(there: str, plan: Plan, host: Host, trackers: Trackers) -> None:
    users.users_add(plan, host, "kim", Seat(role="editor"))
    del getattr(trackers, "passwords" if there == "people" else "people")["kim"]
    users.users_add(plan, host, "kim", Seat(role="editor"))
    assert "kim" in trackers.people
    assert "kim" in trackers.passwords


@pytest.mark.parametrize(
    "name",
    ["", "k", "Kim", "김", "a b", "1kim", "kim\n", "-kim", "kim-", "a" * 33, "kim:x", "../x"],
)
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a name"):
        users.check_new(name)


@pytest.mark.parametrize("name", users.RESERVED)
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="reserved"):
        users.check_new(name)


def test_unknown_role_has_a_near_miss() -> None:
    with pytest.raises(ConfigError) as caught:
        users.seat_of("editr", "")
    assert caught.value.problems[0].hint == "Did you mean editor?"


def parse(path: Path) -> dict[str, str]:
    lines = path.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_environment_of_a_person(
    plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    users.users_add(plan, host, "kim", Seat(role="editor"))
    out = access.users_env(plan, host, "kim", tmp_path / "김 env")
    found = parse(out)
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(found)[:4] == [
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
        "PHOENIX_ENDPOINT",
        "PHOENIX_API_TOKEN",
    ]
    assert found["PHOENIX_ENDPOINT"] == "https://lab.internal:8445/v1/traces"
    assert found["PHOENIX_API_TOKEN"] == found["PHOENIX_API_KEY"]
    assert found["PHOENIX_GRPC_PORT"] == "8445"
    assert trackers.passwords["kim"] == found["MLFLOW_TRACKING_PASSWORD"]
    assert trackers.people["kim"]["password"] == found["MLFLOW_TRACKING_PASSWORD"]
    ca = Path(found["SSL_CERT_FILE"])
    assert ca.read_bytes() == host.path("pki", "root.crt").read_bytes()
    assert ca.parent == out.parent


def test_fresh_environment_ends_the_former(
    plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    users.users_add(plan, host, "kim", Seat(role="editor"))
    first = parse(access.users_env(plan, host, "kim", tmp_path / "a"))
    second = parse(access.users_env(plan, host, "kim", tmp_path / "b"))
    assert list(trackers.keys) == [second["PHOENIX_API_KEY"]]
    assert first["MLFLOW_TRACKING_PASSWORD"] != trackers.passwords["kim"]


def test_first_admin_is_a_person_like_all(
    plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    users.bootstrap_people(plan, host, secrets())
    assert trackers.admins == {STACK, "admin"}
    assert trackers.passwords["admin"] == ADMIN_PASSWORD
    found = parse(access.users_env(plan, host, "admin", tmp_path / "a"))
    changed = trackers.passwords["admin"]
    assert found["MLFLOW_TRACKING_PASSWORD"] == changed == trackers.people["admin"]["password"]
    users.bootstrap_people(plan, host, secrets())
    assert trackers.passwords["admin"] == changed, "the first password comes never back"


def test_admin_who_was_removed_stays_removed(plan: Plan, host: Host, trackers: Trackers) -> None:
    users.bootstrap_people(plan, host, secrets())
    users.users_add(plan, host, "kim", Seat(role="admin"))
    del trackers.passwords["admin"]
    trackers.admins.discard("admin")
    users.bootstrap_people(plan, host, secrets())
    assert "admin" not in trackers.passwords


def test_person_without_a_role_is_completed(plan: Plan, host: Host, trackers: Trackers) -> None:
    users.users_add(plan, host, "kim", Seat(role="viewer"))
    del trackers.assigned["kim"]
    users.users_add(plan, host, "kim", Seat(role="viewer"))
    assert trackers.assigned["kim"] == "viewer"


@pytest.mark.parametrize("team", ["default", "a", "Team", "a b", "팀", "-a", "a-", "x" * 64, "api"])
def test_impossible_teams_are_refused(team: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a team"):
        users.seat_of("editor", team)
    with pytest.raises(ConfigError, match="in no team"):
        users.seat_of("admin", "vision")


def test_person_of_a_team(plan: Plan, host: Host, trackers: Trackers, tmp_path: Path) -> None:
    users.users_add(plan, host, "kim", Seat(role="editor", team="vision"))
    assert trackers.teams == {"vision"}
    assert trackers.assigned["kim"] == "vision/editor"
    assert [p.team for p in users.users_list(plan, host) if p.name == "kim"] == ["vision"]
    found = parse(access.users_env(plan, host, "kim", tmp_path / "a"))
    assert found["MLFLOW_WORKSPACE"] == "vision"
    access.users_role(plan, host, "kim", Seat(role="viewer", team="speech"))
    assert trackers.assigned["kim"] == "speech/viewer"
    assert trackers.people["kim"]["role"] == "VIEWER"


def test_unknown_person_has_a_near_miss(
    plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    users.users_add(plan, host, "kim", Seat(role="editor"))
    with pytest.raises(ConfigError) as caught:
        access.users_env(plan, host, "kimm", tmp_path / "a")
    hint = caught.value.problems[0].hint
    assert hint == "Did you mean kim? Add a person by invoke users.add NAME --role editor."
    with pytest.raises(ConfigError, match="that the product keeps"):
        access.users_env(plan, host, "verify", tmp_path / "a")


@pytest.mark.parametrize("out", ["missing/folder/a", "."])
def test_place_that_cannot_be_written(
    out: str, plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    before = dict(trackers.passwords)
    with pytest.raises(ConfigError, match="not a place for a file"):
        access.users_env(plan, host, "admin", tmp_path / out)
    assert trackers.passwords == before


def test_passwords_suit_both_trackers() -> None:
    for _ in range(200):
        value = own.new_password().reveal()
        assert "_" in value  # Phoenix wants one of !@#$%^&*()_+
        assert len(value) >= 16
        assert any(map(str.isdigit, value))
        assert any(map(str.isupper, value))
        assert any(map(str.islower, value))
