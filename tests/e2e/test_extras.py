"""A site's own evaluation service crosses with the bundle: image, model file, wheel and compose fragment in one seal.

It is a second installation, on a closed host of its own, and so only in the nightly run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import manifest, rehearse
from bundle.errors import CommandError
from bundle.run import run
from tests.e2e.stack import Sealed, Stack

pytestmark = [pytest.mark.timeout(900), pytest.mark.nightly]


@pytest.fixture(scope="module")
def other(
    judged: Sealed, closed_hosts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The stack with the service, installed on a closed host of its own."""
    wanted = rehearse.Rehearsal(
        bundle=judged.path,
        fingerprint=judged.fingerprint,
        folder=closed_hosts / "extras",
        cache=judged.cache,
        reports=tmp_path_factory.mktemp("reports"),
    )
    host = rehearse.make_host(wanted)
    try:
        rehearse.bootstrap(host, wanted)
        rehearse.install(host, wanted)
        yield Stack(host=host, sealed=judged, record={})
    finally:
        host.remove()


def red(stack: Stack, *only: str, status: str = "failed") -> dict[str, str]:
    """The evidence of each red line of a verify (of each with the status `status`)."""
    words = [word for name in only for word in ("--only", name)]
    stack.invoke("verify", *words, timeout=300, check=False)
    place = stack.root / ("reports/part" if only else "reports") / "verify.json"
    found = json.loads(place.read_text("utf-8"))
    assert found["complete"]
    return {r["id"]: "\n".join(r["evidence"]) for r in found["results"] if r["status"] == status}


def ask(stack: Stack, database: str, query: str) -> str:
    """What Postgres says, asked inside its container."""
    name = stack.containers()["postgres"].name
    command = ["docker", "exec", name, "psql", "--no-psqlrc", "-h", "/tmp", "-U", "postgres"]
    return stack.host.run([*command, "-d", database, "-Atc", query], timeout=60).strip()


def judge(stack: Stack, *command: str) -> str:
    """Run a command in the service's container."""
    name = stack.containers()["extra-judge"].name
    return stack.host.run(["docker", "exec", name, *command], timeout=60)


def test_layers_of_ours_below_it_travel_once(judged: Sealed) -> None:
    images = {one.name: one for one in manifest.read(judged.path).images}
    ours = images["ops"].layers
    assert images["extra/judge"].layers[: len(ours)] == ours


def test_its_run_is_in_both_trackers(other: Stack) -> None:
    run_id = judge(other, "cat", "/tmp/run_id").strip()
    params = ask(
        other,
        "mlflow",
        "select string_agg(p.key || '=' || p.value, ' ' order by p.key) from params p"
        f" where run_uuid = (select run_uuid from params where value = '{run_id}')",
    )
    digest = run(
        ["sha256sum", str(other.root / "extras/files/models/model.bin")], timeout=60
    ).split()[0]
    assert params == f"helper=1 model_sha256={digest} run_id={run_id}"
    spans = f"select count(*) from spans where attributes->>'run_id' = '{run_id}'"
    deadline = time.monotonic() + 30
    while ask(other, "phoenix", spans) != "2" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ask(other, "phoenix", spans) == "2"  # over gRPC and over HTTP
    people = {
        line.split()[0]: line.split()[2:]
        for line in other.invoke("users.list").splitlines()
        if line.strip()
    }
    assert [word for word in people["extra-judge"] if word.isalpha()][-1] == "editor"


def test_every_line_is_green_and_status_knows_it(other: Stack) -> None:
    assert red(other) == {}
    assert "extra-judge" in other.invoke("status")
    assert "extra-judge" in other.invoke("logs", "--service", "extra-judge", "--since", "1h")


def test_credential_is_in_its_file_only(other: Stack) -> None:
    name = other.containers()["extra-judge"].name
    told = other.host.run(["docker", "inspect", name], timeout=60)
    values = judge(other, "cat", "/run/secrets/client.env").splitlines()
    secrets = [line.split("=", 1)[1] for line in values if "PASSWORD" in line or "KEY" in line]
    assert len(secrets) == 2
    assert not any(secret in told for secret in secrets)
    mode = other.host.run(
        ["stat", "-c", "%a %u", f"{rehearse.PRODUCT_ROOT}/secrets/extra-judge/client.env"],
        timeout=30,
    )
    assert mode.split() == ["400", "12000"]


def test_it_reaches_the_doors_and_nothing_else(other: Stack) -> None:
    script = (
        "import socket\n"
        "places = ('gateway', 8443), ('mlflow', 5000), ('postgres', 5432), ('minio', 9000)\n"
        "for name, port in places:\n"
        "    try:\n"
        "        socket.create_connection((f'{name}.svc.{DOMAIN}', port), 4).close(); print('open')\n"
        "    except OSError: print('closed')\n"
    )
    domain = (other.root / "site.toml").read_text().split('domain = "')[1].split('"')[0]
    code = f"DOMAIN = {domain!r}\n{script}"
    assert judge(other, "/opt/venv/bin/python", "-c", code).split() == ["open", *["closed"] * 3]
    wheels = judge(other, "cat", "/wheels/index.html")
    assert "demo-1.0-py3-none-any.whl#sha256=" in wheels
    with pytest.raises(CommandError):
        judge(other, "touch", "/models/x")
    with pytest.raises(CommandError):
        judge(other, "touch", "/srv/x")


def test_second_install_changes_nothing(other: Stack) -> None:
    before = other.containers()
    other.invoke("install", "--yes", timeout=300)
    assert other.containers() == before


def test_planted_defects_are_red_and_install_mends_them(other: Stack) -> None:
    model = other.root / "extras/files/models/model.bin"
    model.write_bytes(b"another model")
    name = other.containers()["extra-judge"].name
    other.host.run(["docker", "network", "connect", "tracking_app", name], timeout=60)
    found = red(other, "extra-files", "extra-services", "net-egress")
    assert "extras/files/models/model.bin: changed" in found["extra-files"]
    assert "is on tracking_app, tracking_extras" in found["extra-services"]
    assert "extra-judge is on the network tracking_app" in found["net-egress"]
    other.host.run(["docker", "rm", "--force", name], timeout=60)
    assert "no container" in red(other, "extra-services", "svc-images")["svc-images"]
    other.invoke("install", "--yes", timeout=300)
    assert red(other, "extra-files", "extra-services", "net-egress", "svc-images") == {}


def test_comes_back_after_a_power_cut(other: Stack) -> None:
    other.host.power_cut()
    other.up()
    assert red(other, "extra-services") == {}


def test_bundle_without_it_takes_it_away(other: Stack, sealed: Sealed) -> None:
    place = other.host.put(sealed.path, rehearse.MEDIUM + "/plain")
    command = [
        "sh",
        "bootstrap.sh",
        str(place),
        "--fingerprint",
        sealed.fingerprint,
        "--accept-rollback",
    ]
    other.host.run(
        ["tar", "-xf", str(place), "--occurrence=1", "bootstrap.sh"], timeout=60, cwd="/root"
    )
    other.host.run(command, timeout=300, cwd="/root")
    other.invoke("install", "--yes", timeout=600)
    assert "extra-judge" not in other.containers()
    assert "extra-judge" not in other.invoke("users.list")
    assert not (other.root / "secrets/extra-judge").exists()
    assert not (other.root / "extras/files").exists()
    assert red(other) == {}
    moot = red(other, "extra-files", "extra-services", status="not_applicable")
    assert set(moot) == {"extra-files", "extra-services"}
