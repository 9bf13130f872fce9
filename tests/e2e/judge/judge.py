"""A small evaluation service of a site: it logs one run to MLflow and to Phoenix under one run_id, then waits.

All that it knows comes from the bundle: its model from a carried file, its helper from a carried wheel, its account
from the file that the stack gives to a client. It is healthy when both trackers have taken its run.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import uuid
from pathlib import Path

DONE = Path("/tmp/run_id")
CLIENT = Path("/run/secrets/client.env")
MODEL = Path("/models/model.bin")
WHEEL = next(Path("/wheels").glob("demo-*.whl"))


def log_run() -> str:
    """Log the run to both trackers; its run_id."""
    import mlflow
    from phoenix.otel import register

    sys.path.insert(0, str(WHEEL))
    import demo  # type: ignore[import-not-found]

    run_id, digest = uuid.uuid4().hex, hashlib.sha256(MODEL.read_bytes()).hexdigest()
    with mlflow.start_run(run_name="judge"):
        mlflow.log_params({"run_id": run_id, "model_sha256": digest, "helper": demo.x})
        mlflow.log_metric("faithfulness", 0.9)
    for given in ({}, {"protocol": "http/protobuf"}):
        provider = register(
            project_name="judge", set_global_tracer_provider=False, verbose=False, **given
        )
        with provider.get_tracer("judge").start_as_current_span("judge") as span:
            span.set_attribute("run_id", run_id)
            span.set_attribute("model.sha256", digest)
        if not provider.force_flush(15_000):
            raise SystemExit("the trace was not taken")
        provider.shutdown()
    return run_id


def main() -> None:
    """Log once, then stay."""
    lines = CLIENT.read_text("utf-8").splitlines()
    os.environ.update({name: value for name, _, value in (line.partition("=") for line in lines)})
    DONE.write_text(log_run())
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
