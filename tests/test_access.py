"""People's access: whoever is disabled is refused first and then has nothing left; the last administrator stays."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from bundle import access, users
from bundle.denied import ensure_denied, read_denied, write_denied
from bundle.errors import CommandError, ConfigError
from bundle.host import Host
from bundle.model import Secret
from bundle.plan import Plan
from bundle.rights import Seat
from tests.test_users import host, plan, secrets, trackers
from tests.trackers import STACK, Trackers

__all__ = ["host", "plan", "trackers"]  # fixtures
GOOD = "Aa1!" + "x" * 8


@pytest.fixture(autouse=True)
def folder(plan: Plan, host: Host, trackers: Trackers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard's folder, as install makes it, with files of this test's own user."""
    monkeypatch.setattr("os.chown", lambda *_, **__: None)
    host.path("secrets", "guard").mkdir(parents=True)
    ensure_denied(plan, host)
    users.bootstrap_people(plan, host, secrets())


def add(plan: Plan, host: Host, name: str, role: str = "editor") -> None:
    users.users_add(plan, host, name, Seat(role=role))


def test_disabled_person_has_nothing_left(
    plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    add(plan, host, "kim")
    access.users_env(plan, host, "kim", tmp_path / "a")
    before = trackers.passwords["kim"]
    access.users_disable(plan, host, "kim")
    assert read_denied(host) == {"kim", "kim@lab.internal"}
    assert "kim" not in {owner for owner, _ in trackers.keys.values()}
    assert before not in (trackers.passwords["kim"], trackers.people["kim"]["password"])
    assert [p.name for p in users.users_list(plan, host) if p.disabled] == ["kim"]
    with pytest.raises(ConfigError, match="is disabled"):
        access.users_env(plan, host, "kim", tmp_path / "b")
    access.users_disable(plan, host, "kim")
    access.users_enable(plan, host, "kim")
    assert read_denied(host) == frozenset()
    access.users_env(plan, host, "kim", tmp_path / "b")


@pytest.mark.parametrize("broken", ["/graphql", "/api/2.0/mlflow/users/update-password"])
def test_interrupted_disabling_refuses_already(
    broken: str, plan: Plan, host: Host, trackers: Trackers
) -> None:
    add(plan, host, "kim")
    before = trackers.passwords["kim"]
    trackers.refuse.add(broken)
    with pytest.raises(CommandError, match="planted"):
        access.users_disable(plan, host, "kim")
    assert "kim" in read_denied(host), "the deny list is first"
    trackers.refuse.clear()
    access.users_disable(plan, host, "kim")
    assert before not in (trackers.passwords["kim"], trackers.people["kim"]["password"])


@pytest.mark.parametrize("tracker", ["mlflow", "phoenix"])
def test_administrator_of_one_tracker_is_not_one_of_the_other(
    tracker: str, plan: Plan, host: Host, trackers: Trackers
) -> None:
    add(plan, host, "kim", "admin")
    if tracker == "mlflow":
        trackers.people["kim"]["role"] = "MEMBER"
    else:
        trackers.admins.discard("kim")
    with pytest.raises(ConfigError, match="last administrator"):
        access.users_disable(plan, host, "admin")


def test_last_administrator_stays(plan: Plan, host: Host) -> None:
    with pytest.raises(ConfigError, match="last administrator"):
        access.users_disable(plan, host, "admin")
    with pytest.raises(ConfigError, match="last administrator"):
        access.users_role(plan, host, "admin", Seat(role="viewer"))
    assert read_denied(host) == frozenset()
    add(plan, host, "kim", "admin")
    access.users_disable(plan, host, "admin")
    with pytest.raises(ConfigError, match="last administrator"):
        access.users_disable(plan, host, "kim")


def test_phoenix_first_administrator_keeps_the_role(plan: Plan, host: Host) -> None:
    add(plan, host, "kim", "admin")
    with pytest.raises(ConfigError, match="lets nobody change"):
        access.users_role(plan, host, "admin", Seat(role="viewer"))


@pytest.mark.parametrize("name", [STACK, "verify", "extra-x"])
def test_own_accounts_are_left_alone(name: str, plan: Plan, host: Host) -> None:
    with pytest.raises(ConfigError, match="product keeps"):
        access.users_disable(plan, host, name)


def test_role_is_exactly_what_was_said(plan: Plan, host: Host, trackers: Trackers) -> None:
    add(plan, host, "kim", "admin")
    access.users_role(plan, host, "kim", Seat(role="editor"))
    assert "kim" not in trackers.admins
    assert (trackers.assigned["kim"], trackers.people["kim"]["role"]) == ("editor", "MEMBER")
    access.users_role(plan, host, "kim", Seat(role="admin"))
    assert "kim" in trackers.admins
    assert "kim" not in trackers.assigned


@pytest.mark.parametrize("special", string.punctuation)
def test_every_printable_sign_may_be_in_a_password(special: str) -> None:
    assert access.password_problem(GOOD + special) == ""


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("", "12 to 128"),
        ("Aa1!xxxxxxx", "12 to 128"),
        (GOOD + "x" * 128, "12 to 128"),
        ("비밀번호" + GOOD, "ASCII"),
        (GOOD + "é", "ASCII"),
        (GOOD + " x", "ASCII"),
        (GOOD + "\t", "ASCII"),
        (GOOD + "\x7f", "ASCII"),
        ("aaaaaaaaaaa1!", "upper case"),
        ("Aaaaaaaaaaaa!", "a digit"),
        ("Aaaaaaaaaaaa1", "one of"),
    ],
)
def test_password_that_a_tracker_refuses_is_told(password: str, problem: str) -> None:
    assert problem in access.password_problem(password)


def test_chosen_password_is_in_both(
    plan: Plan, host: Host, trackers: Trackers, tmp_path: Path
) -> None:
    add(plan, host, "kim")
    access.users_env(plan, host, "kim", tmp_path / "a")
    (tmp_path / "p").write_text(f"{GOOD}\n")
    access.users_passwd(plan, host, "kim", access.read_password(str(tmp_path / "p")))
    assert trackers.passwords["kim"] == trackers.people["kim"]["password"] == GOOD
    assert access.users_keys(plan, host, "kim", "") == {}
    with pytest.raises(ConfigError, match="ASCII"):
        access.users_passwd(plan, host, "kim", Secret("비밀"))
    with pytest.raises(ConfigError, match="cannot be read"):
        access.read_password(str(tmp_path / "missing"))


def test_key_is_taken_back(plan: Plan, host: Host, trackers: Trackers, tmp_path: Path) -> None:
    add(plan, host, "kim")
    access.users_env(plan, host, "kim", tmp_path / "a")
    (key,) = access.users_keys(plan, host, "kim", "")
    with pytest.raises(ConfigError, match="has no key 'other'"):
        access.users_keys(plan, host, "kim", "other")
    assert access.users_keys(plan, host, "kim", key) == {}
    assert access.users_keys(plan, host, "kim", "all") == {}
    assert {owner for owner, _ in trackers.keys.values()} == {"verify"}


def test_damaged_list_says_so(plan: Plan, host: Host) -> None:
    write_denied(plan, host, ["b", "a", "b"])
    assert read_denied(host) == {"a", "b"}
    path = host.path("secrets", "guard", "denied.json")
    path.chmod(0o600)
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        ensure_denied(plan, host)
