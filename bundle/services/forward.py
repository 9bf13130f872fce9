"""The forwarder: the only way out, there only while site.toml names places outside in `allow`.

MLflow and Phoenix know each allowed name as the forwarder's; it passes bytes on, so TLS stays between them and the
place itself. On a port that several names share, the name that TLS asks for decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from bundle.config import SiteConfig
from bundle.model import Mount, Service
from bundle.services import s3
from bundle.services.names import internal
from bundle.settings import PROBE_PORT, Allowed, allowed

NAME = "forward"
NETWORK = "allow"
MEMORY_MB = 64
PROBE = f'read -r said </dev/tcp/127.0.0.1/{PROBE_PORT} && [ "$said" = well ]'


def places(site: SiteConfig) -> tuple[Allowed, ...]:
    """Where the stack may go."""
    return tuple(allowed(entry) for entry in site.allow)


def by_port(site: SiteConfig) -> Mapping[int, tuple[Allowed, ...]]:
    """The allowed places of each port."""
    ports = sorted({place.port for place in places(site)})
    return {port: tuple(one for one in places(site) if one.port == port) for port in ports}


def links(site: SiteConfig) -> tuple[str, ...]:
    """The names that lead to the forwarder."""
    return tuple(dict.fromkeys(place.name for place in places(site)))


def service(site: SiteConfig) -> Service | None:
    """The forwarder as `site` wants it; none where nothing is allowed."""
    if not site.allow:
        return None
    return Service(
        name=NAME,
        image="gateway",
        uid=10008,
        port=0,
        memory_mb=MEMORY_MB,
        names=(internal(site, NAME),),
        networks=("app", "data", NETWORK) if site.s3_endpoint else ("app", NETWORK),
        buckets=(s3.bucket(site.s3_bucket_backups, "backups"),) if site.s3_endpoint else (),
        secrets=s3.key_pair(site, "backups") if site.s3_endpoint else (),
        health=("bash", "-c", PROBE),
        mounts=(Mount(template="forward/nginx.conf", target="/etc/nginx/nginx.conf"),),
        tmpfs=("/tmp",),
    )
