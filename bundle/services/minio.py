"""MinIO: the object store, S3 over TLS, never published."""

from __future__ import annotations

from bundle.config import SiteConfig
from bundle.model import Bucket, SecretSpec, Service, Volume
from bundle.services.names import ROOT_CA, internal

READ_WRITE = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)
ON_BUCKET = (
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
)


def bucket(name: str, user: str) -> Bucket:
    """A bucket whose user reads and writes objects, and lists; versions outlive what that user does."""
    return Bucket(name=name, user=user, on_bucket=ON_BUCKET, on_objects=READ_WRITE)


def key_pair(user: str) -> tuple[SecretSpec, SecretSpec]:
    """The two stored secrets of an S3 user."""
    return (
        SecretSpec(name=f"S3_{user.upper()}_KEY", kind="name", mounted=False),
        SecretSpec(name=f"S3_{user.upper()}_SECRET", mounted=False),
    )


def service(site: SiteConfig) -> Service:
    """The object store as `site` wants it."""
    name = internal(site, "minio")
    return Service(
        name="minio",
        uid=10002,
        reloads=True,
        port=9000,
        memory_mb=site.memory_minio_mb,
        names=(name,),
        networks=("data",),
        health=(
            *("curl", "--silent", "--show-error", "--fail", "--max-time", "4", "--cacert", ROOT_CA),
            *("--resolve", f"{name}:9000:127.0.0.1", f"https://{name}:9000/minio/health/ready"),
        ),
        buckets=(bucket("backups", "backups"),),
        secrets=(
            SecretSpec(name="MINIO_ROOT_USER", kind="name"),
            SecretSpec(name="MINIO_ROOT_PASSWORD"),
            *key_pair("backups"),
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
