"""The site's own services as clients of both trackers: an account each, its environment in a file that only it sees.

The file is `/run/secrets/client.env`, the certificate beside it; the doors are reached inside, by their public names.
"""

from __future__ import annotations

import dataclasses
import os
import shutil

from bundle import accounts
from bundle.config import SiteConfig
from bundle.environment import client_environment
from bundle.gateway_client import clients_ca
from bundle.host import Host, make_folder, write_file
from bundle.model import ExtraService
from bundle.own import Own, Trackers, open_trackers, own_in_mlflow, own_in_phoenix, stored
from bundle.plan import Plan
from bundle.rights import mlflow_seats
from bundle.services.gateway import INSIDE
from bundle.services.names import ROOT_CA

ROLE = "editor"
FILE = "client.env"
PREFIX, SUFFIX = "EXTRA_", "_KEY"


def account(slug: str) -> Own:
    """The account of the service `slug`, in both trackers."""
    name = slug.removeprefix("extra-").upper().replace("-", "_")
    return Own(
        name=slug,
        password=f"{PREFIX}{name}_PASSWORD",
        key=f"{PREFIX}{name}{SUFFIX}",
        mlflow_role=ROLE,
        phoenix_role=ROLE,
    )


def make_clients(plan: Plan, host: Host) -> tuple[list[str], list[str]]:
    """Make the account and the environment of each service that asks so; the accounts of those that are gone go.

    Returns who is a client, and whose account went. Twice changes nothing.

    Raises CommandError when a tracker refuses.
    """
    wanted = [service for service in plan.extras if service.client]
    gone = sorted(_known(host) - {service.slug for service in wanted})
    if not wanted and not gone:
        return [], []
    trackers = open_trackers(plan, host)
    for service in wanted:
        who = account(service.slug)
        own_in_mlflow(trackers, host, who)
        own_in_phoenix(plan, trackers, host, who)
        _hand_out(plan, host, service)
    for slug in gone:
        _remove(trackers, host, slug)
    return [service.slug for service in wanted], gone


def _known(host: Host) -> set[str]:
    """Every service that the store has a secret of."""
    found = {
        path.name.removeprefix(PREFIX).removesuffix(SUFFIX).removesuffix("_PASSWORD")
        for path in host.path("secrets", "store").glob(f"{PREFIX}*")
    }
    return {f"extra-{name.lower().replace('_', '-')}" for name in found}


def inside(site: SiteConfig) -> SiteConfig:
    """The site as it looks from an internal network: the doors have the gateway's own ports."""
    return dataclasses.replace(
        site,
        ports_portal=INSIDE["portal"],
        ports_mlflow=INSIDE["mlflow"],
        ports_phoenix=INSIDE["phoenix"],
    )


def _hand_out(plan: Plan, host: Host, service: ExtraService) -> None:
    who, folder = account(service.slug), host.path("secrets", service.slug)
    variables = client_environment(
        inside(plan.site),
        user=who.name,
        password=stored(host, who.password),
        key=stored(host, who.key),
        certificate=ROOT_CA,
    )
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    files = {FILE: lines.encode(), "root.crt": clients_ca(host).read_bytes()}
    make_folder(folder, 0o700)
    for name, data in files.items():
        path = folder / name
        same = path.exists() and path.read_bytes() == data and path.stat().st_uid == service.user
        if not same:
            write_file(path, data, mode=0o400, uid=service.user, gid=service.user)
    os.chown(folder, service.user, service.user)
    folder.chmod(0o500)


def _remove(trackers: Trackers, host: Host, slug: str) -> None:
    """Take the account of a service away; what it logged stays."""
    who = account(slug)
    if slug in mlflow_seats(trackers.mlflow, trackers.admin):
        accounts.mlflow_remove(trackers.mlflow, trackers.admin, slug)
    user = accounts.phoenix_users(trackers.phoenix, trackers.secret).get(slug)
    if user:
        accounts.phoenix_remove(trackers.phoenix, trackers.secret, user["id"])
    shutil.rmtree(host.path("secrets", slug), ignore_errors=True)
    for name in (who.password, who.key):
        host.path("secrets", "store", name).unlink(missing_ok=True)
