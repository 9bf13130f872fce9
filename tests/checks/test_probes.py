"""Every line that looks at gathered facts: green on a right stack, red for a planted defect, with the defect named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.checks import CHECKS
from bundle.checks.runner import probe
from bundle.host import make_folder
from tests.checks.authorities import AUTHORITY
from tests.checks.doors import DOORED
from tests.checks.safeties import BACKUP, SAFETY
from tests.checks.stages import containers, make_stage, make_test_plan, rows, sample, stores

BY_ID = {check.id: check for check in CHECKS}
PLAN = make_test_plan()
FACTS: dict[str, Callable[[], Any]] = {
    "inspect": lambda: containers(PLAN),
    "look": lambda: stores(PLAN),
    "sample": sample,
    "rows": rows,
}
Change = Callable[[Any], object]


def put(*path: str, value: Any) -> Change:
    """A change of one value deep in the facts."""

    def change(facts: Any) -> None:
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = value

    return change


def finding(name: str) -> Change:
    return put("findings", name, value=["span retrieve is missing"])


MLFLOW, SOON = "mlflow.svc.lab.internal", "2026-11-22T00:00:00+00:00"

# id, the facts that are planted, the change, what the evidence must name
DEFECTS: tuple[tuple[str, str, Change, str], ...] = (
    ("tls-hops", "look", put("hops", MLFLOW, "found", "until", value=SOON), MLFLOW),
    ("tls-hops", "look", put("hops", MLFLOW, value={"error": "CERTIFICATE_VERIFY_FAILED"}), "VERIFY"),
    ("tls-hops", "look", put("plain", value={"error": "takes connections without TLS"}), "without TLS"),
    ("net-published", "inspect", put("postgres", "NetworkSettings", "Ports", "5432/tcp",
        value=[{"HostIp": "0.0.0.0", "HostPort": "5432"}]), "postgres: published on"),
    ("net-published", "inspect", put("gateway", "NetworkSettings", "Ports", "8444/tcp",
        value=[{"HostIp": "0.0.0.0", "HostPort": "8444"}]), "0.0.0.0:8444"),
    ("net-published", "inspect", put("mlflow", "HostConfig", "Privileged", value=True), "rights"),
    ("net-published", "inspect", lambda facts: facts.pop("minio"), "minio: no container"),
    ("svc-images", "inspect", put("mlflow", "Image", value="sha256:other"), "mlflow: sha256:other"),
    ("svc-images", "inspect", lambda facts: facts.pop("phoenix"), "phoenix: no container"),
    ("svc-minio", "inspect", put("minio", "State", "Health", "Status", value="unhealthy"), "unhealthy"),
    ("svc-minio", "inspect", put("minio", "State", value={"Status": "exited"}), "exited"),
    ("svc-postgres", "inspect", lambda facts: facts.pop("postgres"), "postgres: no container"),
    ("svc-mlflow", "inspect", put("mlflow", "State", "Status", value="paused"), "paused"),
    ("svc-phoenix", "inspect", lambda facts: facts.pop("phoenix"), "phoenix: no container"),
    ("svc-gateway", "inspect", lambda facts: facts.pop("gateway"), "gateway: no container"),
    ("store-separate", "look", put("matrix", "found", "mlflow", value=["mlflow", "phoenix"]), "phoenix"),
    ("store-separate", "look", put("matrix", "found", "phoenix", value=[]), "no database"),
    ("store-separate", "look", put("matrix", value={"error": "refused"}), "refused"),
    ("store-separate", "look", put("matrix", "found", "mlflow_owner", value=[]), "no database"),
    ("store-rights", "look", put("changes", "mlflow", value={"found": ["owns runs"]}), "owns runs"),
    ("store-rights", "look", put("changes", "phoenix", value={"error": "refused"}), "refused"),
    ("store-versioned", "look", put("versioning", "found", "backups", value="Suspended"), "backups"),
    ("store-versioned", "look", put("versioning", "found", value={}), "missing"),
    ("store-mlflow-db", "rows", put("run", "found", "status", value="RUNNING"), "RUNNING"),
    ("store-mlflow-db", "rows", put("run", "found", value={"server": "17.1"}), "None"),
    ("store-mlflow-db", "rows", put("run", value={"error": "no route"}), "no route"),
    ("store-mlflow-artifacts", "rows", put("objects", "found", "reports/report.pdf", value="x"), "report.pdf"),
    ("store-mlflow-artifacts", "rows", put("objects", "found", "extra", value="x"), "3 objects"),
    ("store-mlflow-artifacts", "rows", put("objects", "found", value={}), "0 objects"),
    ("store-phoenix-db", "rows", put("spans", "found", "t2", value=3), "'t2': 3"),
    ("store-phoenix-db", "rows", put("spans", "found", value={}), "{}"),
    ("run-log", "sample", finding("log"), "span retrieve is missing"),
    ("run-mlflow", "sample", finding("mlflow"), "span retrieve is missing"),
    ("run-mlflow", "sample", lambda facts: facts["findings"].pop("mlflow"), "not logged"),
    ("run-phoenix-http", "sample", finding("http"), "span retrieve is missing"),
    ("run-phoenix-grpc", "sample", finding("grpc"), "span retrieve is missing"),
    ("run-expiry", "sample", finding("expiry"), "span retrieve is missing"),
    ("access-grpc", "sample", finding("anonymous_grpc"), "span retrieve is missing"),
)  # fmt: skip
GREEN = (
    *("tls-hops", "net-published", "svc-images", "svc-minio"),
    *(
        "store-separate",
        "store-rights",
        "store-versioned",
        "store-mlflow-db",
        "store-mlflow-artifacts",
    ),
    *("store-phoenix-db", "run-log", "run-mlflow", "run-phoenix-http", "run-phoenix-grpc"),
    *("run-expiry", "access-grpc"),
)
INSIDE_ONLY = ("net-egress", "net-names")  # need containers: tests/e2e plants their defects


@pytest.mark.parametrize("name", GREEN)
def test_right_stack_is_green(name: str, tmp_path: Path) -> None:
    verdict = probe(make_stage(tmp_path), BY_ID[name])
    assert verdict.status == "passed", verdict.evidence
    assert all(line.strip() for line in verdict.evidence)
    assert verdict.evidence


@pytest.mark.parametrize(
    ("name", "facts", "change", "named"), DEFECTS, ids=[f"{d[0]}-{d[3]}" for d in DEFECTS]
)
def test_defect_is_red(name: str, facts: str, change: Change, named: str, tmp_path: Path) -> None:
    planted = copy.deepcopy(FACTS[facts]())
    change(planted)
    verdict = probe(make_stage(tmp_path, **{facts: planted}), BY_ID[name])
    assert verdict.status == "failed"
    assert named in "\n".join(verdict.evidence)
    assert "probe broke" not in verdict.evidence[0]


def test_every_line_has_a_planted_defect() -> None:
    elsewhere = {"access-secrets", "extra-files", "extra-services"}  # the latter: test_extras.py
    elsewhere |= {"audit-chain", "audit-head"}  # test_audit.py
    planted = {defect[0] for defect in DEFECTS} | set(DOORED) | set(INSIDE_ONLY) | elsewhere
    planted |= {*AUTHORITY, *SAFETY, *BACKUP} | {"svc-hardening"}  # their own files
    assert planted == set(BY_ID)


def test_missing_secret_is_red_not_a_crash(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    del stage.store["VERIFY_MLFLOW_PASSWORD"]  # type: ignore[attr-defined]
    verdict = probe(stage, BY_ID["svc-mlflow"])
    assert verdict.evidence == ("secrets/store/VERIFY_MLFLOW_PASSWORD is missing",)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A root with the folders of secrets as install leaves them (owner: who runs the tests)."""
    sometimes = ("secrets/old", "safety")
    own = (f"secrets/{service.name}" for service in PLAN.services)
    for name in ("pki", "secrets", "secrets/store", *sometimes, *own):
        make_folder(tmp_path / name, 0o700)
        (tmp_path / name / "KEY").write_text("x")
        (tmp_path / name / "KEY").chmod(0o400)
    make_folder(tmp_path / "pki/g1", 0o700)
    (tmp_path / "pki/g1/root.key").write_text("x")
    (tmp_path / "pki/g1/root.key").chmod(0o400)
    (tmp_path / "pki/root.crt").write_text("x")
    (tmp_path / "pki/root.crt").chmod(0o444)
    (tmp_path / "pki/ca.crl").write_text("x")
    (tmp_path / "pki/ca.crl").chmod(0o444)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "mode", "named"),
    [
        ("secrets/store/KEY", 0o440, "store/KEY: mode 0440"),
        ("secrets/mlflow/KEY", 0o404, "mlflow/KEY: mode 0404"),
        ("pki/KEY", 0o604, "pki/KEY: mode 0604"),
        ("pki/g1/root.key", 0o640, "g1/root.key: mode 0640"),
        ("pki/root.crt", 0o666, "pki/root.crt: mode 0666"),
        ("pki/ca.crl", 0o664, "pki/ca.crl: mode 0664"),
        ("secrets", 0o755, "secrets: mode 0755"),
        ("secrets/old/KEY", 0o404, "old/KEY: mode 0404"),
        ("safety", 0o750, "safety: mode 0750"),
        ("secrets/phoenix", 0o710, "secrets/phoenix: mode 0710"),
    ],
)
def test_open_secrets_are_red(secrets: Path, path: str, mode: int, named: str) -> None:
    stage, check = make_stage(secrets), BY_ID["access-secrets"]
    before = probe(stage, check).evidence
    (secrets / path).chmod(mode)
    verdict = probe(stage, check)
    assert verdict.status == "failed"
    assert named in verdict.evidence
    assert named not in before
