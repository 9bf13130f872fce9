"""The variables that a client is set up by: seed 000's four, and the stock names for address, credentials and CA."""

from __future__ import annotations

import os
from collections.abc import Mapping

REQUIRED = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "PHOENIX_ENDPOINT",
    "PHOENIX_API_TOKEN",
)
STOCK = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "PHOENIX_COLLECTOR_ENDPOINT",
    "PHOENIX_GRPC_PORT",
    "PHOENIX_API_KEY",
    "SSL_CERT_FILE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
)


class EnvironmentIncompleteError(ValueError):
    """A tracker is not set up: a run that reaches only one of them is no run."""


def check(variables: Mapping[str, str] | None = None) -> None:
    """See that both trackers are set up.

    Raises EnvironmentIncompleteError with every variable that is missing.
    """
    given = os.environ if variables is None else variables
    missing = [name for name in REQUIRED if not given.get(name)]
    if missing:
        raise EnvironmentIncompleteError(f"not set: {', '.join(missing)}")
