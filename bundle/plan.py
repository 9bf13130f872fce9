"""What will exist on the closed host, as one value; making it touches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bundle.config import SiteConfig
from bundle.model import Database, Service
from bundle.services import services

PROJECT = "tracking"
OPS_UID = 10006


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stack of one site: `id` marks what belongs to this installation, `version` is the release that runs.

    `quick_probes`: the engine can probe a starting service more often than a running one (API 1.44 and newer).
    """

    site: SiteConfig
    id: str
    version: str
    services: tuple[Service, ...]
    quick_probes: bool = True
    project: str = PROJECT

    def image(self, name: str) -> str:
        """The reference under which the engine has the image `name`."""
        registry = self.site.registry_address
        return f"{registry}{'/' if registry else ''}tracking-bundle/{name}:{self.version}"

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
        return {
            v.name: f"{self.project}_{v.name}" for service in self.services for v in service.volumes
        }


def make_plan(site: SiteConfig, *, site_id: str, version: str, quick_probes: bool = True) -> Plan:
    """The plan of `site` for the release `version`."""
    return Plan(
        site=site, id=site_id, version=version, services=services(site), quick_probes=quick_probes
    )
