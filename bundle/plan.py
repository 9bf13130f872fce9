"""What will exist on the closed host, as one value; making it touches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bundle.config import SiteConfig
from bundle.model import Database, ExtraService, Service
from bundle.services import forward, s3, services
from bundle.services.names import doors, internal, public

PROJECT = "tracking"
OPS_UID = 10006
EXTRAS = "extras"
"""The network of the site's own services: the gateway is on it, and nothing else of ours."""
NO_DNS = "127.0.0.1"
"""Where a container's resolver sends outside names: to itself, where nobody listens."""
NO_PING = "1 0"
"""The groups that may ping: none."""


def bridge(network: str) -> str:
    """The host's interface of a network of ours: a fixed name, for rules of the host's firewall."""
    return f"{PROJECT}-{network}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stack of one site: `id` marks what belongs to this installation, `version` is the release that runs.

    `extras` are the site's own services. `quick_probes`: the engine can probe a starting service more often than a
    running one (API 1.44 and newer).
    """

    site: SiteConfig
    id: str
    version: str
    services: tuple[Service, ...]
    extras: tuple[ExtraService, ...] = ()
    quick_probes: bool = True
    project: str = PROJECT

    def image(self, name: str) -> str:
        """The reference under which the engine has the image `name`."""
        registry = self.site.registry_address
        return f"{registry}{'/' if registry else ''}tracking-bundle/{name}:{self.version}"

    def extra_image(self, name: str) -> str:
        """The reference under which the engine has the site's own image `name`."""
        if self.site.registry_address:
            return self.image(f"extra/{name}")
        return f"tracking-extra/{name}:{self.version}"

    def aliases(self, service: Service, network: str) -> tuple[str, ...]:
        """The names of `service` on `network`: the doors' public names lead to the gateway where the extras are.

        The name of the site's own S3 leads to the forwarder, beside the stores.
        """
        if network == "data" and service.name == s3.store(self.site) == forward.NAME:
            return (*service.names, s3.host_and_port(self.site)[0])
        if network != EXTRAS:
            return service.names
        public_names = (public(self.site, door) for door in doors(self.site))
        return tuple(dict.fromkeys((*service.names, *public_names)))

    def extra_name(self, service: ExtraService) -> str:
        """The name of a site's own service on its network."""
        return internal(self.site, service.name)

    @property
    def servers(self) -> tuple[Service, ...]:
        """The services that listen on a network: each has a certificate of its own."""
        return tuple(service for service in self.services if service.port)

    def service(self, name: str) -> Service:
        """The service called `name`."""
        return next(service for service in self.services if service.name == name)

    @property
    def databases(self) -> tuple[Database, ...]:
        """Every database that a service declares; the health role logs in to `postgres`, which is always there."""
        return tuple(database for service in self.services for database in service.databases)

    @property
    def volumes(self) -> Mapping[str, str]:
        """Engine name of each volume by its short name."""
        own = [v.name for service in self.services for v in service.volumes]
        own += [f"extra-{v.name}" for service in self.extras for v in service.volumes]
        return {name: f"{self.project}_{name}" for name in own}


def make_plan(
    site: SiteConfig,
    *,
    site_id: str,
    version: str,
    quick_probes: bool = True,
    extras: tuple[ExtraService, ...] = (),
) -> Plan:
    """The plan of `site` for the release `version`, with the site's own services."""
    made = services(site)
    if extras:
        made = tuple(_joined(service) if service.name == "gateway" else service for service in made)
    return Plan(
        site=site,
        id=site_id,
        version=version,
        services=made,
        extras=extras,
        quick_probes=quick_probes,
    )


def _joined(service: Service) -> Service:
    return replace(service, networks=(*service.networks, EXTRAS))
