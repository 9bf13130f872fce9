"""People in the two trackers, by their own interfaces through the gateway: REST, and GraphQL of Phoenix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from bundle.errors import CommandError
from bundle.gateway_client import Door
from bundle.model import Secret

ADMIN = "admin"
PHOENIX_ADMIN = "admin@localhost"
PHOENIX_ROLES = {"viewer": "VIEWER", "editor": "MEMBER", "admin": "ADMIN"}
KEY_NAME = "users.env"

_CREATE = "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } } }"
_PATCH_USER = "mutation ($input: PatchUserInput!) { patchUser(input: $input) { user { id } } }"
_PATCH_SELF = "mutation ($input: PatchViewerInput!) { patchViewer(input: $input) { user { id } } }"
_KEYS = "query { userApiKeys { id name user { username } } }"
_DELETE = "mutation ($input: DeleteUsersInput!) { deleteUsers(input: $input) { userIds } }"


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user of MLflow with the password."""

    name: str
    password: Secret

    @property
    def pair(self) -> tuple[str, str]:
        """User and password for one request."""
        return self.name, self.password.reveal()


def expect(answer: httpx.Response, *wanted: int, task: str, where: str) -> Any:
    """The decoded body of `answer`; the body of a refusal is told, that of an answer never is.

    Raises CommandError when the status is none of `wanted`.
    """
    if answer.status_code not in wanted:
        raise CommandError(
            f"{task}: status {answer.status_code}: {answer.text[:300]}",
            where=where,
            hint=f"Look at invoke logs --service {where}.",
        )
    return answer.json() if answer.content else {}


# --- MLflow -----------------------------------------------------------------------------------------------------------


def mlflow_accepts(mlflow: Door, login: Login) -> bool:
    """Whether MLflow lets `login` in.

    Raises CommandError when it neither accepts nor refuses.
    """
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    answer = mlflow.ask("GET", path, auth=login.pair)
    if answer.status_code == 401:
        return False
    expect(answer, 200, task=f"logging in as {login.name}", where="mlflow")
    return True


def mlflow_add(mlflow: Door, admin: Login, login: Login) -> None:
    """Add a person, who may do nothing yet.

    Raises CommandError when MLflow refuses.
    """
    body = {"username": login.name, "password": login.password.reveal()}
    answer = mlflow.ask("POST", "/api/2.0/mlflow/users/create", auth=admin.pair, json=body)
    expect(answer, 200, task=f"adding {login.name}", where="mlflow")


def mlflow_set_password(mlflow: Door, admin: Login, login: Login) -> None:
    """Give a person, or the admin who asks, the password of `login`.

    Raises CommandError when MLflow refuses.
    """
    body = {"username": login.name, "password": login.password.reveal()}
    if admin.name == login.name:  # asked for of everybody's own password
        body["current_password"] = admin.password.reveal()
    path = "/api/2.0/mlflow/users/update-password"
    answer = mlflow.ask("PATCH", path, auth=admin.pair, json=body)
    expect(answer, 200, task=f"setting the password of {login.name}", where="mlflow")


def mlflow_remove(mlflow: Door, admin: Login, name: str) -> None:
    """Remove a person.

    Raises CommandError when MLflow refuses.
    """
    path, body = "/api/2.0/mlflow/users/delete", {"username": name}
    answer = mlflow.ask("DELETE", path, auth=admin.pair, json=body)
    expect(answer, 200, task=f"removing {name}", where="mlflow")


def mlflow_experiment(mlflow: Door, admin: Login, name: str) -> bool:
    """Make the experiment `name` so; whether it is new.

    Raises CommandError when MLflow refuses.
    """
    base = "/api/2.0/mlflow/experiments"
    answer = mlflow.ask("POST", f"{base}/create", auth=admin.pair, json={"name": name})
    if answer.status_code == 400 and "RESOURCE_ALREADY_EXISTS" in answer.text:
        return False
    expect(answer, 200, task=f"making the experiment {name!r}", where="mlflow")
    return True


# --- Phoenix ----------------------------------------------------------------------------------------------------------


def _graphql(phoenix: Door, query: str, given: dict[str, Any], *, bearer: str, task: str) -> Any:
    body = {"query": query, "variables": {"input": given}}
    answer = expect(
        phoenix.ask("POST", "/graphql", bearer=bearer, json=body), 200, task=task, where="phoenix"
    )
    if errors := answer.get("errors"):
        told = "; ".join(str(error.get("message")) for error in errors)
        raise CommandError(f"{task}: {told}", where="phoenix", hint="Look at its log.")
    return answer.get("data")


def phoenix_accepts(phoenix: Door, key: Secret) -> bool:
    """Whether Phoenix lets the holder of `key` in.

    Raises CommandError when it neither accepts nor refuses.
    """
    answer = phoenix.ask("GET", "/v1/user", bearer=key.reveal())
    if answer.status_code in (401, 403):
        return False
    expect(answer, 200, task="presenting an API key", where="phoenix")
    return True


def phoenix_users(phoenix: Door, secret: Secret) -> dict[str, dict[str, str]]:
    """Everybody in Phoenix by name, the system user left out.

    Raises CommandError when it refuses.
    """
    found, cursor = {}, ""
    while True:
        path = "/v1/users?limit=100" + (f"&cursor={cursor}" if cursor else "")
        answer = phoenix.ask("GET", path, bearer=secret.reveal())
        body = expect(answer, 200, task="listing people", where="phoenix")
        found.update({u["username"]: u for u in body["data"] if u["role"] != "SYSTEM"})
        cursor = body.get("next_cursor") or ""
        if not cursor:
            return found


def phoenix_add(phoenix: Door, secret: Secret, login: Login, email: str, role: str) -> None:
    """Add a person with `role` (viewer, editor, admin); the password needs no change at the first login.

    Raises CommandError when Phoenix refuses.
    """
    given = {
        "email": email,
        "username": login.name,
        "password": login.password.reveal(),
        "role": PHOENIX_ROLES[role],
        "sendWelcomeEmail": False,
    }
    _graphql(phoenix, _CREATE, given, bearer=secret.reveal(), task=f"adding {login.name}")


def phoenix_remove(phoenix: Door, secret: Secret, user_id: str) -> None:
    """Remove a person.

    Raises CommandError when Phoenix refuses.
    """
    given = {"userIds": [user_id]}
    _graphql(phoenix, _DELETE, given, bearer=secret.reveal(), task="removing a person")


def phoenix_set_password(phoenix: Door, secret: Secret, user: dict[str, str], new: Secret) -> None:
    """Give a person a new password, which ends the person's sessions.

    Raises CommandError when Phoenix refuses.
    """
    given = {"userId": user["id"], "newPassword": new.reveal()}
    task = f"setting the password of {user['username']}"
    _graphql(phoenix, _PATCH_USER, given, bearer=secret.reveal(), task=task)


def phoenix_set_role(phoenix: Door, secret: Secret, user: dict[str, str], role: str) -> None:
    """Give a person `role` (viewer, editor, admin), which ends the person's sessions.

    Raises CommandError when Phoenix refuses.
    """
    given = {"userId": user["id"], "newRole": PHOENIX_ROLES[role]}
    task = f"giving {user['username']} the role {role}"
    _graphql(phoenix, _PATCH_USER, given, bearer=secret.reveal(), task=task)


def phoenix_keys(phoenix: Door, secret: Secret, name: str) -> dict[str, str]:
    """The API keys of a person: names by ids.

    Raises CommandError when Phoenix refuses.
    """
    task = f"listing the API keys of {name}"
    found = _graphql(phoenix, _KEYS, {}, bearer=secret.reveal(), task=task)
    keys = found["userApiKeys"]
    return {str(key["id"]): str(key["name"]) for key in keys if key["user"]["username"] == name}


def phoenix_log_in(phoenix: Door, email: str, password: Secret) -> bool:
    """Begin a session at this door; False when Phoenix refuses the password.

    Raises CommandError when it neither accepts nor refuses (as after too many attempts).
    """
    body = {"email": email, "password": password.reveal()}
    answer = phoenix.ask("POST", "/auth/login", json=body)
    if answer.status_code == 401:
        return False
    if answer.status_code == 429:
        raise CommandError(
            f"logging in as {email}: too many attempts",
            where="phoenix",
            hint="Wait five minutes, then run this again.",
        )
    expect(answer, 200, 204, task=f"logging in as {email}", where="phoenix")
    return True


def phoenix_fresh_key(session: Door, name: str = KEY_NAME) -> tuple[Secret, list[str]]:
    """A new API key for who is logged in at `session`, and the ids of that person's older keys of this name.

    Raises CommandError when Phoenix refuses.
    """
    answer = session.ask("GET", "/v1/user/api_keys")
    there = expect(answer, 200, task="listing API keys", where="phoenix")["data"]
    body = {"data": {"name": name, "description": "made by tracking-bundle"}}
    answer = session.ask("POST", "/v1/user/api_keys", json=body)
    key = expect(answer, 201, task="making an API key", where="phoenix")["data"]["key"]
    return Secret(key), [entry["id"] for entry in there if entry["name"] == name]


def phoenix_revoke(phoenix: Door, secret: Secret, ids: list[str]) -> None:
    """Take API keys back; those that are gone already are no error.

    Raises CommandError when Phoenix refuses.
    """
    for key_id in ids:
        answer = phoenix.ask("DELETE", f"/v1/user/api_keys/{key_id}", bearer=secret.reveal())
        expect(answer, 204, 404, task="revoking an API key", where="phoenix")


def phoenix_keep_password(session: Door, password: Secret) -> None:
    """Have who is logged in at `session` keep the password that was given: it need not be changed at the next login.

    Raises CommandError when Phoenix refuses.
    """
    given = {"newPassword": password.reveal(), "currentPassword": password.reveal()}
    _graphql(session, _PATCH_SELF, given, bearer="", task="keeping the password")
