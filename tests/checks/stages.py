"""A stage for probes without a stack: what they share is planted, the way a stack would have answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundle.checks.model import Notes, Stage
from bundle.config import parse_site
from bundle.host import Host
from bundle.manifest import Manifest, Release, SealedImage
from bundle.model import Secret, Service
from bundle.plan import Plan, make_plan

SECRETS = (
    *(
        f"S3_{user}_{part}"
        for user in ("MLFLOW", "EXPORTS", "BACKUPS")
        for part in ("KEY", "SECRET")
    ),
    "DB_HEALTH",
    "DB_MLFLOW",
    "DB_MLFLOW_AUTH",
    "DB_MLFLOW_AUTH_OWNER",
    "DB_MLFLOW_OWNER",
    "DB_PHOENIX",
    "DB_PHOENIX_OWNER",
    "VERIFY_MLFLOW_PASSWORD",
    "VERIFY_PHOENIX_API_KEY",
)


def make_test_plan() -> Plan:
    """The plan of a default site."""
    return make_plan(parse_site('domain = "lab.internal"'), site_id="0a1b2c3d", version="1.2.3")


def make_release(plan: Plan) -> Release:
    """A release whose images are called by their services."""
    images = tuple(
        SealedImage(
            name=service.runs,
            reference=plan.image(service.runs),
            manifest=f"sha256:{service.runs}-manifest",
            config=f"sha256:{service.runs}-config",
            layers=(),
            diff_ids=(),
            size=1,
        )
        for service in plan.services
    )
    manifest = Manifest(
        version="1.2.3",
        arch="amd64",
        created="2026-11-21T00:00:00+0000",
        counter=1,
        expires="2028-11-21T00:00:00+0000",
        mtime=1,
        checker_sha256="",
        images=images,
        wheels={},
        members=(),
    )
    return Release(
        home=Path("/nowhere"),
        bundle=Path("/nowhere/b.tar"),
        fingerprint="",
        manifest_sha256="ab" * 32,
        manifest=manifest,
    )


def containers(plan: Plan) -> dict[str, dict[str, Any]]:
    """What the engine says of a right stack."""
    found = {}
    for service in plan.services:
        ports: dict[str, Any] = {f"{service.port}/tcp": None}
        for outside, inside in service.published:
            ports[f"{inside}/tcp"] = [{"HostIp": plan.site.bind, "HostPort": str(outside)}]
        found[service.name] = {
            "Image": f"sha256:{service.runs}-config",
            "RestartCount": 0,
            "State": {
                "Status": "running",
                "Health": {"Status": "healthy"},
                "StartedAt": "2026-11-21T00:00:00.0Z",
            },
            "Config": {
                "User": f"{service.uid}:{service.uid}",
                "Healthcheck": {"Test": ["CMD", *service.health]},
                "Image": plan.image(service.name),
            },
            "HostConfig": host_config(service),
            "Mounts": [{"Type": "bind", "Source": "/srv/secrets", "RW": False, "Propagation": ""}],
            "NetworkSettings": {"Ports": ports, "Networks": {"tracking_data": {}}},
        }
    return found


def host_config(service: Service) -> dict[str, Any]:
    """What the engine says of the walls of a right container."""
    return {
        "Privileged": False,
        "NetworkMode": "tracking_data",
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "Memory": service.memory_mb << 20,
        "PidsLimit": 256,
        "Devices": None,
        "IpcMode": "private",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}},
    }


def stores(plan: Plan) -> dict[str, Any]:
    """What bundle.ops.stores says of a right stack."""
    until = {"until": "2999-01-01T00:00:00+00:00", "protocol": "TLSv1.3"}
    hops = {s.names[0]: {"found": dict(until)} for s in plan.services if "data" in s.networks}
    buckets = [bucket for service in plan.services for bucket in service.buckets]
    return {
        "hops": hops,
        "plain": {"found": "no encryption"},
        "versioning": {"found": {bucket.name: "Enabled" for bucket in buckets}},
        "matrix": {"found": {r: [d.name] for d in plan.databases for r in d.roles}},
        "changes": {d.role: {"found": []} for d in plan.databases if d.owner},
    }


def sample() -> dict[str, Any]:
    """What bundle.ops.sample says of a right stack."""
    parts = ("log", "mlflow", "http", "grpc", "anonymous_grpc", "expiry")
    return {
        "run_id": "r1",
        "mlflow_run_id": "m1",
        "experiment_id": "7",
        "traces": {"http": "t1", "grpc": "t2"},
        "bytes": 6,
        "files": {"metrics/metrics.json": "d1", "reports/report.pdf": "d2"},
        "params": 3,
        "metrics": 2,
        "spans": 4,
        "expired": [],
        "findings": {name: [] for name in parts},
    }


def rows() -> dict[str, Any]:
    """What bundle.ops.rows says of a right stack."""
    run = {
        "server": "17.1",
        "experiment": "tracking-bundle-verify",
        "status": "FINISHED",
        "params": 3,
        "metrics": 2,
    }
    return {
        "run": {"found": run},
        "spans": {"found": {"t1": 4, "t2": 4}},
        "objects": {"found": {"metrics/metrics.json": "d1", "reports/report.pdf": "d2"}},
    }


def make_stage(root: Path, **planted: Any) -> Stage:
    """A stage on which everything is right, but for what is `planted` (inspect, look, sample, rows)."""
    plan = make_test_plan()
    notes = Notes()
    right = {
        "inspect": containers(plan),
        "look": stores(plan),
        "sample": sample(),
        "rows": rows(),
    }
    for name, value in {**right, **planted}.items():
        notes.found[name] = value, None
    store = {name: Secret("s3cret") for name in SECRETS}
    return Stage(
        plan=plan, host=Host(root=root), release=make_release(plan), store=store, notes=notes
    )
