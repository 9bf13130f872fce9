"""What a user's own code does, with stock clients and the environment of users.env only; prints what it saw as JSON.

Run as a script in a virtual environment that holds mlflow-skinny and the two client packages of Phoenix, and nothing
of this product: python stock_client.py MEGABYTES…
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from phoenix.client import Client
from phoenix.otel import register

BLOCK = 1 << 20


def write_random(path: Path, megabytes: int) -> str:
    """A file of that size that does not compress; its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for index in range(megabytes):
            block = hashlib.shake_256(f"{megabytes} {index}".encode()).digest(BLOCK)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """The digest of a file of any size."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def artifacts(run_id: str, megabytes: int) -> dict[str, object]:
    """Send one artifact up and bring it back down."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = Path(folder, f"{megabytes}.bin")
        wanted, begin = write_random(file, megabytes), time.monotonic()
        MlflowClient().log_artifact(run_id, str(file), "dataset")
        up = time.monotonic() - begin
        file.unlink()
        place = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=f"dataset/{file.name}", dst_path=folder
        )
        down = time.monotonic() - begin - up
        equal = digest_of(Path(place)) == wanted
    return {"megabytes": megabytes, "equal": equal, "up": round(up, 1), "down": round(down, 1)}


def trace(run_id: str, **given: str) -> int:
    """Send one span by a tracer that is registered as `given`; how many come back."""
    provider = register(
        project_name="stock", set_global_tracer_provider=False, verbose=False, **given
    )
    with provider.get_tracer("stock").start_as_current_span("ask") as span:
        span.set_attribute("run_id", run_id)
        trace_id = format(span.get_span_context().trace_id, "032x")
    provider.force_flush(15_000)
    provider.shutdown()
    client, end = Client(), time.monotonic() + 30
    while time.monotonic() < end:
        try:
            spans = client.spans.get_spans(project_identifier="stock", trace_ids=[trace_id])
        except Exception:  # noqa: BLE001  (the project comes with its first span)
            spans = []
        if spans:
            return len(spans)
        time.sleep(0.2)
    return 0


def main(sizes: list[int]) -> dict[str, object]:
    """One run in the default experiment, logged to both trackers and read back."""
    with mlflow.start_run(run_name="stock") as run:
        mlflow.log_params({"dataset_name": "insurance_qa_korean", "질문": "보장 개시일"})
        mlflow.log_metric("faithfulness", 0.9)
    run_id = run.info.run_id
    data = MlflowClient().get_run(run_id).data
    return {
        "params": dict(data.params),
        "metrics": dict(data.metrics),
        "grpc": trace(run_id),
        "http": trace(run_id, protocol="http/protobuf"),
        "artifacts": [artifacts(run_id, megabytes) for megabytes in sizes],
    }


if __name__ == "__main__":
    json.dump(main([int(word) for word in sys.argv[1:]]), sys.stdout)
