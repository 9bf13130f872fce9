"""Ask both trackers what they have of a run, and say in what it differs from what was logged."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from phoenix.client import Client

from .conventions import sha256
from .record import Logged
from .sample import Sample

SPANS_WITHIN_S = 20.0


def mlflow_differences(sample: Sample, logged: Logged) -> list[str]:
    """In what MLflow's run differs from `sample`; artifacts are compared byte for byte.

    Raises MlflowException when the run cannot be read.
    """
    run = MlflowClient().get_run(logged.mlflow_run_id)
    wrong = _unequal("param", sample.params, run.data.params, exact=True)
    wrong += _unequal("metric", sample.metrics, run.data.metrics, exact=True)
    wrong += _unequal("tag", sample.tags, run.data.tags, exact=False)
    if run.info.status != "FINISHED":
        wrong.append(f"status is {run.info.status}")
    with tempfile.TemporaryDirectory() as folder:
        download_artifacts(run_id=logged.mlflow_run_id, dst_path=folder)
        found = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }
    wrong += [f"artifact {path} is missing" for path in sample.files if path not in found]
    wrong += [f"artifact {path} was not logged" for path in found if path not in sample.files]
    wrong += [
        f"artifact {path} has sha256 {sha256(found[path])}, not {sha256(data)}"
        for path, data in sample.files.items()
        if path in found and found[path] != data
    ]
    return wrong


def _unequal(kind: str, wanted: dict[str, Any], found: dict[str, Any], *, exact: bool) -> list[str]:
    wrong = [
        f"{kind} {key} is {found.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    extra = [f"{kind} {key} was not logged" for key in found if key not in wanted]
    return wrong + (extra if exact else [])


def phoenix_differences(
    sample: Sample, logged: Logged, protocol: str, *, within: float = SPANS_WITHIN_S
) -> list[str]:
    """In what Phoenix' trace that came over `protocol` differs from `sample`; waits up to `within` seconds for it.

    Raises httpx.HTTPError when Phoenix refuses.
    """
    spans = _spans(logged.traces[protocol], len(sample.steps), within)
    names = [step.name for step in sample.steps]
    found = {str(span["name"]): span for span in spans}
    if sorted(str(span["name"]) for span in spans) != sorted(names):
        return [f"trace {logged.traces[protocol]}: spans {sorted(found)}, not {sorted(names)}"]
    root = found[names[0]]["context"]["span_id"]
    wrong = []
    for step in sample.steps:
        span = found[step.name]
        attributes = flatten(span["attributes"])
        kept = {key: attributes.get(key) for key in step.attributes}
        wrong += _unequal(f"span {step.name}, attribute", step.attributes, kept, exact=False)
        if span["span_kind"] != step.kind:
            wrong.append(f"span {step.name}: kind {span['span_kind']}, not {step.kind}")
        parent = None if step is sample.steps[0] else root
        if (span.get("parent_id") or None) != parent:
            wrong.append(f"span {step.name}: parent {span.get('parent_id')}, not {parent}")
    link = flatten(found[names[0]]["attributes"]).get("mlflow.run_id")
    if link != logged.mlflow_run_id:
        wrong.append(f"span {names[0]}: links to run {link}, not {logged.mlflow_run_id}")
    return wrong


def _spans(trace_id: str, count: int, within: float) -> list[Any]:
    """The spans of a trace, as soon as all of them are there: Phoenix stores what it has accepted a little later."""
    project, end = os.environ["MLFLOW_EXPERIMENT_NAME"], time.monotonic() + within
    client = Client(base_url=os.environ["PHOENIX_COLLECTOR_ENDPOINT"])
    while True:
        try:
            spans = list(
                client.spans.get_spans(
                    project_identifier=project, trace_ids=[trace_id], limit=100, timeout=10
                )
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 404:  # the project comes with its first span
                raise
            spans = []
        if len(spans) >= count or time.monotonic() > end:
            return spans
        time.sleep(0.2)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested attributes by their dotted names, the way they were set."""
    if isinstance(value, dict):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat.update(flatten(inner, f"{prefix}.{key}" if prefix else key))
    return flat
