"""The members of the stack, in the order in which they are started; adding one is one module and one line here."""

from __future__ import annotations

from bundle.config import SiteConfig
from bundle.model import Service
from bundle.services import forward, gateway, guard, minio, mlflow, phoenix, postgres

SERVICES = (
    postgres.service,
    minio.service,
    mlflow.service,
    phoenix.service,
    guard.service,
    forward.service,
    gateway.service,
)


def services(site: SiteConfig) -> tuple[Service, ...]:
    """Every service of the stack as `site` wants it."""
    made = (make(site) for make in SERVICES)
    return tuple(service for service in made if service is not None)
