"""People: the same person in both trackers, the product's own one, and the environment that a client needs.

Everything goes through the gateway, so what is made here is made by the way that users come. A person has one password,
good for both trackers, and API keys of Phoenix.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle import accounts
from bundle.accounts import ADMIN, Login
from bundle.environment import client_environment
from bundle.errors import CommandError, ConfigError
from bundle.gateway_client import clients_ca, door
from bundle.host import Host, write_file
from bundle.model import Secret
from bundle.own import (
    VERIFY,
    Trackers,
    email,
    new_password,
    open_trackers,
    own_in_mlflow,
    own_in_phoenix,
    phoenix_key,
    stored,
)
from bundle.plan import Plan
from bundle.run import log

OWN = VERIFY.name
ROLES = tuple(accounts.PHOENIX_ROLES)
NAME = re.compile(r"[a-z][a-z0-9._-]{0,30}[a-z0-9]")
RESERVED = (ADMIN, OWN, "system")
SERVICES = "extra-"
"""So begin the accounts of the site's own services."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with the role in each tracker; empty where the person is missing."""

    name: str
    mlflow: str
    phoenix: str


def bootstrap_people(plan: Plan, host: Host, store: Mapping[str, Secret]) -> None:
    """Make the default experiment, the roles and the product's own person so, and see that nobody else gets in.

    Raises CommandError when a tracker refuses, or lets somebody in whom it should not.
    """
    trackers = Trackers(
        mlflow=door(plan, host, "mlflow"),
        phoenix=door(plan, host, "phoenix"),
        admin=Login(name=ADMIN, password=store["MLFLOW_AUTH_ADMIN_PASSWORD"]),
        secret=store["PHOENIX_ADMIN_SECRET"],
    )
    accounts.mlflow_roles(trackers.mlflow, trackers.admin)
    new = accounts.mlflow_experiment(trackers.mlflow, trackers.admin, plan.site.mlflow_experiment)
    own_in_mlflow(trackers, host)
    own_in_phoenix(plan, trackers, host)
    check_refusals(trackers)
    state = "made" if new else "there"
    log.info("  people are so; default experiment %s: %s", plan.site.mlflow_experiment, state)


def check_refusals(trackers: Trackers) -> None:
    """See that nobody gets in without a credential, or with a well-known one.

    Raises CommandError when somebody does.
    """
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    wrong = []
    if trackers.mlflow.ask("GET", path).status_code != 401:
        wrong.append("MLflow answers anonymous requests")
    if trackers.phoenix.ask("GET", "/v1/projects").status_code != 401:
        wrong.append("Phoenix answers anonymous requests")
    wrong += [
        f"MLflow lets admin in with {password!r}"
        for password in ("admin", "password1234")
        if accounts.mlflow_accepts(trackers.mlflow, Login(name=ADMIN, password=Secret(password)))
    ]
    session = {"email": "admin@localhost", "password": "admin"}
    if trackers.phoenix.ask("POST", "/auth/login", json=session).status_code not in (401, 429):
        wrong.append("Phoenix lets admin@localhost in with 'admin'")
    if wrong:
        hint = "Run invoke uninstall --purge, then invoke install: these databases were not begun by it."
        raise CommandError("; ".join(wrong), hint=hint)


def check_new(name: str, role: str) -> None:
    """See that a person of this name and role can be added.

    Raises ConfigError.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a name",
            where="users.add",
            hint="Use 2 to 32 of a-z, 0-9, dot, hyphen and underscore, a letter first.",
        )
    if name in RESERVED or name.startswith(SERVICES):
        raise ConfigError(f"{name!r} is reserved", where="users.add", hint="Choose another name.")
    if role not in ROLES:
        near = difflib.get_close_matches(role, ROLES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known roles: {', '.join(ROLES)}."
        raise ConfigError(f"{role!r} is not a role", where="--role", hint=hint)


def users_add(plan: Plan, host: Host, name: str, role: str) -> None:
    """Add a person to both trackers; invoke users.env then hands out the credentials.

    A person whom a broken-off run left in one tracker only is completed.

    Raises ConfigError for a name or role that cannot be, or a person who is there; CommandError when a tracker refuses.
    """
    check_new(name, role)
    trackers = open_trackers(plan, host)
    in_mlflow = name in accounts.mlflow_users(trackers.mlflow, trackers.admin)
    in_phoenix = name in accounts.phoenix_users(trackers.phoenix, trackers.secret)
    if in_mlflow and in_phoenix:
        raise ConfigError(
            f"{name!r} is there already",
            where="users.add",
            hint=f"Use invoke users.env --user {name} for a fresh credential.",
        )
    login = Login(name=name, password=new_password())
    if not in_phoenix:
        address = email(plan, name)
        accounts.phoenix_add(trackers.phoenix, trackers.secret, login, address, role)
    if in_mlflow:  # a run was broken off, perhaps before the role was given
        accounts.mlflow_give_role(trackers.mlflow, trackers.admin, login, role)
        return
    try:
        accounts.mlflow_add(trackers.mlflow, trackers.admin, login, role)
    except CommandError:
        user = accounts.phoenix_users(trackers.phoenix, trackers.secret)[name]
        accounts.phoenix_remove(trackers.phoenix, trackers.secret, user["id"])
        raise


def users_list(plan: Plan, host: Host) -> tuple[Person, ...]:
    """Everybody in either tracker, by name, with the role in each.

    Raises CommandError when a tracker refuses.
    """
    trackers = open_trackers(plan, host)
    mlflow = accounts.mlflow_users(trackers.mlflow, trackers.admin)
    words = {word: role for role, word in accounts.PHOENIX_ROLES.items()}
    phoenix = {
        name: words.get(user["role"], user["role"].lower())
        for name, user in accounts.phoenix_users(trackers.phoenix, trackers.secret).items()
    }
    return tuple(
        Person(name=name, mlflow=mlflow.get(name, ""), phoenix=phoenix.get(name, ""))
        for name in sorted({*mlflow, *phoenix})
    )


def users_env(plan: Plan, host: Host, name: str, out: Path) -> Path:
    """Make a fresh credential for a person and write the client environment to `out` (0600), the CA file beside it.

    A person's password becomes a new one in both trackers, and the key of the former file is revoked. For `admin` the
    stored password of MLflow stays what it is (the health probe lives on it); only the API key is fresh.

    Raises ConfigError for an unknown person, CommandError when a tracker refuses.
    """
    target = out.expanduser().absolute()
    check_target(target)
    trackers = open_trackers(plan, host)
    user = known(trackers, name)
    if name == ADMIN:
        password = stored(host, "PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD")
        login = trackers.admin
        key, older = phoenix_key(plan, host, user["email"], password)
    else:
        login = Login(name=name, password=new_password())
        accounts.mlflow_set_password(trackers.mlflow, trackers.admin, login)
        accounts.phoenix_set_password(trackers.phoenix, trackers.secret, user, login.password)
        key, older = phoenix_key(plan, host, user["email"], login.password, lasting=True)
    certificate = target.with_name(f"{target.name}.ca.crt")
    write_file(certificate, clients_ca(host).read_bytes(), mode=0o644)
    variables = client_environment(
        plan.site, user=name, password=login.password, key=key, certificate=str(certificate)
    )
    lines = [f"{variable}={value}\n" for variable, value in variables.items()]
    write_file(target, "".join(lines).encode(), mode=0o600)
    accounts.phoenix_revoke(trackers.phoenix, trackers.secret, older)
    return target


def check_target(target: Path) -> None:
    """See that the environment can be written to `target`.

    Raises ConfigError.
    """
    if not target.parent.is_dir() or target.is_dir():
        raise ConfigError(
            "is not a place for a file",
            where=str(target),
            hint="Give --out a file in a folder that exists.",
        )
    if "\n" in str(target):
        raise ConfigError(
            "has a line break in it", where=repr(str(target)), hint="Choose another --out."
        )


def known(trackers: Trackers, name: str) -> dict[str, str]:
    """The person `name`, who is in both trackers, as Phoenix has it.

    Raises ConfigError when there is none, or the name is the product's own.
    """
    if name == OWN or name.startswith(SERVICES):
        raise ConfigError(
            f"{name!r} is an account that the product keeps",
            where="--user",
            hint="Name somebody else.",
        )
    mlflow = accounts.mlflow_users(trackers.mlflow, trackers.admin)
    phoenix = accounts.phoenix_users(trackers.phoenix, trackers.secret)
    both = sorted({*mlflow} & {*phoenix} - {OWN})
    if name not in both:
        near = difflib.get_close_matches(name, both, n=1, cutoff=0.6)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{name!r} is not in both trackers",
            where="--user",
            hint=f"{meant}Add a person by invoke users.add NAME --role editor.",
        )
    return phoenix[name]
