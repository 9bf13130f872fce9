"""Remove what old sample runs left: in MLflow artifacts and runs, in Phoenix traces.

What is left by design: MLflow keeps a deleted run's row until its own garbage collection, and a versioned bucket keeps
deleted objects as old versions until its lifecycle takes them.
"""

from __future__ import annotations

import datetime
import os

import httpx
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from .record import ensure_experiment

AT_ONCE = 20  # the rest goes next time: one run takes about a second


def expire_runs(before: datetime.datetime) -> list[str]:
    """Delete the experiment's runs that began before that time, artifacts first; returns their ids.

    Raises MlflowException when MLflow refuses.
    """
    client = MlflowClient()
    experiment = ensure_experiment(client, os.environ["MLFLOW_EXPERIMENT_NAME"])
    text = f"attributes.start_time < {int(before.timestamp() * 1000)}"
    old = client.search_runs([experiment], filter_string=text, max_results=AT_ONCE)
    for run in old:
        get_artifact_repository(run.info.artifact_uri).delete_artifacts()
        client.delete_run(run.info.run_id)
    return [str(run.info.run_id) for run in old]


def expire_traces(before: datetime.datetime) -> None:
    """Delete the project's traces that began before that time.

    Raises httpx.HTTPStatusError when Phoenix refuses.
    """
    project = os.environ["MLFLOW_EXPERIMENT_NAME"]
    answer = httpx.delete(
        f"{os.environ['PHOENIX_COLLECTOR_ENDPOINT']}/v1/projects/{project}/traces",
        params={"start_time": "1970-01-01T00:00:00Z", "end_time": before.isoformat()},
        headers={"Authorization": f"Bearer {os.environ['PHOENIX_API_TOKEN']}"},
        timeout=20,
    )
    if answer.status_code != 404:  # nothing was ever logged to it
        answer.raise_for_status()
