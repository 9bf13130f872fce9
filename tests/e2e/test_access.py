"""Who may not: over forty calls by people who must be refused, and each is; disabled is refused within a second.

The table can turn red: a permission too many that is planted in MLflow shows in it.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import CommandError
from bundle.rehearse import PRODUCT_ROOT
from bundle.services.names import STACK
from tests.e2e.stack import Stack
from tests.e2e.test_client import add, environment

pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).parent
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
PEOPLE = {
    "anna": ("viewer", ""),
    "eddie": ("editor", ""),
    "tina": ("editor", "vision"),
    "dora": ("editor", ""),
}
LEAST = 40


def calls(stack: Stack, do: str, **given: Any) -> Any:
    """What the program in calls.py answers, asked in the closed host's network."""
    ca = str(stack.root / "pki" / "clients.crt")
    request = json.dumps({"do": do, "ca": ca, **given})
    command = [sys.executable, "-m", "tests.e2e.calls"]
    where = {"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin"}
    return json.loads(stack.host.beside(command, timeout=200, env=where, text=request))


@pytest.fixture(scope="module")
def people(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Four people with fresh credentials and a session of Phoenix each, and the stack's own account."""
    found = {}
    listed = {line.split()[0]: line for line in stack.invoke("users.list").splitlines()}
    for name, (role, team) in PEOPLE.items():
        if name not in listed:
            stack.invoke("users.add", name, "--role", role, *(["--team", team] if team else []))
        if "disabled" in listed.get(name, ""):
            stack.invoke("users.enable", name)
        env = environment(stack, name, tmp_path_factory.mktemp(name))
        found[name] = {
            "name": name,
            "email": f"{name}@closed.internal",
            "password": env["MLFLOW_TRACKING_PASSWORD"],
            "key": env["PHOENIX_API_KEY"],
        }
    for name, session in calls(stack, "log in", people=found).items():
        assert session.pop("status") == "204", name
        found[name] |= session
    password = (stack.root / "secrets/store/MLFLOW_STACK_PASSWORD").read_text().strip()
    found["stack"] = {"name": STACK, "password": password}
    return found


def mlflow(who: str, method: str, path: str, team: str = "", **more: Any) -> dict[str, Any]:
    """One call at MLflow's door."""
    headers = {"X-MLFLOW-WORKSPACE": team} if team else {}
    path = path if path.startswith("/") else f"{API}/{path}"
    return {
        "who": who,
        "door": "mlflow",
        "method": method,
        "path": path,
        "headers": headers,
        **more,
    }


def phoenix(who: str, method: str, path: str, kind: str = "key", **more: Any) -> dict[str, Any]:
    """One call at Phoenix' door."""
    return {"who": who, "door": "phoenix", "method": method, "path": path, "kind": kind, **more}


def run_of(stack: Stack, people: dict[str, dict[str, str]], who: str, team: str) -> dict[str, str]:
    """An experiment and a run of a person, made now or by an earlier run."""
    body: dict[str, Any] = {"name": f"of-{who}"}
    make = mlflow(who, "POST", "experiments/create", team, json=body)
    look = mlflow(who, "GET", f"experiments/get-by-name?experiment_name=of-{who}", team)
    _, there = calls(stack, "call", people=people, calls=[make, look])
    number = json.loads(there["text"])["experiment"]["experiment_id"]
    body = {"experiment_id": number, "start_time": 1}
    (made,) = calls(
        stack, "call", people=people, calls=[mlflow(who, "POST", "runs/create", team, json=body)]
    )
    return {"experiment": number, "run": json.loads(made["text"])["run"]["info"]["run_id"]}


def anonymous() -> list[dict[str, Any]]:
    """Without any credential."""
    create = {"query": "mutation { deleteUsers(input: {userIds: []}) { userIds } }"}
    return [
        mlflow("", "GET", "/"),
        mlflow("", "GET", "experiments/search?max_results=1"),
        mlflow("", "POST", "experiments/create", json={"name": "x"}),
        mlflow("", "POST", "runs/create", json={"experiment_id": "0"}),
        mlflow("", "POST", "runs/search", json={"experiment_ids": ["0"]}),
        mlflow("", "GET", f"{ARTIFACTS}?path=0"),
        mlflow("", "PUT", f"{ARTIFACTS}/0/x", text="x"),
        mlflow("", "POST", "/v1/traces", text=""),
        mlflow("", "POST", "/graphql", json={"query": "{ __typename }"}),
        mlflow("", "GET", "users/list"),
        mlflow("", "POST", "users/create", json={"username": "x", "password": "y" * 12}),
        mlflow("", "GET", "/api/3.0/mlflow/roles/list"),
        phoenix("", "GET", "/v1/projects"),
        phoenix("", "POST", "/v1/projects", json={"name": "x"}),
        phoenix("", "GET", "/v1/users"),
        phoenix("", "POST", "/v1/traces", text=""),
        phoenix("", "GET", "/v1/datasets"),
        phoenix("", "POST", "/graphql", json=create),
        phoenix("", "GET", "/v1/user", kind="none"),
    ]


def viewing(own: dict[str, str]) -> list[dict[str, Any]]:
    """A viewer who writes; `own` is an editor's."""
    run, experiment = own["run"], own["experiment"]
    metric = {"run_id": run, "key": "m", "value": 1, "timestamp": 1}
    grant = {"username": "anna", "resource_type": "experiment", "resource_id": experiment}
    grants = "/api/3.0/mlflow/users/permissions/grant"
    invite = {"email": "x@closed.internal", "username": "x", "password": "Aa1!" * 3}
    user = {"user": invite | {"role": "ADMIN", "auth_method": "LOCAL"}, "send_welcome_email": False}
    delete = {"query": "mutation { deleteUsers(input: {userIds: []}) { userIds } }"}
    return [
        mlflow("anna", "POST", "experiments/create", json={"name": "of-anna"}),
        mlflow("anna", "POST", "runs/create", json={"experiment_id": experiment}),
        mlflow("anna", "POST", "runs/log-metric", json=metric),
        mlflow("anna", "POST", "runs/set-tag", json={"run_id": run, "key": "a", "value": "b"}),
        mlflow("anna", "POST", "runs/delete", json={"run_id": run}),
        mlflow("anna", "POST", "experiments/delete", json={"experiment_id": experiment}),
        mlflow("anna", "POST", "registered-models/create", json={"name": "of-anna"}),
        mlflow(
            "anna",
            "PUT",
            f"{ARTIFACTS}/{experiment}/{run}/artifacts/x",
            text="x",
        ),
        mlflow("anna", "POST", "users/create", json={"username": "x", "password": "y" * 12}),
        mlflow("anna", "PATCH", "users/update-admin", json={"username": "anna", "is_admin": True}),
        mlflow("anna", "POST", grants, json=grant | {"permission": "MANAGE"}),
        phoenix("anna", "POST", "/v1/projects", json={"name": "of-anna"}),
        phoenix(
            "anna",
            "POST",
            "/v1/traces",
            text="",
            headers={"Content-Type": "application/x-protobuf"},
        ),
        phoenix("anna", "GET", "/v1/users"),
        phoenix("anna", "POST", "/v1/users", json=user),
        phoenix("anna", "POST", "/graphql", json=delete),
        phoenix("anna", "POST", "/v1/system/api_keys", json={"data": {"name": "x"}}),
    ]


def strangers(eddie: dict[str, str], tina: dict[str, str]) -> list[dict[str, Any]]:
    """A person of a team at what is everybody's, and everybody at what is the team's."""
    rows = []
    for who, own, teams in (("tina", eddie, ("", "default")), ("eddie", tina, ("", "vision"))):
        metric = {"run_id": own["run"], "key": "m", "value": 1, "timestamp": 1}
        for team in teams:
            rows += [
                mlflow(who, "GET", f"experiments/get?experiment_id={own['experiment']}", team),
                mlflow(who, "GET", f"runs/get?run_id={own['run']}", team),
                mlflow(who, "GET", f"artifacts/list?run_id={own['run']}", team),
                mlflow(who, "POST", "runs/log-metric", team, json=metric),
            ]
    return rows


def disabled() -> list[dict[str, Any]]:
    """Somebody who was disabled, with all that was valid before; the key of another was revoked."""
    return [
        mlflow("dora", "GET", "experiments/search?max_results=1"),
        mlflow("dora", "POST", "experiments/create", json={"name": "of-dora"}),
        mlflow("dora", "GET", "/"),
        phoenix("dora", "GET", "/v1/projects"),
        phoenix("dora", "POST", "/v1/traces", text=""),
        phoenix("dora", "GET", "/v1/user", kind="cookie"),
        phoenix("dora", "POST", "/graphql", kind="cookie", json={"query": "{ viewer { id } }"}),
        phoenix("dora", "POST", "/auth/refresh", kind="refresh"),
        phoenix("eddie", "GET", "/v1/projects"),
        phoenix("eddie", "POST", "/v1/traces", text=""),
    ]


def at_the_stores(stack: Stack) -> list[list[Any]]:
    """SQL across databases and S3 with another's key, from a container where both can be reached."""

    def stored(name: str) -> str:
        return (stack.root / "secrets/store" / name).read_text().strip()

    roles = {
        role: stored(f"DB_{role.upper()}")
        for role in ("mlflow", "mlflow_auth", "phoenix", "health")
    }
    crossed = [
        ("mlflow", "phoenix"),
        ("mlflow", "mlflow_auth"),
        ("mlflow_auth", "mlflow"),
        ("phoenix", "mlflow"),
        ("phoenix", "mlflow_auth"),
        ("health", "mlflow"),
    ]
    keys = {
        who: (stored(f"S3_{who.upper()}_KEY"), stored(f"S3_{who.upper()}_SECRET"))
        for who in ("exports", "backups", "mlflow")
    }
    tries = [
        ("exports", "list", "mlflow-artifacts"),
        ("exports", "read", "mlflow-artifacts"),
        ("exports", "write", "mlflow-artifacts"),
        ("backups", "read", "mlflow-artifacts"),
        ("mlflow", "write", "backups"),
        ("mlflow", "list", "phoenix-exports"),
    ]
    request = {
        "postgres": "postgres.svc.closed.internal",
        "minio": "minio.svc.closed.internal:9000",
        "sql": [(role, roles[role], database) for role, database in crossed],
        "s3": [(who, *keys[who], act, bucket) for who, act, bucket in tries],
    }
    program = f"REQUEST = {request!r}\n" + (HERE / "stores.py").read_text("utf-8")
    image = stack.containers()["guard"].image
    root = "/var/lib/tracking-bundle/pki/root.crt:/run/root.crt:ro"
    command = ["docker", "run", "--rm", "-i", "--network", "tracking_data", "-v", root, image, "-"]
    answer = stack.host.run(command, timeout=90, text=program)
    return [list(row) for row in json.loads(answer)]


def say(*words: object) -> None:
    """One line of the table, shown by pytest -s and with a failure."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows that were not refused, after all have been printed."""
    for row in rows:
        mark = "refused" if row["refused"] else "PASSED "
        say(
            f"{mark} {row['status']} {row['who'] or '-':6} {row['door']} {row['method']} {row['path']}"
        )
    return [f"{row['who']} {row['method']} {row['path']}" for row in rows if not row["refused"]]


@pytest.fixture(scope="module")
def made(stack: Stack, people: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """A run of an editor, and one of a team."""
    return {who: run_of(stack, people, who, PEOPLE[who][1]) for who in ("eddie", "tina")}


def test_rightful_calls_pass(
    stack: Stack, people: dict[str, dict[str, str]], made: dict[str, dict[str, str]]
) -> None:
    """What the others are refused is right as a request: it passes with the right sender."""
    metric = {"run_id": made["eddie"]["run"], "key": "m", "value": 1, "timestamp": 1}
    own = made["eddie"]
    path = f"{ARTIFACTS}/{own['experiment']}/{own['run']}/artifacts/x"
    rows = calls(
        stack,
        "call",
        people=people,
        calls=[
            mlflow("anna", "GET", f"runs/get?run_id={made['eddie']['run']}"),
            mlflow("eddie", "POST", "runs/log-metric", json=metric),
            mlflow("eddie", "PUT", path, text="x"),
            mlflow("tina", "GET", f"runs/get?run_id={made['tina']['run']}", "vision"),
            phoenix("anna", "GET", "/v1/projects"),
            phoenix("dora", "GET", "/v1/projects"),
            phoenix("dora", "GET", "/v1/user", kind="cookie"),
            phoenix(
                "eddie", "POST", "/graphql", kind="cookie", json={"query": "{ viewer { id } }"}
            ),
        ],
    )
    assert [row["status"] for row in rows] == [200] * len(rows), rows


def test_planted_permission_shows(
    stack: Stack, people: dict[str, dict[str, str]], made: dict[str, dict[str, str]]
) -> None:
    number = made["eddie"]["experiment"]
    body = {"username": "anna", "resource_type": "experiment", "resource_id": number}
    grant, revoke = (f"/api/3.0/mlflow/users/permissions/{word}" for word in ("grant", "revoke"))
    plant = mlflow("stack", "POST", grant, json=body | {"permission": "EDIT"})
    rows = calls(stack, "call", people=people, calls=[plant, *viewing(made["eddie"])])
    undo = mlflow("stack", "POST", revoke, json=body)
    (undone,) = calls(stack, "call", people=people, calls=[undo])
    assert (rows[0]["status"], undone["status"]) == (200, 200), (rows[0], undone)
    assert any("log-metric" in found for found in table(rows[1:]))


def test_every_unauthorised_call_is_refused(
    stack: Stack, people: dict[str, dict[str, str]], made: dict[str, dict[str, str]]
) -> None:
    stack.invoke("users.token", "eddie", "--revoke", "all")
    watched = disable_while_watching(stack, people, "dora")
    wanted = [*anonymous(), *viewing(made["eddie"]), *strangers(made["eddie"], made["tina"])]
    rows = calls(stack, "call", people=people, calls=[*wanted, *disabled()])
    passed = table(rows)
    stores = at_the_stores(stack)
    for what, refused, said in stores:
        say("refused" if refused else "PASSED ", what, said)
    count = len(rows) + len(stores)
    say(f"{count} unauthorised calls")
    assert count >= LEAST
    assert not passed
    assert not [what for what, refused, _ in stores if not refused]
    say("seconds from the deny list to the last call that passed:", watched)
    assert max(watched.values()) <= 1.0


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_disabled_is_refused_within_a_second_every_time(
    stack: Stack, people: dict[str, dict[str, str]], rng: random.Random, tmp_path: Path
) -> None:
    """Fresh password, key and session each time; the guard has known them for a moment or for some seconds."""
    for number in range(20):
        stack.invoke("users.enable", "dora")
        env = environment(stack, "dora", tmp_path)
        dora = people["dora"] | {
            "password": env["MLFLOW_TRACKING_PASSWORD"],
            "key": env["PHOENIX_API_KEY"],
        }
        session = calls(stack, "log in", people={"dora": dora})["dora"]
        assert session.pop("status") == "204"
        wait = rng.uniform(0, 5)
        watched = disable_while_watching(stack, {"dora": dora | session}, "dora", wait)
        say(f"{number}: known for {wait:.1f} s;", watched)
        assert max(watched.values()) <= 1.0


def disable_while_watching(
    stack: Stack, people: dict[str, dict[str, str]], name: str, wait: float = 0
) -> dict[str, float]:
    """By way in: the seconds between the deny list and the start of the last call that passed."""
    rows: list[dict[str, Any]] = []
    watcher = threading.Thread(
        target=lambda: rows.extend(calls(stack, "watch", people=people, name=name))
    )
    watcher.start()
    time.sleep(wait)
    stack.invoke("users.disable", name)
    watcher.join(150)
    listed = (stack.root / "secrets/guard/denied.json").stat().st_mtime
    ways = {row["way"] for row in rows}
    assert ways == {"basic", "key", "cookie"}
    assert any(not row["refused"] for row in rows if row["sent"] < listed - 0.5), "it passed before"
    return {
        way: max(row["sent"] for row in rows if row["way"] == way and not row["refused"]) - listed
        for way in ways
    }


def test_admin_changes_the_password_and_mlflow_stays_well(stack: Stack, people: Any) -> None:
    first = (stack.root / "secrets/store/MLFLOW_AUTH_ADMIN_PASSWORD").read_text().strip()
    known = {"admin": {"name": "admin", "password": first}}
    known["changed"] = {"name": "admin", "password": "Anoth3r_of_mine"}

    def change(who: str, old: str, new: str) -> dict[str, Any]:
        body = {"username": "admin", "current_password": old, "password": new}
        return mlflow(who, "PATCH", "users/update-password", json=body)

    there = change("admin", first, "Anoth3r_of_mine")
    back = change("changed", "Anoth3r_of_mine", first)
    rows = calls(stack, "call", people=known, calls=[there])
    stack.invoke("users.list")
    assert "healthy" in stack.host.run(
        ["docker", "inspect", "-f", "{{.State.Health.Status}}", stack.containers()["mlflow"].name],
        timeout=30,
    )
    rows += calls(stack, "call", people=known, calls=[back])
    assert [row["status"] for row in rows] == [200, 200], rows


def test_failures_lock_and_a_neighbour_goes_on(stack: Stack, people: Any) -> None:
    wrong = {"wrong": {"name": "park", "password": "not this one"}}
    tries = [mlflow("wrong", "GET", "users/current") for _ in range(22)]
    rows = calls(stack, "call", people=wrong, calls=tries)
    assert [row["status"] for row in rows] == [401] * 20 + [429] * 2
    (other,) = calls(stack, "call", people=people, calls=[mlflow("anna", "GET", "users/current")])
    assert other["status"] == 200


def test_adding_that_is_killed_is_finished_by_the_next_run(
    stack: Stack, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    count = 12 if request.config.option.nightly else 1
    for number in range(count):
        name, after = f"kill{number}.{rng.randrange(10**6)}", rng.uniform(0.5, 4)
        line = (
            f"cd {PRODUCT_ROOT}/current && . .venv/bin/activate && exec timeout -s KILL {after:.2f}"
        )
        killed = f"{line} invoke users.add {name} --role viewer --team vision"
        stack.host.run(["sh", "-c", killed], timeout=60, check=False)
        stack.invoke("users.add", name, "--role", "viewer", "--team", "vision", check=False)
        listed = [line.split() for line in stack.invoke("users.list").splitlines()]
        assert [name, "viewer", "vision", "viewer"] in listed, after


def test_bad_name_is_an_argument_error(
    stack: Stack, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    """Which names cannot be is in tests/test_users.py; here they come by way of a shell."""
    names = ["a b", "김철수", "o'neil", 'k"m', "x" * 300, "-kim"]
    for name in names if request.config.option.nightly else [rng.choice(names)]:
        with pytest.raises(CommandError, match=r"exit code 2(?s:.*)cannot be a name"):
            stack.invoke("users.add", "--name", name, timeout=60)


def test_password_of_every_printable_sign(stack: Stack) -> None:
    add(stack, "park", "editor")
    signs = "".join(map(chr, range(33, 127)))
    place = stack.host.root / "root" / "pw"
    place.write_text(f"{signs}\n")
    stack.invoke("users.passwd", "park", "--file", "/root/pw")
    who = {"park": {"name": "park", "password": signs, "email": "park@closed.internal"}}
    assert calls(stack, "log in", people=who)["park"]["status"] == "204"
    place.write_text("비밀번호Aa1!xxxxxxxx\n")
    with pytest.raises(CommandError, match=r"exit code 2(?s:.*)ASCII"):
        stack.invoke("users.passwd", "park", "--file", "/root/pw", timeout=60)


def test_last_administrator_is_not_disabled(stack: Stack) -> None:
    admins = [
        line.split()[0]
        for line in stack.invoke("users.list").splitlines()
        if " admin " in line and "disabled" not in line and STACK not in line
    ]
    for name in (name for name in admins if name != "admin"):
        stack.invoke("users.disable", name)
    with pytest.raises(CommandError, match=r"exit code 2(?s:.*)last administrator"):
        stack.invoke("users.disable", "admin", timeout=60)
