"""Operations: a run goes to both trackers and comes back, and nobody gets in who should not."""

from __future__ import annotations

from pathlib import Path

from bundle import accounts
from bundle.accounts import ADMIN, Login
from bundle.checks.model import Check, Stage, settle
from bundle.checks.stage import EXPERIMENT, sample_part
from bundle.denied import NOBODY, read_denied
from bundle.gateway_client import door
from bundle.model import Secret

MLFLOW_CLOSED = (
    ("GET", "/"),
    ("GET", "/api/2.0/mlflow/experiments/search?max_results=1"),
    ("GET", "/ajax-api/2.0/mlflow/experiments/search?max_results=1"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts?path=0"),
    ("POST", "/v1/traces"),
)
PHOENIX_CLOSED = (
    ("GET", "/v1/projects"),
    ("GET", "/v1/users"),
    ("POST", "/v1/traces"),
    ("POST", "/graphql"),
)
SOMETIMES = ("secrets/next", "secrets/old", "safety", "recovery")
"""What a rotation and a recovery kit leave."""
MLFLOW_DEFAULTS = ("admin", "password", "password1234")


def run_log(stage: Stage) -> list[str]:
    """The sample run is taken by both trackers, from stock clients set up by environment variables only."""
    answer = sample_part(stage, "log")
    return [
        f"run_id {answer['run_id']}: {answer['bytes']} bytes of artifacts, experiment {EXPERIMENT}",
        f"MLflow run {answer['mlflow_run_id']}, Phoenix traces {', '.join(answer['traces'].values())}",
    ]


def run_mlflow(stage: Stage) -> list[str]:
    """MLflow gives back params, metrics, tags and every artifact byte for byte."""
    answer = sample_part(stage, "mlflow")
    files = len(answer["files"])
    return [
        f"{answer['params']} params, {answer['metrics']} metrics, tags equal; {files} artifacts byte-equal"
    ]


def run_phoenix_http(stage: Stage) -> list[str]:
    """Phoenix gives back every span that came over OTLP/HTTP, with the shared run_id."""
    answer = sample_part(stage, "http")
    return [
        f"trace {answer['traces']['http']}: {answer['spans']} spans, attributes and run_id equal"
    ]


def run_phoenix_grpc(stage: Stage) -> list[str]:
    """Phoenix gives back every span that came over OTLP/gRPC, with the shared run_id."""
    answer = sample_part(stage, "grpc")
    return [
        f"trace {answer['traces']['grpc']}: {answer['spans']} spans, attributes and run_id equal"
    ]


def run_expiry(stage: Stage) -> list[str]:
    """What earlier runs of this checklist left is removed after a day."""
    removed = sample_part(stage, "expiry")["expired"]
    return [
        f"removed {len(removed)} runs of more than a day ago with their artifacts, and their traces",
        "MLflow keeps the rows of deleted runs until its garbage collection, the bucket their old versions",
    ]


def access_mlflow(stage: Stage) -> list[str]:
    """MLflow answers nobody without a password."""
    mlflow = door(stage.plan, stage.host, "mlflow")
    wrong: list[str] = []
    for method, path in MLFLOW_CLOSED:
        status = mlflow.ask(method, path).status_code
        if status != 401:
            wrong.append(f"anonymous {method} {path}: status {status}, not 401")
    return settle(
        wrong, [f"{len(MLFLOW_CLOSED)} anonymous requests (page, API, artifacts, traces): all 401"]
    )


def access_phoenix(stage: Stage) -> list[str]:
    """Phoenix answers nobody without a key."""
    phoenix = door(stage.plan, stage.host, "phoenix")
    wrong: list[str] = []
    for method, path in PHOENIX_CLOSED:
        status = phoenix.ask(method, path).status_code
        if status not in (401, 403):
            wrong.append(f"anonymous {method} {path}: status {status}, not 401")
    return settle(
        wrong, [f"{len(PHOENIX_CLOSED)} anonymous requests (API, traces, GraphQL): all refused"]
    )


def access_grpc(stage: Stage) -> list[str]:
    """Phoenix takes no span over gRPC without a key."""
    sample_part(stage, "anonymous_grpc")
    return ["anonymous OTLP/gRPC export: UNAUTHENTICATED"]


def access_defaults(stage: Stage) -> list[str]:
    """No well-known password opens an administrator's account."""
    mlflow = door(stage.plan, stage.host, "mlflow")
    wrong = [
        f"MLflow lets {ADMIN} in with {password!r}"
        for password in MLFLOW_DEFAULTS
        if accounts.mlflow_accepts(mlflow, Login(name=ADMIN, password=Secret(password)))
    ]
    phoenix = door(stage.plan, stage.host, "phoenix")
    body = {"email": "admin@localhost", "password": "admin"}
    status = phoenix.ask("POST", "/auth/login", json=body).status_code
    if status == 429:
        wrong.append(
            "Phoenix refuses any login just now (429): nothing is proven; wait five minutes"
        )
    elif status != 401:
        wrong.append(f"Phoenix answers {status} to admin@localhost with 'admin'")
    settle(wrong, [])
    return [
        f"MLflow refuses {ADMIN} with {', '.join(MLFLOW_DEFAULTS)}",
        f"Phoenix refuses admin@localhost with 'admin' (status {status})",
    ]


def access_denied(stage: Stage) -> list[str]:
    """Whom the site has disabled is refused at both doors, before a tracker is asked."""
    wrong: list[str] = []
    names = sorted(read_denied(stage.host))
    for name, path in (("mlflow", "/version"), ("phoenix", "/v1/user")):
        one = door(stage.plan, stage.host, name)
        for who in (NOBODY, *names):
            status = one.ask("GET", path, auth=(who, "x")).status_code
            if status != 403:
                wrong.append(f"{name}: status {status} for {who}, not 403")
    disabled = sum("@" not in name for name in names)
    return settle(wrong, [f"{disabled} disabled people and a name that is nobody's: all 403"])


def access_secrets(stage: Stage) -> list[str]:
    """Secrets and keys on disk are for their owner only."""
    wrong: list[str] = []
    folders = {"secrets": 0, "secrets/store": 0, "pki": 0}
    folders |= {f"secrets/{service.name}": service.uid for service in stage.plan.services}
    folders |= {f"secrets/{extra.slug}": extra.user for extra in stage.plan.extras if extra.client}
    folders |= {name: 0 for name in SOMETIMES if stage.host.path(name).is_dir()}
    count = 0
    for name, uid in folders.items():
        folder = stage.host.path(name)
        status = folder.stat()
        if status.st_mode & 0o077:
            wrong.append(f"{name}: mode {status.st_mode & 0o7777:04o}")
        entries = folder.iterdir() if name == "secrets" else folder.rglob("*")
        for path in sorted(entry for entry in entries if entry.is_file()):
            count += 1
            wrong += _exposed(path, uid)
    return settle(wrong, [f"{count} files in {len(folders)} folders: none is open to others"])


def _exposed(path: Path, uid: int) -> list[str]:
    """What is wrong with the mode or the owner of one file; certificates are public."""
    status, public = path.stat(), path.suffix in (".crt", ".crl")
    mode = status.st_mode & 0o7777
    wrong = []
    if mode & (0o022 if public else 0o077):
        wrong.append(f"{path.parent.name}/{path.name}: mode {mode:04o}")
    if status.st_uid not in (0, uid):
        wrong.append(f"{path.parent.name}/{path.name}: owner {status.st_uid}, not {uid}")
    return wrong


_RUN = {
    "ko": "invoke logs --service mlflow, phoenix, gateway를 보십시오.",
    "en": "Look at invoke logs --service mlflow, phoenix and gateway.",
}
_ACCESS = {
    "ko": "설정을 손으로 고쳤다면 invoke install로 되돌리십시오. 그때까지 문을 닫으십시오 (invoke stop).",
    "en": "If settings were edited by hand, put them back by invoke install; close the door until then (invoke stop).",
}

CHECKS = (
    Check(
        id="run-log",
        group="operations",
        title={
            "ko": "표본 실행을 MLflow와 Phoenix에 함께 기록",
            "en": "A sample run is logged to MLflow and Phoenix",
        },
        hint=_RUN,
        probe=run_log,
        timeout=90,
    ),
    Check(
        id="run-mlflow",
        group="operations",
        title={
            "ko": "MLflow에서 바이트까지 같게 다시 읽힘",
            "en": "It is read back from MLflow byte for byte",
        },
        hint=_RUN,
        probe=run_mlflow,
        needs=("run-log",),
    ),
    Check(
        id="run-phoenix-http",
        group="operations",
        title={
            "ko": "OTLP/HTTP로 보낸 트레이스가 다시 읽힘",
            "en": "Its trace over OTLP/HTTP is read back from Phoenix",
        },
        hint=_RUN,
        probe=run_phoenix_http,
        needs=("run-log",),
    ),
    Check(
        id="run-phoenix-grpc",
        group="operations",
        title={
            "ko": "OTLP/gRPC로 보낸 트레이스가 다시 읽힘",
            "en": "Its trace over OTLP/gRPC is read back from Phoenix",
        },
        hint=_RUN,
        probe=run_phoenix_grpc,
        needs=("run-log",),
    ),
    Check(
        id="run-expiry",
        group="operations",
        title={
            "ko": "하루 지난 표본 실행은 지워짐",
            "en": "Sample runs of more than a day ago are removed",
        },
        hint=_RUN,
        probe=run_expiry,
        needs=("run-log",),
    ),
    Check(
        id="access-mlflow",
        group="operations",
        title={
            "ko": "접근 제어: MLflow는 익명을 거부",
            "en": "Access control: MLflow refuses anonymous requests",
        },
        hint=_ACCESS,
        probe=access_mlflow,
    ),
    Check(
        id="access-phoenix",
        group="operations",
        title={
            "ko": "접근 제어: Phoenix는 익명을 거부",
            "en": "Access control: Phoenix refuses anonymous requests",
        },
        hint=_ACCESS,
        probe=access_phoenix,
    ),
    Check(
        id="access-grpc",
        group="operations",
        title={
            "ko": "접근 제어: gRPC 문도 익명을 거부",
            "en": "Access control: the gRPC door refuses anonymous spans",
        },
        hint=_ACCESS,
        probe=access_grpc,
        needs=("run-log",),
    ),
    Check(
        id="access-defaults",
        group="operations",
        title={
            "ko": "접근 제어: 알려진 기본 암호가 통하지 않음",
            "en": "Access control: no well-known password works",
        },
        hint=_ACCESS,
        probe=access_defaults,
    ),
    Check(
        id="access-denied",
        group="operations",
        title={
            "ko": "접근 제어: 중지된 사용자는 두 문에서 거부",
            "en": "Access control: whom the site has disabled is refused at both doors",
        },
        hint=_ACCESS,
        probe=access_denied,
    ),
    Check(
        id="access-secrets",
        group="operations",
        title={
            "ko": "비밀과 키 파일의 권한",
            "en": "Secrets and keys on disk are for their owner only",
        },
        hint={
            "ko": "invoke install을 다시 실행하고, 노출된 비밀은 바꾸십시오.",
            "en": "Run invoke install again, and change what was exposed.",
        },
        probe=access_secrets,
    ),
)
