"""What people may do in MLflow: a role in one of its workspaces; the default one, or that of a team.

A role holds for everything of its workspace, for what others make later too. Without the right to use the workspace
nobody can make anything in it, which is how a viewer only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle.accounts import Login, expect
from bundle.errors import CommandError
from bundle.gateway_client import Door
from bundle.mlflow_account import remedy
from bundle.words import say

DEFAULT = "default"
KINDS = ("experiment", "registered_model", "prompt", "scorer")
ADMIN_ROLE = "admin"
MEMBER = "member"
"""May make things of its own, and sees those only: the product's own account."""
GRANTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "viewer": tuple((kind, "READ") for kind in KINDS),
    "editor": (*((kind, "EDIT") for kind in KINDS), ("workspace", "USE")),
    MEMBER: (("workspace", "USE"),),
}
_ROLES = "/api/3.0/mlflow/roles"


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What somebody is in MLflow: the role (`none` when it is none of ours), and the team when it has one."""

    role: str
    team: str = ""


def mlflow_seats(mlflow: Door, admin: Login) -> dict[str, Seat]:
    """Everybody in MLflow with role and team there.

    Raises CommandError when it refuses.
    """
    found = {}
    for user in _people(mlflow, admin):
        own = [role for role in user.get("roles", []) if role["name"] in GRANTS]
        role = own[0] if own else {"name": "none", "workspace": DEFAULT}
        team = "" if role["workspace"] == DEFAULT else str(role["workspace"])
        name = ADMIN_ROLE if user["is_admin"] else str(role["name"])
        found[str(user["username"])] = Seat(role=name, team="" if user["is_admin"] else team)
    return found


def _people(mlflow: Door, admin: Login) -> list[dict[str, Any]]:
    answer = mlflow.ask("GET", "/api/2.0/mlflow/users/list", auth=admin.pair)
    if answer.status_code in (401, 403):
        raise CommandError(
            say(
                f"refuses {admin.name}: that account was changed or deleted there",
                f"{admin.name} 계정을 거부합니다: 바뀌었거나 삭제되었습니다",
            ),
            where="mlflow",
            hint=remedy(),
        )
    return list(expect(answer, 200, task="listing people", where="mlflow")["users"])


def mlflow_roles(mlflow: Door, admin: Login, workspace: str = DEFAULT) -> dict[str, int]:
    """The roles of a workspace with their ids, made (with their rights) where they are missing.

    Raises CommandError when MLflow refuses.
    """
    found = {}
    answer = mlflow.ask("GET", f"{_ROLES}/list?workspace={workspace}", auth=admin.pair)
    roles = expect(answer, 200, task="listing roles", where="mlflow")["roles"]
    there = {role["name"]: role for role in roles}
    for name, grants in GRANTS.items():
        role = there.get(name)
        if role is None:
            body = {"name": name, "workspace": workspace, "description": f"tracking-bundle {name}"}
            answer = mlflow.ask("POST", f"{_ROLES}/create", auth=admin.pair, json=body)
            role = expect(answer, 200, task=f"making the role {name}", where="mlflow")["role"]
        found[name] = int(role["id"])
        given = {entry["resource_type"] for entry in role.get("permissions") or []}
        for kind, right in (grant for grant in grants if grant[0] not in given):
            entry = {"role_id": role["id"], "resource_type": kind, "resource_pattern": "*"}
            entry["permission"] = right
            answer = mlflow.ask("POST", f"{_ROLES}/permissions/add", auth=admin.pair, json=entry)
            expect(answer, 200, task=f"giving rights to {name}", where="mlflow")
    return found


def mlflow_team(mlflow: Door, admin: Login, team: str) -> None:
    """Make the workspace of a team so.

    Raises CommandError when MLflow refuses.
    """
    body = {"name": team, "description": "tracking-bundle team"}
    answer = mlflow.ask("POST", "/api/3.0/mlflow/workspaces", auth=admin.pair, json=body)
    if answer.status_code == 400 and "RESOURCE_ALREADY_EXISTS" in answer.text:
        return
    expect(answer, 200, 201, task=f"making the team {team}", where="mlflow")


def mlflow_give(mlflow: Door, admin: Login, name: str, seat: Seat) -> None:
    """Make a person who is there exactly what `seat` says: one role, in one workspace.

    Raises CommandError when MLflow refuses.
    """
    person = next(user for user in _people(mlflow, admin) if user["username"] == name)
    wanted = set()
    if seat.role in GRANTS:
        if seat.team:
            mlflow_team(mlflow, admin, seat.team)
        wanted = {mlflow_roles(mlflow, admin, seat.team or DEFAULT)[seat.role]}
    held = {int(role["id"]) for role in person.get("roles", []) if role["name"] in GRANTS}
    for step, ids in (("assign", wanted - held), ("unassign", held - wanted)):
        for role_id in sorted(ids):
            body: dict[str, Any] = {"username": name, "role_id": role_id}
            method = "POST" if step == "assign" else "DELETE"
            answer = mlflow.ask(method, f"{_ROLES}/{step}", auth=admin.pair, json=body)
            expect(answer, 200, task=f"giving {name} the role {seat.role}", where="mlflow")
    is_admin = seat.role == ADMIN_ROLE
    if bool(person["is_admin"]) != is_admin:
        body = {"username": name, "is_admin": is_admin}
        path = "/api/2.0/mlflow/users/update-admin"
        answer = mlflow.ask("PATCH", path, auth=admin.pair, json=body)
        expect(answer, 200, task=f"making {name} {seat.role}", where="mlflow")
