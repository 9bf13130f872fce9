"""MinIO: the object store, S3 over TLS, never published."""

from __future__ import annotations

from bundle.config import SiteConfig
from bundle.model import SecretSpec, Service, Volume
from bundle.services import s3
from bundle.services.names import ROOT_CA, internal


def service(site: SiteConfig) -> Service | None:
    """The object store as `site` wants it; none where the site has its own."""
    if site.s3_endpoint:
        return None
    name = internal(site, "minio")
    return Service(
        name="minio",
        uid=10002,
        reloads=True,
        port=9000,
        memory_mb=site.memory_minio_mb,
        names=(name,),
        networks=("data", *s3.door_networks(site)),
        health=(
            *("curl", "--silent", "--show-error", "--fail", "--max-time", "4", "--cacert", ROOT_CA),
            *("--resolve", f"{name}:9000:127.0.0.1", f"https://{name}:9000/minio/health/ready"),
        ),
        buckets=(s3.bucket(site.s3_bucket_backups, "backups"),),
        secrets=(
            SecretSpec(name="MINIO_ROOT_USER", kind="name"),
            SecretSpec(name="MINIO_ROOT_PASSWORD"),
            *s3.key_pair(site, "backups"),
        ),
        volumes=(Volume(name="minio", path="/data"),),
        environment={
            "MINIO_ROOT_USER_FILE": "/run/secrets/MINIO_ROOT_USER",
            "MINIO_ROOT_PASSWORD_FILE": "/run/secrets/MINIO_ROOT_PASSWORD",
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
        },
    )
