"""Log one run to both trackers by their stock clients, which take everything they need from the environment."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from opentelemetry.trace import Span, Tracer
from phoenix.otel import register

from . import environment
from .sample import Sample, Step

FLUSH_MS = 15_000
MARK = "tracking-bundle.expires"


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Where a run went: MLflow's ids, and the trace by the protocol over which it was sent."""

    experiment_id: str
    mlflow_run_id: str
    traces: dict[str, str]


def log_sample(sample: Sample, *, expires: str = "") -> Logged:
    """Log `sample` to both trackers: the trace over OTLP/HTTP, and once more over OTLP/gRPC.

    The exporters do not raise: read it back before believing it.

    Raises EnvironmentIncompleteError when a tracker is not set up, MlflowException when MLflow refuses.
    """
    environment.check()
    client = MlflowClient()
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    experiment_id = ensure_experiment(client, name)
    run = client.create_run(experiment_id, run_name=sample.keys["run_id"])
    endpoint = os.environ["PHOENIX_ENDPOINT"]
    door = "{0.scheme}://{0.netloc}".format(
        urlsplit(endpoint)
    )  # OTLP over gRPC shares Phoenix's port
    traces = {
        "http": send_trace(sample, name, run.info.run_id, "http/protobuf", endpoint),
        "grpc": send_trace(sample, name, run.info.run_id, "grpc", door),
    }
    links = {f"phoenix.trace_id.{protocol}": trace for protocol, trace in traces.items()}
    tags = {**sample.tags, **links, **({MARK: expires} if expires else {})}
    now = run.info.start_time
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, now, 0) for name, value in sample.metrics.items()],
        params=[Param(name, value) for name, value in sample.params.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    log_files(client, run.info.run_id, sample)
    client.set_terminated(run.info.run_id)
    return Logged(experiment_id=experiment_id, mlflow_run_id=run.info.run_id, traces=traces)


def ensure_experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment `name`, made or taken back out of the bin where needed.

    Raises MlflowException when MLflow refuses.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def log_files(client: MlflowClient, run_id: str, sample: Sample) -> None:
    """Upload every artifact of `sample`.

    Raises MlflowException when MLflow refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path, data in sample.files.items():
            file = Path(folder, path)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        client.log_artifacts(run_id, folder)


def send_trace(
    sample: Sample, project: str, mlflow_run_id: str, protocol: str, endpoint: str
) -> str:
    """Send the steps of `sample` as one trace over `protocol`; its id. Nothing is raised when it does not arrive."""
    provider = register(
        project_name=project,
        endpoint=endpoint,
        protocol=protocol,
        headers={"authorization": f"Bearer {os.environ['PHOENIX_API_TOKEN']}"},
        batch=True,
        set_global_tracer_provider=False,
        verbose=False,
    )
    try:
        tracer = provider.get_tracer("tracking-kit")
        root, *inner = sample.steps
        with tracer.start_as_current_span(root.name) as span:
            _fill(span, root)
            span.set_attribute("mlflow.run_id", mlflow_run_id)
            span.set_attribute("otlp.protocol", protocol)
            _nest(tracer, inner)
            trace_id = format(span.get_span_context().trace_id, "032x")
        provider.force_flush(FLUSH_MS)
    finally:
        provider.shutdown()
    return trace_id


def _nest(tracer: Tracer, steps: list[Step]) -> None:
    for step in steps:
        with tracer.start_as_current_span(step.name) as span:
            _fill(span, step)


def _fill(span: Span, step: Step) -> None:
    span.set_attribute("openinference.span.kind", step.kind)
    for key, value in step.attributes.items():
        span.set_attribute(key, value)
