"""Data of a person in both trackers, written before an upgrade and read after it; runs beside the closed host.

python kept_data.py write|read CA, with the environment of users.env; prints what it wrote, or found, as JSON.
"""

from __future__ import annotations

import json
import os
import sys

import httpx

from tests.e2e.calls import Doors

EXPERIMENT, FILE = "before-the-upgrade", "dataset.bin"
CONTENT = bytes(range(256)) * 4096
SPAN = {
    "name": "answer",
    "context": {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"},
    "span_kind": "LLM",
    "start_time": "2026-01-01T00:00:00Z",
    "end_time": "2026-01-01T00:00:01Z",
    "status_code": "OK",
    "attributes": {"input.value": "보장 개시일"},
}


class Person:
    """Whoever the environment says."""

    def __init__(self, ca: str) -> None:
        self.doors = Doors(ca)
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        self.login = (os.environ[names[0]], os.environ[names[1]])
        self.bearer = {"Authorization": f"Bearer {os.environ['PHOENIX_API_TOKEN']}"}

    def mlflow(self, method: str, path: str, **given: object) -> httpx.Response:
        """A request to MLflow that succeeds."""
        place = f"/api/2.0/{path}"
        return self.doors.ask("mlflow", method, place, auth=self.login, **given).raise_for_status()

    def phoenix(self, method: str, path: str, **given: object) -> httpx.Response:
        """A request to Phoenix that succeeds."""
        place, key = f"/v1/{path}", dict(self.bearer)
        return self.doors.ask("phoenix", method, place, headers=key, **given).raise_for_status()


def write(person: Person) -> None:
    """A run with a parameter and an artifact; a span."""
    made = person.mlflow("POST", "mlflow/experiments/create", json={"name": EXPERIMENT}).json()
    body = {"experiment_id": made["experiment_id"], "start_time": 1}
    info = person.mlflow("POST", "mlflow/runs/create", json=body).json()["run"]["info"]
    param = {"run_id": info["run_id"], "key": "질문", "value": "보장 개시일"}
    person.mlflow("POST", "mlflow/runs/log-parameter", json=param)
    place = f"mlflow-artifacts/artifacts/{made['experiment_id']}/{info['run_id']}/artifacts/{FILE}"
    person.mlflow("PUT", place, content=CONTENT)
    person.phoenix("POST", f"projects/{EXPERIMENT}/spans", json={"data": [SPAN]})


def read(person: Person) -> dict[str, object]:
    """The same, as it is now."""
    wanted = {"experiment_name": EXPERIMENT}
    found = person.mlflow("GET", "mlflow/experiments/get-by-name", params=wanted).json()
    number = found["experiment"]["experiment_id"]
    runs = person.mlflow("POST", "mlflow/runs/search", json={"experiment_ids": [number]}).json()
    (run,) = runs["runs"]
    place = f"{number}/{run['info']['run_id']}/artifacts/{FILE}"
    file = person.mlflow("GET", f"mlflow-artifacts/artifacts/{place}").content
    (span,) = person.phoenix("GET", f"projects/{EXPERIMENT}/spans").json()["data"]
    return {
        "params": {one["key"]: one["value"] for one in run["data"]["params"]},
        "artifact": file == CONTENT,
        "span": {key: span[key] for key in ("name", "context")},
        "input": span["attributes"]["input.value"],
    }


if __name__ == "__main__":
    someone = Person(sys.argv[2])
    if sys.argv[1] == "write":
        write(someone)
    else:
        sys.stdout.write(json.dumps(read(someone)))
