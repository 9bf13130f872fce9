"""The object store that the stack uses: our MinIO, or the site's own S3 behind the forwarder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bundle.config import SiteConfig
from bundle.model import Bucket, Mount, SecretSpec
from bundle.services.names import ROOT_CA, internal
from bundle.settings import allowed

CA = "/etc/s3/ca.crt"
REGION = "us-east-1"
NETWORK = "store"
ON_BUCKET = (
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
)
ON_OBJECTS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def store(site: SiteConfig) -> str:
    """The service that stands for the object store, or leads to it."""
    return "forward" if site.s3_endpoint else "minio"


def host_and_port(site: SiteConfig) -> tuple[str, int]:
    """Where the object store is, by name: the site's own, or ours."""
    if not site.s3_endpoint:
        return internal(site, "minio"), 9000
    parts = urlsplit(site.s3_endpoint)
    return str(parts.hostname), parts.port or 443


def address(site: SiteConfig) -> str:
    """Where the site's own S3 is, as `allow` says it."""
    places = [allowed(entry) for entry in site.allow]
    return next(one.address for one in places if (one.name, one.port) == host_and_port(site))


def place(site: SiteConfig) -> dict[str, Any]:
    """The object store as one-off containers are told of it."""
    host, port = host_and_port(site)
    found = {"endpoint": f"{host}:{port}", "region": site.s3_region or REGION, "root_ca": ROOT_CA}
    return found | ({"ca": site.s3_ca} if site.s3_endpoint else {})


def client_settings(site: SiteConfig) -> Mapping[str, str]:
    """The same as the environment of a boto3 client."""
    host, port = host_and_port(site)
    return {
        "MLFLOW_S3_ENDPOINT_URL": f"https://{host}:{port}",
        "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path",
        "AWS_CA_BUNDLE": CA if site.s3_endpoint else ROOT_CA,
        "AWS_DEFAULT_REGION": site.s3_region or REGION,
    }


def door_networks(site: SiteConfig) -> tuple[str, ...]:
    """The network of the gateway and our MinIO alone, where the site has a door to it."""
    return (NETWORK,) if site.s3_expose else ()


def trust(site: SiteConfig) -> tuple[Mount, ...]:
    """The site's CA for its S3, for a service that is a client of it."""
    return (Mount(template="s3/ca.crt", target=CA),) if site.s3_endpoint else ()


def bucket(name: str, user: str) -> Bucket:
    """A bucket whose user reads and writes objects, and lists; versions outlive what that user does."""
    return Bucket(name=name, user=user, on_bucket=ON_BUCKET, on_objects=ON_OBJECTS)


def key_pair(site: SiteConfig, user: str) -> tuple[SecretSpec, SecretSpec]:
    """The two stored secrets of an S3 user: our own, or what the site's configuration refers to."""
    name = f"S3_{user.upper()}"
    return (
        SecretSpec(name=f"{name}_KEY", kind="name", mounted=False, reference=site.s3_key),
        SecretSpec(name=f"{name}_SECRET", mounted=False, reference=site.s3_secret),
    )
