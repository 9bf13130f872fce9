"""MLflow: tracking server with accounts; metadata in Postgres, artifacts in the object store through the server."""

from __future__ import annotations

from collections.abc import Mapping

from bundle.config import SiteConfig
from bundle.model import Database, Mount, Secret, SecretSpec, Service, Volume
from bundle.services import forward, s3
from bundle.services.names import database_url, door_hosts, internal, port

FIRST = "MLFLOW_AUTH_ADMIN_PASSWORD"


def environment(site: SiteConfig) -> dict[str, str]:
    """The server's settings; no secret is among them."""
    name = internal(site, "mlflow")
    hosts = [name, f"{name}:*"] + [
        host + tail for host in door_hosts(site, "mlflow") for tail in ("", ":*")
    ]
    origins = [
        f"https://{host}:{port(site, 'mlflow')}".removesuffix(":443")
        for host in door_hosts(site, "mlflow")
    ]
    return {
        "MLFLOW_BACKEND_STORE_URI": database_url(site, "postgresql+psycopg2", "mlflow"),
        "PGPASSFILE": "/run/secrets/pgpass",
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{site.s3_bucket_mlflow}",
        **s3.client_settings(site),
        "AWS_SHARED_CREDENTIALS_FILE": "/run/secrets/aws",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MLFLOW_AUTH_CONFIG_PATH": "/etc/mlflow/auth.ini",
        "MLFLOW_ENABLE_WORKSPACES": "true",
        "MLFLOW_HOST": "0.0.0.0",
        "MLFLOW_PORT": "5000",
        "MLFLOW_WORKERS": str(site.mlflow_workers),
        "MLFLOW_UVICORN_OPTS": (
            "--ssl-keyfile /run/secrets/tls.key --ssl-certfile /run/secrets/tls.crt"
            " --no-server-header --log-level warning"
        ),
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_MODEL_CATALOG_URI": "",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "TMPDIR": "/spool",
        "HOME": "/spool",
    }


def service(site: SiteConfig) -> Service:
    """The tracking server as `site` wants it."""
    database = internal(site, "postgres")

    def derive(store: Mapping[str, Secret]) -> dict[str, Secret]:
        roles = [
            f"{database}:5432:{role}:{role}:{store[f'DB_{role.upper()}'].reveal()}"
            for role in ("mlflow", "mlflow_auth")
        ]
        key, secret = store["S3_MLFLOW_KEY"].reveal(), store["S3_MLFLOW_SECRET"].reveal()
        return {
            # What MLflow takes for the password of its administrator is that of the stack's own account.
            "MLFLOW_AUTH_ADMIN_PASSWORD": store["MLFLOW_STACK_PASSWORD"],
            "pgpass": Secret("\n".join(roles) + "\n"),
            "aws": Secret(
                f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
            ),
        }

    return Service(
        name="mlflow",
        uid=10003,
        port=5000,
        memory_mb=site.memory_mlflow_mb,
        names=(internal(site, "mlflow"),),
        networks=("data", "app"),
        links=forward.links(site),
        health=("/opt/venv/bin/python", "-I", "/etc/mlflow/health.py"),
        mounts=(
            Mount(template="mlflow/auth.ini", target="/etc/mlflow/auth.ini"),
            Mount(template="mlflow/health.py", target="/etc/mlflow/health.py"),
            *s3.trust(site),
        ),
        databases=(
            Database(name="mlflow", role="mlflow", owner="mlflow_owner"),
            Database(name="mlflow_auth", role="mlflow_auth", owner="mlflow_auth_owner"),
        ),
        migration="migrate_mlflow",
        buckets=(s3.bucket(site.s3_bucket_mlflow, "mlflow"),),
        secrets=(
            SecretSpec(name="MLFLOW_STACK_PASSWORD", kind="password", mounted=False),
            SecretSpec(name=FIRST, kind="password", mounted=False, rotation="logout"),
            SecretSpec(name="MLFLOW_FLASK_SERVER_SECRET_KEY", rotation="logout"),
            SecretSpec(name="MLFLOW_CRYPTO_KEK_PASSPHRASE", rotation="data"),
            SecretSpec(name="DB_MLFLOW", mounted=False),
            SecretSpec(name="DB_MLFLOW_AUTH", mounted=False),
            SecretSpec(name="DB_MLFLOW_OWNER", mounted=False),
            SecretSpec(name="DB_MLFLOW_AUTH_OWNER", mounted=False),
            *s3.key_pair(site, "mlflow"),
        ),
        derive=derive,
        volumes=(Volume(name="mlflow-spool", path="/spool"),),
        tmpfs=("/tmp",),
        needs=("postgres", s3.store(site)),
        environment=environment(site),
    )
