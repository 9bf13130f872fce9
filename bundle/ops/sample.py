"""Log the sample run through the published doors, as any user would, and read it back from both trackers.

Its clients are set up by the variables of the request only. Each part is tried by itself, so that one that fails hides
no other; what a part found wrong is a list of lines, empty when it is right.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from bundle.tracking.conventions import sha256
from bundle.tracking.expire import expire_runs, expire_traces
from bundle.tracking.readback import mlflow_differences, phoenix_differences
from bundle.tracking.record import Logged, log_sample
from bundle.tracking.sample import Sample, make_sample

KEPT = datetime.timedelta(days=1)


def attempt(part: Callable[[], list[str]]) -> list[str]:
    """What `part` finds wrong; an exception is one more finding."""
    try:
        return part()
    except Exception as error:  # noqa: BLE001  (a part that breaks is red, and hides no other)
        return [f"{type(error).__name__}: {str(error).strip()[:500]}"]


def anonymous_grpc() -> list[str]:
    """Whether the gRPC door takes spans from somebody without a key: a status other than UNAUTHENTICATED is wrong."""
    door = urlsplit(os.environ["PHOENIX_COLLECTOR_ENDPOINT"])
    with open(os.environ["OTEL_EXPORTER_OTLP_CERTIFICATE"], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    with grpc.secure_channel(f"{door.hostname}:{door.port or 443}", credentials) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        try:
            stub.Export(trace_service_pb2.ExportTraceServiceRequest(), timeout=10)
        except grpc.RpcError as error:
            status = error.code()
            if status == grpc.StatusCode.UNAUTHENTICATED:
                return []
            return [f"the gRPC door answers {status.name}: {error.details()}"]
    return ["the gRPC door takes spans without a key"]


def expire(now: datetime.datetime, removed: list[str]) -> list[str]:
    """Remove runs and traces of more than a day ago; `removed` gets the ids of the runs."""
    removed += expire_runs(now - KEPT)
    expire_traces(now - KEPT)
    return []


def prove(sample: Sample, logged: Logged) -> dict[str, list[str]]:
    """What both trackers get wrong of a run that was logged, by part."""
    return {
        "mlflow": attempt(lambda: mlflow_differences(sample, logged)),
        "http": attempt(lambda: phoenix_differences(sample, logged, "http")),
        "grpc": attempt(lambda: phoenix_differences(sample, logged, "grpc")),
    }


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Log, read back, expire: ids, bytes and findings."""
    os.environ.update(request["environment"])
    now = datetime.datetime.now(datetime.timezone.utc)
    sample = make_sample(uuid.uuid4().hex, request["version"])
    answer: dict[str, Any] = {
        "run_id": sample.keys["run_id"],
        "bytes": sample.size,
        "files": {path: sha256(data) for path, data in sample.files.items()},
        "params": len(sample.params),
        "metrics": len(sample.metrics),
        "spans": len(sample.steps),
    }
    logged: list[Logged] = []

    def log() -> list[str]:
        logged.append(log_sample(sample, expires=(now + KEPT).isoformat(timespec="seconds")))
        return []

    findings = {"log": attempt(log)}
    if logged:
        answer |= {
            "mlflow_run_id": logged[0].mlflow_run_id,
            "experiment_id": logged[0].experiment_id,
            "traces": logged[0].traces,
        }
        findings |= prove(sample, logged[0])
    findings["anonymous_grpc"] = attempt(anonymous_grpc)
    removed: list[str] = []
    findings["expiry"] = attempt(lambda: expire(now, removed))
    return answer | {"expired": removed, "findings": findings}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    with contextlib.redirect_stdout(
        sys.stderr
    ):  # the clients talk; standard output is for the answer
        result = act(given)
    json.dump(result, sys.stdout)
