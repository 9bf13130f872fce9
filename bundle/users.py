"""People: the same person in both trackers, and the product's own one.

Everything goes through the gateway, so what is made here is made by the way that users come.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bundle import accounts
from bundle.accounts import ADMIN, Login
from bundle.denied import NOBODY, read_denied
from bundle.errors import CommandError, ConfigError
from bundle.gateway_client import door
from bundle.host import Host
from bundle.model import Secret
from bundle.own import (
    VERIFY,
    Trackers,
    email,
    is_own,
    new_password,
    open_trackers,
    own_in_mlflow,
    own_in_phoenix,
)
from bundle.plan import Plan
from bundle.rights import ADMIN_ROLE, Seat, mlflow_give, mlflow_roles, mlflow_seats
from bundle.run import log
from bundle.services.names import STACK
from bundle.words import say

ROLES = tuple(accounts.PHOENIX_ROLES)
NAME = re.compile(r"[a-z][a-z0-9._-]{0,30}[a-z0-9]")
TEAM = re.compile(r"[a-z0-9][a-z0-9-]{0,61}[a-z0-9]")
RESERVED = (ADMIN, VERIFY.name, STACK, NOBODY, "system")
NO_TEAMS = ("default", "workspaces", "api", "ajax-api", "static-files")


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with the role in each tracker, empty where the person is missing, and the team in MLflow."""

    name: str
    mlflow: str
    phoenix: str
    team: str = ""
    disabled: bool = False


def bootstrap_people(plan: Plan, host: Host, store: Mapping[str, Secret]) -> None:
    """Make the default experiment, the roles and the first accounts so, and see that nobody else gets in.

    Raises CommandError when a tracker refuses, or lets somebody in whom it should not.
    """
    trackers = Trackers(
        mlflow=door(plan, host, "mlflow"),
        phoenix=door(plan, host, "phoenix"),
        admin=Login(name=STACK, password=store["MLFLOW_STACK_PASSWORD"]),
        secret=store["PHOENIX_ADMIN_SECRET"],
    )
    mlflow_roles(trackers.mlflow, trackers.admin)
    first_admin(trackers, store["MLFLOW_AUTH_ADMIN_PASSWORD"])
    new = accounts.mlflow_experiment(trackers.mlflow, trackers.admin, plan.site.mlflow_experiment)
    own_in_mlflow(trackers, host)
    own_in_phoenix(plan, trackers, host)
    check_refusals(trackers)
    state = "made" if new else "there"
    log.info("  people are so; default experiment %s: %s", plan.site.mlflow_experiment, state)


def first_admin(trackers: Trackers, password: Secret) -> None:
    """Where nobody administers MLflow, make `admin`: that account is a person's, and the stack never uses it.

    Raises CommandError when MLflow refuses.
    """
    seats = mlflow_seats(trackers.mlflow, trackers.admin)
    if any(seat.role == ADMIN_ROLE for name, seat in seats.items() if name != STACK):
        return
    if ADMIN not in seats:
        accounts.mlflow_add(trackers.mlflow, trackers.admin, Login(name=ADMIN, password=password))
    mlflow_give(trackers.mlflow, trackers.admin, ADMIN, Seat(role=ADMIN_ROLE))


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


def check_new(name: str) -> None:
    """See that a person of this name can be added.

    Raises ConfigError.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            say(f"{name[:40]!r} cannot be a name", f"{name[:40]!r}은(는) 이름이 될 수 없습니다"),
            where="users.add",
            hint=say(
                "Use 2 to 32 of a-z, 0-9, dot, hyphen and underscore, a letter first.",
                "a-z, 0-9, 점, 하이픈, 밑줄로 2~32자, 첫 글자는 영문자.",
            ),
        )
    if name in RESERVED or is_own(name):
        raise ConfigError(
            say(f"{name!r} is reserved", f"{name!r}은(는) 예약된 이름입니다"),
            where="users.add",
            hint=say("Choose another name.", "다른 이름을 쓰십시오."),
        )


def check_role(role: str) -> None:
    """See that there is such a role.

    Raises ConfigError.
    """
    if role not in ROLES:
        near = difflib.get_close_matches(role, ROLES, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known roles: {', '.join(ROLES)}."
        raise ConfigError(f"{role!r} is not a role", where="--role", hint=hint)


def check_team(team: str) -> None:
    """See that a team can be called so.

    Raises ConfigError.
    """
    if team and (not TEAM.fullmatch(team) or team in NO_TEAMS):
        raise ConfigError(
            say(f"{team!r} cannot be a team", f"{team!r}은(는) 팀 이름이 될 수 없습니다"),
            where="--team",
            hint=say(
                "Use 2 to 63 of a-z, 0-9 and hyphen, no hyphen first or last.",
                "a-z, 0-9, 하이픈으로 2~63자 (하이픈으로 시작하거나 끝날 수 없음).",
            ),
        )


def seat_of(role: str, team: str) -> Seat:
    """What `role` and `team` make somebody in MLflow; an administrator sees every team.

    Raises ConfigError.
    """
    check_role(role)
    check_team(team)
    if team and role == ADMIN:
        raise ConfigError(
            say("an administrator is in no team", "관리자는 팀에 속하지 않습니다"),
            where="--team",
            hint=say("Leave --team out.", "--team 없이 실행하십시오."),
        )
    return Seat(role=role, team=team)


def users_add(plan: Plan, host: Host, name: str, seat: Seat) -> None:
    """Add a person to both trackers; invoke users.env then hands out the credentials.

    A person whom a broken-off run left in one tracker only, or without a role, is completed.

    Raises ConfigError for a name that cannot be, or a person who is there; CommandError when a tracker refuses.
    """
    check_new(name)
    trackers = open_trackers(plan, host)
    there = mlflow_seats(trackers.mlflow, trackers.admin).get(name)
    in_phoenix = name in accounts.phoenix_users(trackers.phoenix, trackers.secret)
    if there and there.role != "none" and in_phoenix:
        raise ConfigError(
            say(f"{name!r} is there already", f"{name!r}은(는) 이미 있습니다"),
            where="users.add",
            hint=say(
                f"Use invoke users.env --user {name} for a fresh credential, users.role for another role.",
                f"새 자격 증명은 invoke users.env --user {name}, 역할 변경은 users.role입니다.",
            ),
        )
    login = Login(name=name, password=new_password())
    if not in_phoenix:
        address = email(plan, name)
        accounts.phoenix_add(trackers.phoenix, trackers.secret, login, address, seat.role)
    try:
        if there is None:
            accounts.mlflow_add(trackers.mlflow, trackers.admin, login)
    except CommandError:
        if in_phoenix:
            raise
        user = accounts.phoenix_users(trackers.phoenix, trackers.secret)[name]
        accounts.phoenix_remove(trackers.phoenix, trackers.secret, user["id"])
        raise
    mlflow_give(trackers.mlflow, trackers.admin, name, seat)


def users_list(plan: Plan, host: Host) -> tuple[Person, ...]:
    """Everybody in either tracker, by name, with the role in each.

    Raises CommandError when a tracker refuses.
    """
    trackers, denied = open_trackers(plan, host), read_denied(host)
    seats = mlflow_seats(trackers.mlflow, trackers.admin)
    words = {word: role for role, word in accounts.PHOENIX_ROLES.items()}
    phoenix = {
        name: words.get(user["role"], user["role"].lower())
        for name, user in accounts.phoenix_users(trackers.phoenix, trackers.secret).items()
    }
    return tuple(
        Person(
            name=name,
            mlflow=seats[name].role if name in seats else "",
            phoenix=phoenix.get(name, ""),
            team=seats[name].team if name in seats else "",
            disabled=name in denied,
        )
        for name in sorted({*seats, *phoenix})
    )
