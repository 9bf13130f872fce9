"""Verify on the installed stack: green, in every form; and red for what is planted, there and nowhere else."""

from __future__ import annotations

import contextlib
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bundle import rehearse
from bundle.checks import CHECKS
from bundle.checks.catalogue import chosen
from bundle.errors import CommandError
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(400)
DAY_MS = 86_400_000
OUTSIDE = "1.1.1.1"


def report(stack: Stack, folder: str = "reports") -> dict[str, Any]:
    """What the last verify wrote: of all lines in reports/, of some in reports/part/."""
    found: dict[str, Any] = json.loads((stack.root / folder / "verify.json").read_text("utf-8"))
    return found


def verify(stack: Stack, *only: str) -> dict[str, Any]:
    """Run verify on the lines `only` (and those that they need); the report, whatever came out."""
    words = [word for name in only for word in ("--only", name)]
    stack.invoke("verify", *words, timeout=300, check=False)
    return report(stack, "reports/part" if only else "reports")


def red(found: dict[str, Any]) -> dict[str, list[str]]:
    """The evidence of each red line."""
    return {r["id"]: r["evidence"] for r in found["results"] if r["status"] == "failed"}


def container(stack: Stack, service: str) -> str:
    """The name of the service's container."""
    return stack.containers()[service].name


@contextlib.contextmanager
def edited(stack: Stack, service: str, kind: str, change: Callable[[str], str]) -> Iterator[None]:
    """The engine's own file for a container (HostsPath, ResolvConfPath), changed in place as the container sees it."""
    line = ["docker", "inspect", "--format", f"{{{{.{kind}}}}}", container(stack, service)]
    path = stack.host.root / stack.host.run(line, timeout=30).strip().lstrip("/")
    before = path.read_text("utf-8")
    path.write_text(change(before), "utf-8")
    yield
    path.write_text(before, "utf-8")


def test_every_line_is_green(stack: Stack) -> None:
    found = verify(stack)
    assert red(found) == {}
    assert found["complete"] is True
    assert [result["id"] for result in found["results"]] == [check.id for check in CHECKS]
    assert all(result["evidence"] for result in found["results"])
    assert re.fullmatch("[0-9a-f]{64}", found["bundle"]["sha256"]), (
        "install noted the file's digest"
    )
    record = json.loads((stack.root / "current" / "release.json").read_text("utf-8"))
    assert found["bundle"]["sha256"] == record["sha256"] != record["sha256_manifest"]


def test_forms_agree(stack: Stack) -> None:
    text = stack.invoke("verify", "--only", "svc-gateway", "--format", "json", timeout=120)
    found = report(stack, "reports/part")
    folder = stack.root / "reports/part"
    assert json.loads(text) == found
    suite = ET.fromstring((folder / "verify.xml").read_text("utf-8"))
    assert [case.attrib["name"] for case in suite] == [r["id"] for r in found["results"]]
    assert "svc-gateway" in (folder / "verify.html").read_text("utf-8")
    assert found["site"] in (folder / "checklist.md").read_text("utf-8")


def test_report_goes_where_it_is_wanted(stack: Stack) -> None:
    place = "/root/보고 서"
    stack.invoke("verify", "--only", "svc-gateway", "--report", place, timeout=120)
    found = {path.name for path in (stack.host.root / place.lstrip("/")).iterdir()}
    assert found == {"checklist.md", "verify.html", "verify.json", "verify.xml"}
    stack.host.run(["rm", "-r", place], timeout=20)


def test_unknown_line_is_an_argument_error(stack: Stack) -> None:
    with pytest.raises(CommandError, match=r"exit code 2(?s:.*)Did you mean svc-mlflow"):
        stack.invoke("verify", "--only", "svc-mlflw", timeout=60)


def test_nothing_is_left_running(stack: Stack) -> None:
    before = stack.host.run(["docker", "ps", "--all", "--quiet"], timeout=30)
    verify(stack, "store-mlflow-db", "store-versioned")
    assert stack.host.run(["docker", "ps", "--all", "--quiet"], timeout=30) == before


@contextlib.contextmanager
def open_secret(stack: Stack) -> Iterator[None]:
    path = stack.root / "secrets/store/DB_MLFLOW"
    path.chmod(0o444)
    yield
    path.chmod(0o400)


@contextlib.contextmanager
def hanging_phoenix(stack: Stack) -> Iterator[None]:
    name = container(stack, "phoenix")
    stack.host.run(["docker", "pause", name], timeout=30)
    yield
    stack.host.run(["docker", "unpause", name], timeout=30)
    stack.up()


@contextlib.contextmanager
def suspended_bucket(stack: Stack) -> Iterator[None]:
    set_versioning(stack, "Suspended")
    yield
    set_versioning(stack, "Enabled")


def container_image(stack: Stack) -> str:
    """The reference of the gateway's image."""
    return stack.containers()["gateway"].image


def set_versioning(stack: Stack, state: str) -> None:
    """Change the bucket's versioning as the store's root, from the ops image."""
    store = stack.root / "secrets/store"
    request = {
        "key": (store / "MINIO_ROOT_USER").read_text(),
        "secret": (store / "MINIO_ROOT_PASSWORD").read_text(),
        "state": state,
    }
    code = (
        "import json, sys, urllib3; from minio import Minio;"
        "from minio.credentials import StaticProvider; from minio.versioningconfig import VersioningConfig;"
        "r = json.load(sys.stdin); pool = urllib3.PoolManager(ca_certs='/root.crt');"
        "c = Minio('minio.svc.closed.internal:9000', credentials=StaticProvider(r['key'], r['secret']),"
        " http_client=pool); c.set_bucket_versioning('phoenix-exports', VersioningConfig(r['state']))"
    )
    root = f"{rehearse.PRODUCT_ROOT}/pki/root.crt"
    mount = f"type=bind,source={root},target=/root.crt,readonly"
    line = [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network",
        "tracking_data",
        "--mount",
        mount,
    ]
    image = container_image(stack).replace("/gateway:", "/ops:")
    stack.host.run([*line, image, "-c", code], timeout=60, text=json.dumps(request))


@contextlib.contextmanager
def outside_name(stack: Stack) -> Iterator[None]:
    """An outside name that MLflow's container resolves."""
    with edited(stack, "mlflow", "HostsPath", lambda text: f"{text}192.0.2.1 pypi.org\n"):
        yield


@contextlib.contextmanager
def outside_address(stack: Stack) -> Iterator[None]:
    """An address of the outside world that the gateway reaches."""
    serve = f"import socket, time; s = socket.create_server(('{OUTSIDE}', 443)); time.sleep(300)"
    stack.host.run(["ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo"], timeout=20)
    start = 'nohup python3 -c "$1" >/dev/null 2>&1 & echo $!'
    pid = stack.host.run(["sh", "-c", start, "sh", serve], timeout=20).strip()
    yield
    stack.host.run(["kill", pid], timeout=20, check=False)
    stack.host.run(["ip", "address", "del", f"{OUTSIDE}/32", "dev", "lo"], timeout=20)


@contextlib.contextmanager
def lost_name(stack: Stack) -> Iterator[None]:
    """A gateway that asks the wrong DNS."""
    with edited(stack, "gateway", "ResolvConfPath", lambda _: "nameserver 127.0.0.1\n"):
        yield


def sql(stack: Stack, database: str, statement: str) -> str:
    """Run a statement as the superuser."""
    line = ["docker", "exec", container(stack, "postgres"), "psql", "-h", "/tmp", "-U", "postgres"]
    return stack.host.run([*line, "-d", database, "-Atc", statement], timeout=30).strip()


@contextlib.contextmanager
def role_that_makes_tables(stack: Stack) -> Iterator[None]:
    """A role that serves users and may make tables."""
    sql(stack, "mlflow", "grant create on schema public to mlflow")
    yield
    sql(stack, "mlflow", "revoke create on schema public from mlflow")


@contextlib.contextmanager
def endless_processes(stack: Stack) -> Iterator[None]:
    """A container whose processes have no limit any more."""
    update = ["docker", "update", "--pids-limit"]
    stack.host.run([*update, "-1", container(stack, "phoenix")], timeout=30)
    yield
    stack.host.run([*update, "256", container(stack, "phoenix")], timeout=30)


DEFECTS = {
    "store-rights": (role_that_makes_tables, "create table public.tracking_probe"),
    "svc-hardening": (endless_processes, "5.29 phoenix: PidsLimit is "),
    "access-secrets": (open_secret, "store/DB_MLFLOW: mode 0444"),
    "svc-phoenix": (hanging_phoenix, "paused"),
    "store-versioned": (suspended_bucket, "phoenix-exports: versioning Suspended"),
    "net-egress": (outside_name, "mlflow: dns pypi.org open"),
    "net-egress-tcp": (outside_address, f"gateway: tcp {OUTSIDE}:443 open"),
    "net-names": (lost_name, "gateway: does not resolve"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defect_is_red_and_nothing_else(name: str, stack: Stack) -> None:
    plant, named = DEFECTS[name]
    line = name.removesuffix("-tcp")
    with contextlib.ExitStack() as planted:
        planted.enter_context(plant(stack))
        found = verify(stack, line, "svc-postgres", "net-published")
    assert set(red(found)) == {line}
    assert named in "\n".join(red(found)[line])
    assert red(verify(stack, line)) == {}


@pytest.mark.nightly
def test_tables_of_the_serving_role_get_their_owner(stack: Stack) -> None:
    """As an installation of a release in which the serving role owned everything."""
    sql(stack, "mlflow", "reassign owned by mlflow_owner to mlflow; comment on schema public is ''")
    try:
        assert "owns" in red(verify(stack, "store-rights"))["store-rights"][0]
    finally:
        stack.invoke("install", "--yes", timeout=300)
    assert red(verify(stack, "store-rights", "run-mlflow")) == {}
    mark = sql(stack, "mlflow", "select obj_description('public'::regnamespace)")
    assert mark.startswith("sha256:")
    assert mark == sql(stack, "mlflow_auth", "select obj_description('public'::regnamespace)")


def test_what_needs_a_red_line_is_red(stack: Stack) -> None:
    path = stack.root / "secrets/store/VERIFY_PHOENIX_API_KEY"
    key = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"wrong")
    try:
        found = verify(stack, "store-phoenix-db", "store-mlflow-db")
    finally:
        path.write_bytes(key)
        path.chmod(0o400)
    assert set(red(found)) == {"run-phoenix-http", "run-phoenix-grpc", "store-phoenix-db"}
    assert red(found)["store-phoenix-db"][0].startswith("not probed: run-phoenix-")


INTERRUPT = """
import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
child = subprocess.Popen(["invoke", "verify"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
for line in child.stderr:
    if "✓ svc-gateway" in line:
        child.send_signal(signal.SIGINT)
        break
print(line, child.stderr.read(), child.wait())
"""


def test_interrupted_verify_writes_an_incomplete_report(stack: Stack) -> None:
    line = f'cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && python3 -c "$1"'
    said = stack.host.run(["sh", "-c", line, "sh", INTERRUPT], timeout=120)
    found = report(stack)
    assert said.split()[-1] == "6"
    assert found["complete"] is False
    assert 0 < len(found["results"]) < len(CHECKS)
    assert "INCOMPLETE" in (stack.root / "reports/checklist.md").read_text("utf-8")


def test_old_sample_runs_are_removed(stack: Stack) -> None:
    verify(stack, "run-expiry")
    experiment = "(select experiment_id from experiments where name = 'tracking-bundle-verify')"
    own = f"select run_uuid from runs where experiment_id = {experiment}"
    live = f"{own} and lifecycle_stage = 'active'"
    old = sql(stack, "mlflow", live).split()
    sql(
        stack,
        "mlflow",
        f"update runs set start_time = start_time - {2 * DAY_MS} where run_uuid in ({live})",
    )
    project = "(select id from projects where name = 'tracking-bundle-verify')"
    aged = f"update traces set start_time = start_time - interval '2 days' where project_rowid = {project}"
    sql(stack, "phoenix", aged)
    found = verify(stack, "run-expiry")
    assert red(found) == {}
    evidence = next(r["evidence"] for r in found["results"] if r["id"] == "run-expiry")
    assert evidence[0].startswith(f"removed {min(len(old), 20)} runs")
    left = sql(stack, "mlflow", live).split()
    assert len(left) == 1 + max(0, len(old) - 20)
    traces = f"select count(*) from traces where project_rowid = {project}"
    assert sql(stack, "phoenix", traces) == "2"


def test_only_brings_what_is_needed(stack: Stack) -> None:
    found = verify(stack, "run-mlflow")
    assert [r["id"] for r in found["results"]] == [c.id for c in chosen(("run-mlflow",))]


def test_lines_that_were_not_asked_for_keep_their_report(stack: Stack) -> None:
    """A green part never stands in the place of a whole that was red."""
    before = (stack.root / "reports/verify.json").read_bytes()
    verify(stack, "net-plain")
    assert (stack.root / "reports/verify.json").read_bytes() == before
