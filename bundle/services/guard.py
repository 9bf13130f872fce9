"""The guard: nginx asks it of each request whether its sender may pass; see bundle.guard for what it does."""

from __future__ import annotations

from bundle.config import SiteConfig
from bundle.model import Meeting, Service
from bundle.services.names import internal

MEMORY_MB = 128


def meeting(*, host: bool = False) -> Meeting:
    """The folder of the guard's socket, for the guard (`host`) and for the gateway."""
    return Meeting(name="guard", path="/run/guard", host=host)


def service(site: SiteConfig) -> Service:
    """The guard as `site` wants it."""
    return Service(
        name="guard",
        image="ops",
        command=("-m", "bundle.guard"),
        uid=10007,
        port=0,
        memory_mb=MEMORY_MB,
        names=(internal(site, "guard"),),
        networks=("app",),
        health=("/opt/venv/bin/python", "-m", "bundle.guard", "probe"),
        meetings=(meeting(host=True),),
        needs=("mlflow", "phoenix"),
        environment={
            "GUARD_MLFLOW": f"https://{internal(site, 'mlflow')}:5000",
            "GUARD_PHOENIX": f"https://{internal(site, 'phoenix')}:6006",
        },
    )
