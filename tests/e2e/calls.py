"""Calls at both doors by people who may not make them; runs beside the closed host, in its network.

A JSON document on standard input says who there is and what to call; the answer is a list of what came back.
`watch` calls three ways in, over and over, until each has been refused.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
from typing import Any

import httpx

NAME = "closed.internal"
PORTS = {"mlflow": 8444, "phoenix": 8445}


class Doors:
    """Both doors by their name, without a DNS."""

    def __init__(self, ca: str) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        context = ssl.create_default_context(cafile=ca)
        self.client = httpx.Client(verify=context, trust_env=False, timeout=30, limits=limits)

    def ask(self, door: str, method: str, path: str, **given: Any) -> httpx.Response:
        """One request."""
        headers = {"Host": f"{NAME}:{PORTS[door]}", **given.pop("headers", {})}
        url = f"https://127.0.0.1:{PORTS[door]}{path}"
        extensions = {"sni_hostname": NAME}
        self.client.cookies.clear()
        return self.client.request(method, url, headers=headers, extensions=extensions, **given)


def credentials(who: dict[str, str], door: str, kind: str) -> dict[str, Any]:
    """How a person comes in: basic, key or cookie; nobody brings nothing."""
    if kind == "cookie":
        return {"headers": {"Cookie": f"phoenix-access-token={who['cookie']}"}}
    if kind == "refresh":
        return {"headers": {"Cookie": f"phoenix-refresh-token={who['refresh']}"}}
    if not who or kind == "none":
        return {}
    if door == "mlflow":
        return {"auth": (who["name"], who["password"])}
    return {"headers": {"Authorization": f"Bearer {who['key']}"}}


def log_in(doors: Doors, who: dict[str, str]) -> dict[str, str]:
    """A session of Phoenix: its two cookies."""
    body = {"email": who["email"], "password": who["password"]}
    answer = doors.ask("phoenix", "POST", "/auth/login", json=body)
    found = {cookie.name: str(cookie.value) for cookie in answer.cookies.jar}
    return {
        "cookie": found.get("phoenix-access-token", ""),
        "refresh": found.get("phoenix-refresh-token", ""),
        "status": str(answer.status_code),
    }


def refused(answer: httpx.Response) -> bool:
    """Whether it is a refusal: by status, or in GraphQL by an error and no data."""
    if answer.status_code in (401, 403):
        return True
    if answer.request.url.path == "/graphql" and answer.status_code == 200:
        return bool(answer.json().get("errors")) and not any((answer.json()["data"] or {}).values())
    return False


def call(doors: Doors, people: dict[str, dict[str, str]], one: dict[str, Any]) -> dict[str, Any]:
    """Make one call."""
    given = credentials(people.get(one["who"], {}), one["door"], one.get("kind", ""))
    headers = {**given.pop("headers", {}), **one.get("headers", {})}
    if "json" in one:
        given["json"] = one["json"]
    if "text" in one:
        given["content"] = one["text"].encode()
    answer = doors.ask(one["door"], one["method"], one["path"], headers=headers, **given)
    return {
        **{key: one[key] for key in ("who", "door", "method", "path")},
        "status": answer.status_code,
        "refused": refused(answer),
        "text": answer.text[:4000],
    }


WAYS = (
    {"door": "mlflow", "path": "/api/2.0/mlflow/users/current"},
    {"door": "phoenix", "path": "/v1/user", "kind": "key"},
    {"door": "phoenix", "path": "/v1/user", "kind": "cookie"},
)


def watch(doors: Doors, people: dict[str, dict[str, str]], name: str) -> list[dict[str, Any]]:
    """Each way in with the time of each answer, until the last ten answers of all were refusals."""
    rows: list[dict[str, Any]] = []
    stop = time.time() + 120
    while time.time() < stop and not (len(rows) > 30 and all(r["refused"] for r in rows[-30:])):
        for way in WAYS:
            sent = time.time()
            row = call(doors, people, {"who": name, "method": "GET", **way})
            rows.append({"way": way.get("kind", "basic"), "sent": sent, "refused": row["refused"]})
        time.sleep(0.02)
    return rows


def main() -> None:
    """Do what standard input says."""
    asked = json.load(sys.stdin)
    doors, people = Doors(asked["ca"]), asked["people"]
    if asked["do"] == "log in":
        answer: Any = {name: log_in(doors, who) for name, who in people.items()}
    elif asked["do"] == "watch":
        answer = watch(doors, people, asked["name"])
    else:
        answer = [call(doors, people, one) for one in asked["calls"]]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
