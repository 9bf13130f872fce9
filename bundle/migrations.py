"""Bring the tables of every service's databases to what its image knows, as their owners, before the service starts.

The role with which a service serves users owns nothing: a server that is taken over cannot change or drop a table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from bundle.bootstrap import mark_migrated
from bundle.host import Host
from bundle.model import Database, OneOff, Secret, Service, role_secret
from bundle.plan import Plan
from bundle.run import log
from bundle.services.names import ROOT_CA, database_url
from bundle.site import SITE_LABEL

SCRIPT = "/run/migrate.py"
WITHIN_S = 1800
"""A big table may be rewritten."""


def migrate(plan: Plan, host: Host, store: Mapping[str, Secret], marks: Mapping[str, str]) -> None:
    """Migrate the databases whose mark is not the image that is about to serve them; `marks` by database.

    Raises CommandError when a migration fails: the service stays stopped, the database as its last transaction left it.
    """
    for service in plan.services:
        names = tuple(database.name for database in service.databases)
        found = host.engine.image(service.name, plan.image(service.name))
        mark = found.id if found else ""
        if not service.migration or (mark and all(marks.get(name) == mark for name in names)):
            continue
        log.info("  %s: bringing the tables of %s up", service.name, ", ".join(names))
        _stop(plan, host, service)
        host.engine.one_off(
            _container(plan, host, service),
            text=json.dumps({d.name: _login(plan, d, store) for d in service.databases}),
            timeout=WITHIN_S,
        )
        mark_migrated(plan, host, names, mark)


def _stop(plan: Plan, host: Host, service: Service) -> None:
    file = host.compose_file
    host.engine.compose(plan.project, file, ["stop", service.name], timeout=120)


def _container(plan: Plan, host: Host, service: Service) -> OneOff:
    script = Path(str(resources.files("bundle.ops")), f"{service.migration}.py")
    return OneOff(
        image=plan.image(service.name),
        arguments=(SCRIPT,),
        entrypoint="/opt/venv/bin/python",
        user=service.uid,
        network=f"{plan.project}_data",
        labels={SITE_LABEL: plan.id},
        binds={str(host.path("pki", "root.crt")): ROOT_CA, str(script): SCRIPT},
        environment={"HOME": "/tmp", "MLFLOW_DISABLE_TELEMETRY": "true"},
    )


def _login(plan: Plan, database: Database, store: Mapping[str, Secret]) -> dict[str, str]:
    return {
        "url": database_url(plan.site, "postgresql", database.name, database.owner),
        "password": store[role_secret(database.owner)].reveal(),
    }
