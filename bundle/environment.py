"""The environment of a client: seed 000's four variables, then the stock names for address, credentials and CA."""

from __future__ import annotations

from bundle.config import SiteConfig
from bundle.model import Secret
from bundle.services.names import port, url


def client_environment(
    site: SiteConfig, *, user: str, password: Secret, key: Secret, certificate: str
) -> dict[str, str]:
    """The variables of the client of `user`; `certificate` is the path of the CA file on the client.

    PHOENIX_GRPC_PORT: the stock client sends gRPC to 4317 unless told, and that port is not published.
    """
    mlflow, phoenix = url(site, "mlflow"), url(site, "phoenix")
    return {
        "MLFLOW_TRACKING_URI": mlflow,
        "MLFLOW_EXPERIMENT_NAME": site.mlflow_experiment,
        "PHOENIX_ENDPOINT": f"{phoenix}/v1/traces",
        "PHOENIX_API_TOKEN": key.reveal(),
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password.reveal(),
        "PHOENIX_COLLECTOR_ENDPOINT": phoenix,
        "PHOENIX_GRPC_PORT": str(port(site, "phoenix")),
        "PHOENIX_API_KEY": key.reveal(),
        "MLFLOW_TRACKING_SERVER_CERT_PATH": certificate,
        "SSL_CERT_FILE": certificate,
        "OTEL_EXPORTER_OTLP_CERTIFICATE": certificate,
    }
