"""Storage: what was logged lies in the right databases and bucket, asked of the stores themselves."""

from __future__ import annotations

from bundle.checks.model import Check, Red, Stage, settle
from bundle.checks.stage import EXPERIMENT, find_rows, look, part, run_sample


def store_mlflow_db(stage: Stage) -> list[str]:
    """The sample run is a row of MLflow's database in our Postgres, with its params and metrics."""
    sample, row = run_sample(stage), part(find_rows(stage), "run")
    wanted = {
        "experiment": EXPERIMENT,
        "status": "FINISHED",
        "params": sample["params"],
        "metrics": sample["metrics"],
    }
    found = {name: row.get(name) for name in wanted}
    if found != wanted:
        raise Red(f"run {sample['mlflow_run_id']}: {found}, not {wanted}")
    return [
        f"PostgreSQL {row['server']}, database mlflow, experiment {EXPERIMENT}: run {sample['mlflow_run_id']}",
        f"{row['params']} params, {row['metrics']} metrics",
    ]


def store_mlflow_artifacts(stage: Stage) -> list[str]:
    """Each artifact of the sample run is an object of our bucket with the same digest."""
    sample, found = run_sample(stage), part(find_rows(stage), "objects")
    bucket = stage.plan.site.s3_bucket_mlflow
    wrong = [
        f"{bucket}: {path} is {found.get(path, 'missing')}, not {digest}"
        for path, digest in sample["files"].items()
        if found.get(path) != digest
    ]
    if wrong or len(found) != len(sample["files"]):
        raise Red(*wrong, f"{bucket}: {len(found)} objects, not {len(sample['files'])}")
    return [f"bucket {bucket}: {len(found)} objects, {sample['bytes']} bytes, every sha256 equal"]


def store_phoenix_db(stage: Stage) -> list[str]:
    """The spans of the sample run are rows of Phoenix' database in our Postgres."""
    sample, found = run_sample(stage), part(find_rows(stage), "spans")
    wanted = dict.fromkeys(sample["traces"].values(), sample["spans"])
    if found != wanted:
        raise Red(f"database phoenix: spans by trace {found}, not {wanted}")
    return [f"database phoenix: trace {trace}, {count} spans" for trace, count in found.items()]


def store_separate(stage: Stage) -> list[str]:
    """Each role gets into its own database and into no other."""
    found = part(look(stage), "matrix")
    wrong: list[str] = []
    evidence: list[str] = []
    for database in stage.plan.databases:
        for role in database.roles:
            into = found.get(role, [])
            line = f"role {role}: gets into {', '.join(into) or 'no database'}"
            (evidence if into == [database.name] else wrong).append(line)
    return settle(wrong, evidence)


def store_rights(stage: Stage) -> list[str]:
    """The roles that serve users own no table and can make, change or empty none."""
    wrong: list[str] = []
    evidence: list[str] = []
    for role in (database.role for database in stage.plan.databases if database.owner):
        if may := part(look(stage)["changes"], role):
            wrong.append(f"role {role}: {'; '.join(may)}")
        else:
            evidence.append(f"role {role}: reads and writes rows, changes no table")
    return settle(wrong, evidence)


def store_versioned(stage: Stage) -> list[str]:
    """Every declared bucket is there and versioned."""
    found = part(look(stage), "versioning")
    wrong: list[str] = []
    evidence: list[str] = []
    for bucket in (bucket for service in stage.plan.services for bucket in service.buckets):
        line = f"bucket {bucket.name}: versioning {found.get(bucket.name, 'missing')}"
        (evidence if found.get(bucket.name) == "Enabled" else wrong).append(line)
    return settle(wrong, evidence)


_AGAIN = {
    "ko": "invoke install이 선언된 데이터베이스, 버킷, 권한을 다시 맞춥니다.",
    "en": "invoke install makes the declared databases, buckets and rights so again.",
}
_ELSEWHERE = {
    "ko": "서버가 다른 저장소에 쓰고 있습니다. rendered/를 invoke install로 되돌리고 invoke logs를 보십시오.",
    "en": "The server writes elsewhere: put rendered/ back by invoke install, then look at invoke logs.",
}

CHECKS = (
    Check(
        id="store-mlflow-db",
        group="storage",
        title={
            "ko": "MLflow 메타데이터 저장소: Postgres",
            "en": "MLflow's backend store is this Postgres",
        },
        hint=_ELSEWHERE,
        probe=store_mlflow_db,
        needs=("run-log",),
        timeout=45,
    ),
    Check(
        id="store-mlflow-artifacts",
        group="storage",
        title={
            "ko": "MLflow 아티팩트 저장소: MinIO 버킷",
            "en": "MLflow's artifact bytes lie in this MinIO bucket",
        },
        hint=_ELSEWHERE,
        probe=store_mlflow_artifacts,
        needs=("run-log",),
        timeout=45,
    ),
    Check(
        id="store-phoenix-db",
        group="storage",
        title={"ko": "Phoenix 저장소: Postgres", "en": "Phoenix' spans lie in this Postgres"},
        hint=_ELSEWHERE,
        probe=store_phoenix_db,
        needs=("run-phoenix-http", "run-phoenix-grpc"),
        timeout=45,
    ),
    Check(
        id="store-separate",
        group="storage",
        title={
            "ko": "데이터베이스 분리: 역할마다 자기 것만",
            "en": "Databases are separate: each role gets into its own only",
        },
        hint=_AGAIN,
        probe=store_separate,
        timeout=40,
    ),
    Check(
        id="store-rights",
        group="storage",
        title={
            "ko": "서비스 역할은 테이블을 바꿀 수 없음 (소유 역할 분리)",
            "en": "Roles that serve users change no table (their owners are others)",
        },
        hint=_AGAIN,
        probe=store_rights,
        timeout=40,
    ),
    Check(
        id="store-versioned",
        group="storage",
        title={"ko": "모든 버킷의 버전 관리", "en": "Every bucket is there and versioned"},
        hint=_AGAIN,
        probe=store_versioned,
        timeout=40,
    ),
)
