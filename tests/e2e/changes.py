"""Requests that change something, sent from the closed host's network; standard input says as whom.

The statuses of the answers go out. Runs by itself: it imports nothing of ours.
"""

import json
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

NAME = "closed.internal"
REQUEST: dict[str, Any] = json.load(sys.stdin)
TRUST = ssl.create_default_context(cafile=REQUEST["ca"])


class Door:
    """One door, with a session of its own."""

    def __init__(self, port: int) -> None:
        """`port` is where it listens."""
        self.base, self.port = f"https://127.0.0.1:{port}", port
        limits = httpx.Limits(max_keepalive_connections=0)  # threads share it
        self.client = httpx.Client(verify=TRUST, trust_env=False, timeout=60, limits=limits)

    def ask(self, method: str, path: str, **content: Any) -> int:
        """Send one request; its status."""
        headers = {"Host": f"{NAME}:{self.port}", **content.pop("headers", {})}
        extensions = {"sni_hostname": NAME}
        return self.client.request(
            method, self.base + path, headers=headers, extensions=extensions, **content
        ).status_code


def bearer() -> dict[str, str]:
    """The header of the API key."""
    return {"Authorization": f"Bearer {REQUEST['key']}"}


def as_everybody() -> dict[str, int]:
    """One change by each way to be somebody, and by nobody."""
    mlflow, nobody = Door(8444), Door(8445)
    name, password = REQUEST["name"], REQUEST["password"]
    create, body = "/api/2.0/mlflow/experiments/create", {"name": REQUEST["mark"]}
    search, graphql = "/api/2.0/mlflow/experiments/search", "/graphql"
    change = "mutation ($input: CreateDatasetInput!) {\n  createDataset(input: $input) { dataset { id } }\n}"
    mutation = {"query": change, "variables": {"input": {"name": REQUEST["mark"]}}}
    session = Door(8445)
    return {
        "basic": mlflow.ask("POST", create, auth=(name, password), json=body),
        "wrong": mlflow.ask(
            "POST", create + "?token=s3cret-of-a-query", auth=(name, "no"), json=body
        ),
        "anonymous": mlflow.ask("POST", create, json=body),
        "search": mlflow.ask("POST", search, auth=(name, password), json={"max_results": 1}),
        "key": nobody.ask("POST", "/v1/projects", headers=bearer(), json={"name": REQUEST["mark"]}),
        "nobody": nobody.ask("POST", graphql, json=mutation),
        "login": session.ask(
            "POST", "/auth/login", json={"email": f"{name}@{NAME}", "password": password}
        ),
        "cookie": session.ask("POST", graphql, json=mutation),
        "question": session.ask("POST", graphql, json={"query": "query { viewer { username } }"}),
    }


def many() -> dict[str, list[int]]:
    """So many, fifty at once, each to a path of its own: the numbers by status, `lost` where no answer came."""
    door, mark = Door(8445), REQUEST["mark"]

    def one(number: int) -> str:
        try:
            return str(door.ask("POST", f"/v1/{mark}-{number}", headers=bearer(), json={}))
        except httpx.HTTPError:
            return "lost"

    with ThreadPoolExecutor(max_workers=50) as pool:
        statuses = list(pool.map(one, range(REQUEST["count"])))
    return {
        status: [number for number, found in enumerate(statuses) if found == status]
        for status in set(statuses)
    }


json.dump(many() if REQUEST.get("count") else as_everybody(), sys.stdout)
