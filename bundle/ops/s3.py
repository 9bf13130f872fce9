"""A client of the object store that verifies it, for the other modules of this folder."""

from __future__ import annotations

from typing import Any

import urllib3
from minio import Minio
from minio.credentials import StaticProvider


def pool(place: dict[str, Any], *, retries: int = 0) -> urllib3.PoolManager:
    """Connections that trust the CA that `place` gives as a text, or the file of our own."""
    trusted = {"ca_cert_data": place["ca"]} if place.get("ca") else {"ca_certs": place["root_ca"]}
    return urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED",
        timeout=urllib3.Timeout(connect=5, read=30),
        retries=retries or False,
        **trusted,
    )


def client(place: dict[str, Any], key: str, secret: str, *, retries: int = 0) -> Minio:
    """The client with a key."""
    return Minio(
        place["endpoint"],
        credentials=StaticProvider(key, secret),
        region=place["region"],
        http_client=pool(place, retries=retries),
    )
