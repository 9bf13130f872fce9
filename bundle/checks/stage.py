"""What several probes look at, found out once a run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bundle.checks.model import Red, Stage
from bundle.environment import client_environment
from bundle.errors import CommandError
from bundle.gateway_client import address
from bundle.inside import ask, execute, inspect
from bundle.model import Secret, Service, role_secret
from bundle.services import s3
from bundle.services.names import ROOT_CA, doors, internal, public

EXPERIMENT = "tracking-bundle-verify"
OWN = "verify"


def secret(stage: Stage, name: str) -> Secret:
    """A stored secret.

    Raises Red when the store lacks it.
    """
    if name not in stage.store:
        raise Red(f"secrets/store/{name} is missing")
    return stage.store[name]


def inspected(stage: Stage) -> dict[str, dict[str, Any]]:
    """What the engine says of each service's container."""
    found: dict[str, dict[str, Any]] = stage.notes.once(
        "inspect", lambda: inspect(stage.plan, stage.host)
    )
    return found


def in_each(
    stage: Stage, script_of: Callable[[Service], str], timeout: float
) -> dict[str, list[str]]:
    """The lines that each service's script prints in its container, all at once."""

    def one(service: Service) -> list[str]:
        script = script_of(service)
        answer = execute(stage.plan, stage.host, service.name, script, timeout=timeout)
        return [line.strip() for line in answer.splitlines() if line.strip()]

    services = stage.plan.services
    with ThreadPoolExecutor(max_workers=len(services)) as pool:
        return {s.name: lines for s, lines in zip(services, pool.map(one, services), strict=True)}


def part(answer: dict[str, Any], name: str) -> Any:
    """What a one-off container found in one of its parts.

    Raises Red when that part could not look.
    """
    if "error" in answer[name]:
        raise Red(f"{name}: {answer[name]['error']}")
    return answer[name]["found"]


def look(stage: Stage) -> dict[str, Any]:
    """The stores as they look from inside (see bundle.ops.stores)."""
    plan = stage.plan
    servers = [
        {"name": s.names[0], "port": s.port, "starttls": s.name == "postgres"}
        for s in plan.services
        if "data" in s.networks and s.port
    ]
    if plan.site.s3_endpoint:
        name, port = s3.host_and_port(plan.site)
        servers.append({"name": name, "port": port, "starttls": False, "ca": plan.site.s3_ca})
    request = {
        "root_ca": ROOT_CA,
        "database": internal(plan.site, "postgres"),
        "store": s3.place(plan.site),
        "buckets": [
            {
                "name": bucket.name,
                "key": secret(stage, bucket.key).reveal(),
                "secret": secret(stage, bucket.secret).reveal(),
            }
            for service in plan.services
            for bucket in service.buckets
        ],
        "servers": servers,
        "roles": [_role(stage, role) for database in plan.databases for role in database.roles],
        "serving": [_role(stage, d.role) for d in plan.databases if d.owner],
    }
    answer: dict[str, Any] = stage.notes.once(
        "look", lambda: ask(plan, stage.host, "stores", request, timeout=35)
    )
    return answer


def _role(stage: Stage, role: str) -> dict[str, str]:
    database = next(d for d in stage.plan.databases if role in d.roles)
    password = secret(stage, role_secret(role)).reveal()
    return {"role": role, "name": database.name, "password": password}


def run_sample(stage: Stage) -> dict[str, Any]:
    """Log the sample run through the doors, as a user would, and read it back (see bundle.ops.sample)."""
    plan = stage.plan
    variables = client_environment(
        plan.site,
        user=OWN,
        password=secret(stage, "VERIFY_MLFLOW_PASSWORD"),
        key=secret(stage, "VERIFY_PHOENIX_API_KEY"),
        certificate=ROOT_CA,
    )
    del variables["PHOENIX_GRPC_PORT"]  # a convenience; the sample must do without
    request = {
        "environment": variables | {"MLFLOW_EXPERIMENT_NAME": EXPERIMENT},
        "version": stage.release.manifest.version,
    }
    hosts = {public(plan.site, name): address(plan) for name in doors(plan.site)}
    answer: dict[str, Any] = stage.notes.once(
        "sample",
        lambda: ask(plan, stage.host, "sample", request, timeout=85, network="host", hosts=hosts),
    )
    return answer


def sample_part(stage: Stage, name: str) -> dict[str, Any]:
    """What the sample run left, when the part `name` of it found nothing wrong.

    Raises Red with what it found.
    """
    answer = run_sample(stage)
    if name not in answer["findings"]:
        raise Red("the run was not logged, so there is nothing to read back")
    if wrong := answer["findings"][name]:
        raise Red(*wrong)
    return answer


def find_rows(stage: Stage) -> dict[str, Any]:
    """Where the sample run came to lie, asked of the stores (see bundle.ops.rows)."""
    sample = run_sample(stage)
    if "mlflow_run_id" not in sample:
        raise CommandError("the sample run was not logged")
    request = {
        "root_ca": ROOT_CA,
        "database": internal(stage.plan.site, "postgres"),
        "store": s3.place(stage.plan.site),
        "mlflow": _role(stage, "mlflow"),
        "phoenix": _role(stage, "phoenix"),
        "run": sample["mlflow_run_id"],
        "traces": list(sample["traces"].values()),
        "key": secret(stage, "S3_MLFLOW_KEY").reveal(),
        "secret": secret(stage, "S3_MLFLOW_SECRET").reveal(),
        "bucket": stage.plan.site.s3_bucket_mlflow,
    }
    answer: dict[str, Any] = stage.notes.once(
        "rows", lambda: ask(stage.plan, stage.host, "rows", request, timeout=35)
    )
    return answer
