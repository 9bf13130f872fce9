"""Remove what old sample runs left: in MLflow artifacts and runs, in Phoenix traces.

What is left by design: MLflow keeps a deleted run's row until its own garbage collection, and a versioned bucket keeps
deleted objects as old versions until its lifecycle takes them.
"""

from __future__ import annotations

import datetime
import os

import httpx
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from .record import ensure_experiment


class NotExpiredError(RuntimeError):
    """A tracker said that it removed something, and still has it."""


AT_ONCE = 20  # the rest goes next time: one run takes about a second


def expire_runs(before: datetime.datetime) -> list[str]:
    """Delete the experiment's runs that began before that time, artifacts first; returns their ids.

    Raises MlflowException when MLflow refuses, NotExpiredError when it kept one.
    """
    client = MlflowClient()
    experiment = ensure_experiment(client, os.environ["MLFLOW_EXPERIMENT_NAME"])
    text = f"attributes.start_time < {int(before.timestamp() * 1000)}"
    old = client.search_runs([experiment], filter_string=text, max_results=AT_ONCE)
    gone = []
    for run in old:
        artifacts = get_artifact_repository(run.info.artifact_uri)
        artifacts.delete_artifacts()
        if has_files(artifacts):
            raise NotExpiredError(f"artifacts of run {run.info.run_id} are still there")
        client.delete_run(run.info.run_id)
        gone.append(str(run.info.run_id))
    left = {str(run.info.run_id) for run in client.search_runs([experiment], filter_string=text)}
    if stayed := left.intersection(gone):
        raise NotExpiredError(f"runs are still there: {', '.join(sorted(stayed))}")
    return gone


def has_files(artifacts: ArtifactRepository, path: str = "") -> bool:
    """Whether a file is there: a versioned bucket lists a folder even when all in it is deleted."""
    return any(
        not found.is_dir or has_files(artifacts, found.path)
        for found in artifacts.list_artifacts(path or None)
    )


def expire_traces(before: datetime.datetime) -> None:
    """Delete the project's traces that began before that time, and see that none is left.

    Raises httpx.HTTPStatusError when Phoenix refuses, NotExpiredError when it kept one.
    """
    project = f"v1/projects/{os.environ['MLFLOW_EXPERIMENT_NAME']}"
    span = {"start_time": "1970-01-01T00:00:00Z", "end_time": before.isoformat()}
    with httpx.Client(
        base_url=os.environ["PHOENIX_COLLECTOR_ENDPOINT"],
        headers={"Authorization": f"Bearer {os.environ['PHOENIX_API_TOKEN']}"},
        timeout=20,
    ) as phoenix:
        if phoenix.get(project).status_code == httpx.codes.NOT_FOUND:
            return  # nothing was ever logged to it
        phoenix.delete(f"{project}/traces", params=span).raise_for_status()
        answer = phoenix.get(f"{project}/spans", params={**span, "limit": 1}).raise_for_status()
        if answer.json()["data"]:
            raise NotExpiredError(f"spans from before {before.isoformat()} are still there")
