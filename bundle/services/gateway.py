"""The gateway: the only door. TLS inside and outside, upstream certificates verified, portal."""

from __future__ import annotations

from bundle.config import SiteConfig
from bundle.model import Folder, Mount, Service
from bundle.services import guard, s3
from bundle.services.names import CLIENTS_CA, doors, internal, port, public

AUDIT = "/var/log/audit"
"""Where the gateway writes down requests that change something."""
POLICIES = {
    "content-security-policy": "default-src 'none'",
    "strict-transport-security": "max-age=",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=()",
}
"""What each answer of a door says to browsers: part of each header's text."""
CLOSED = {
    "mlflow": (
        "/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/mlflow/gateway/supported-models",
        "/gateway/mlflow/v1/models",
        "/api/2.0/mlflow/webhooks",
    ),
    "phoenix": ("/docs", "/redoc", "/openapi.json", "/graphql"),
}
"""What nobody gets from a door: commands on the server, what asks or tells outside, scripts from outside."""
INSIDE = {"portal": 8443, "mlflow": 8444, "phoenix": 8445, "s3": 8446}


def published(site: SiteConfig) -> tuple[tuple[int, int], ...]:
    """(port of the host, port of the container) of every published port."""
    if site.layout == "names":
        return ((site.ports_portal, INSIDE["portal"]),)
    return tuple((port(site, name), INSIDE[name]) for name in doors(site))


def service(site: SiteConfig) -> Service:
    """The gateway as `site` wants it."""
    name = public(site, "portal")
    probe = (
        *(
            "curl",
            "--silent",
            "--fail",
            "--max-time",
            "4",
            "--output",
            "/dev/null",
            "--cacert",
            CLIENTS_CA,
        ),
        *(
            "--fail-early",
            "--resolve",
            f"{name}:8443:127.0.0.1",
            f"https://{name}:8443/-/health/{{mlflow,phoenix}}",
        ),
    )
    return Service(
        name="gateway",
        uid=10005,
        reloads=True,
        port=INSIDE["portal"],
        memory_mb=site.memory_gateway_mb,
        names=(internal(site, "gateway"),),
        networks=("app", "edge", *s3.door_networks(site)),
        health=probe,
        mounts=(
            Mount(template="gateway/nginx.conf", target="/etc/nginx/nginx.conf"),
            Mount(template="gateway/index.html", target="/srv/portal/index.html"),
        ),
        folders=(Folder(place="audit/gateway", target=AUDIT),),
        published=published(site),
        tmpfs=("/tmp",),
        needs=("mlflow", "phoenix", "guard", *(("minio",) if site.s3_expose else ())),
        meetings=(guard.meeting(),),
    )
