"""Both trackers in memory, as far as people are concerned; answers as the real ones were seen to give them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

STACK_PASSWORD, ADMIN_PASSWORD, ADMIN_SECRET = "St4ck_password", "Adm1n_password", "Adm1n_secret"
STACK = "tracking-bundle"


@dataclass
class Trackers:
    """Accounts by name; `refuse` holds paths that fail with 500."""

    mlflow_port: int
    passwords: dict[str, str] = field(default_factory=lambda: {STACK: STACK_PASSWORD})
    admins: set[str] = field(default_factory=lambda: {STACK})
    teams: set[str] = field(default_factory=set)
    assigned: dict[str, str] = field(default_factory=dict)
    roles: dict[str, set[str]] = field(default_factory=dict)
    experiments: set[str] = field(default_factory=set)
    people: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    logins: list[str] = field(default_factory=list)
    session: str = ""
    refuse: set[str] = field(default_factory=set)
    open_door: bool = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the tracker behind the asked port says."""
        path, body = request.url.path, json.loads(request.content or b"{}")
        if path in self.refuse:
            return httpx.Response(500, text="planted")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if request.url.port == self.mlflow_port:
            user, _, password = base64.b64decode(given).decode().partition(":")
            known = scheme == "Basic" and self.passwords.get(user) == password
            body |= {**dict(request.url.params), "own": user == body.get("username")}
            return self.mlflow(path, body) if known or self.open_door else httpx.Response(401)
        return self.phoenix(path, body, given)

    def mlflow(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """MLflow's accounts and roles."""
        tail = path.removeprefix("/api/2.0/mlflow/").removeprefix("/api/3.0/mlflow/")
        ids = {name: index for index, name in enumerate(self.roles, 1)}
        name = body.get("username", "")
        match tail:
            case "users/list":
                return httpx.Response(200, json={"users": [self.listed(n) for n in self.passwords]})
            case "users/update-password" if body["own"] and "current_password" not in body:
                return httpx.Response(400, json={"error_code": "INVALID_PARAMETER_VALUE"})
            case "users/create" | "users/update-password":
                self.passwords[name] = body["password"]
            case "users/update-admin":
                (self.admins.add if body["is_admin"] else self.admins.discard)(name)
            case "users/delete":
                del self.passwords[name]
            case "roles/list":
                found = [
                    {**role_of(r, i), "permissions": [{"resource_type": t} for t in self.roles[r]]}
                    for r, i in ids.items()
                    if role_of(r, i)["workspace"] == body["workspace"]
                ]
                return httpx.Response(200, json={"roles": found})
            case "roles/create":
                self.roles[f"{body['workspace']}/{body['name']}".removeprefix("default/")] = set()
                return httpx.Response(200, json={"role": {"id": len(self.roles)}})
            case "roles/permissions/add":
                role = list(self.roles)[int(body["role_id"]) - 1]
                self.roles[role].add(body["resource_type"])
            case "roles/assign":
                self.assigned[name] = list(self.roles)[int(body["role_id"]) - 1]
            case "roles/unassign":
                if self.assigned[name] == list(self.roles)[int(body["role_id"]) - 1]:
                    del self.assigned[name]
            case "workspaces" if body["name"] in self.teams:
                return httpx.Response(400, json={"error_code": "RESOURCE_ALREADY_EXISTS"})
            case "workspaces":
                self.teams.add(body["name"])
            case "experiments/create" if body["name"] in self.experiments:
                return httpx.Response(400, json={"error_code": "RESOURCE_ALREADY_EXISTS"})
            case "experiments/create":
                self.experiments.add(body["name"])
        return httpx.Response(200, json={})

    def listed(self, name: str) -> dict[str, Any]:
        """One account as MLflow lists it."""
        roles = []
        if held := self.assigned.get(name):
            roles = [role_of(held, list(self.roles).index(held) + 1)]
        return {"username": name, "is_admin": name in self.admins, "roles": roles}

    def phoenix(self, path: str, body: dict[str, Any], given: str) -> httpx.Response:
        """Phoenix' accounts, sessions and keys."""
        if path == "/auth/login":
            who = next((n for n, p in self.people.items() if p["email"] == body["email"]), "")
            if not who or self.people[who]["password"] != body["password"]:
                return httpx.Response(401)
            self.session = who
            self.logins.append(who)
            return httpx.Response(204)
        owner = self.keys[given][0] if given in self.keys else self.session
        if path == "/v1/user":
            return httpx.Response(200 if given in self.keys else 401, json={})
        if path == "/v1/user/api_keys" and body:
            key = f"key-{len(self.keys)}-{owner}"
            self.keys[key] = owner, body["data"]["name"]
            return httpx.Response(201, json={"data": {"key": key, "id": key}})
        if path == "/v1/user/api_keys":
            found = [{"id": k, "name": n} for k, (o, n) in self.keys.items() if o == owner]
            return httpx.Response(200, json={"data": found})
        if path == "/graphql" and not given:
            return httpx.Response(200, json={"data": {}})
        if given != ADMIN_SECRET:
            return httpx.Response(200 if self.open_door else 401)
        if path.startswith("/v1/user/api_keys/"):
            self.keys.pop(path.rsplit("/", 1)[1], None)
            return httpx.Response(204)
        if path == "/v1/users":
            listed = [
                {"id": n, "username": n, "email": p["email"], "role": p["role"]}
                for n, p in self.people.items()
            ]
            return httpx.Response(200, json={"data": listed, "next_cursor": None})
        if "userApiKeys" in body["query"]:
            keys = [
                {"id": k, "name": n, "user": {"username": o}} for k, (o, n) in self.keys.items()
            ]
            return httpx.Response(200, json={"data": {"userApiKeys": keys}})
        return self.change(body["query"], body["variables"]["input"])

    def change(self, query: str, given: dict[str, Any]) -> httpx.Response:
        """A mutation of Phoenix by its administrator."""
        if "createUser" in query:
            name = given["username"]
            self.people[name] = {k: given[k] for k in ("email", "password", "role")}
        elif "patchUser" in query:
            person = self.people[given["userId"]]
            person["password"] = given.get("newPassword", person["password"])
            person["role"] = given.get("newRole", person["role"])
        elif "deleteUsers" in query:
            for name in given["userIds"]:
                del self.people[name]
        return httpx.Response(200, json={"data": {}})


def role_of(key: str, number: int) -> dict[str, Any]:
    """A role as MLflow lists it; `key` is its name, with the workspace before it where that is a team's."""
    workspace, _, name = key.rpartition("/")
    return {"name": name, "id": number, "workspace": workspace or "default"}
