"""Clients of the stack at 20 requests a second each, in the ops container; standard input says what they need.

They end when /outside/stop-loops is there, and print what they met: answers, failures, and the longest time
without an answer. Runs by itself: it imports nothing of ours.
"""

import json
import pathlib
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import urllib3
from minio import Minio
from minio.credentials import StaticProvider

STOP = pathlib.Path("/outside/stop-loops")
INSIDE = "/pki/root.crt"  # the installation's own file: what runs inside follows it
REQUEST: dict[str, Any] = json.load(sys.stdin)
FOUND: dict[str, dict[str, Any]] = {}


def gateway(kept: bool) -> Callable[[], None]:
    """The portal, by a client that trusts what clients were given before; `kept`: one connection for all."""
    context = ssl.create_default_context(cadata=REQUEST["ca"]["doors"])
    limits = httpx.Limits(max_keepalive_connections=1 if kept else 0)
    client = httpx.Client(verify=context, limits=limits, timeout=10, trust_env=False)

    def ask() -> None:
        answer = client.get(
            "https://127.0.0.1:8443/",
            headers={"Host": "closed.internal:8443"},
            extensions={"sni_hostname": "closed.internal"},
        )
        assert answer.status_code == 200, answer.status_code

    return ask


def tracker(port: int, path: str) -> Callable[[], None]:
    """A tracker through its door, each time by a new connection."""
    context = ssl.create_default_context(cadata=REQUEST["ca"]["doors"])
    limits = httpx.Limits(max_keepalive_connections=0)
    client = httpx.Client(verify=context, limits=limits, timeout=10, trust_env=False)

    def ask() -> None:
        answer = client.get(
            f"https://127.0.0.1:{port}{path}",
            headers={"Host": f"closed.internal:{port}"},
            extensions={"sni_hostname": "closed.internal"},
        )
        assert answer.status_code == 200, answer.status_code

    return ask


def mlflow(_: bool) -> Callable[[], None]:
    """MLflow, which cannot reload."""
    return tracker(8444, "/health")


def phoenix(_: bool) -> Callable[[], None]:
    """Phoenix, which cannot reload."""
    return tracker(8445, "/readyz")


def postgres(kept: bool) -> Callable[[], None]:
    """One statement by the health role over verify-full."""
    options: dict[str, Any] = {
        "host": "postgres.svc.closed.internal",
        "user": "health",
        "password": REQUEST["password"],
        "dbname": "postgres",
        "sslmode": "verify-full",
        "sslrootcert": INSIDE,
        "connect_timeout": 5,
    }
    held = [psycopg.connect(**options, autocommit=True)] if kept else []

    def ask() -> None:
        if held:
            held[0].execute("select 1").fetchone()
            return
        with psycopg.connect(**options) as connection:
            connection.execute("select 1").fetchone()

    return ask


def minio(_: bool) -> Callable[[], None]:
    """A look at a bucket, each time by a new connection."""

    def ask() -> None:
        pool = urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED", ca_certs=INSIDE, timeout=10, retries=False
        )
        provider = StaticProvider(REQUEST["key"], REQUEST["secret"])
        client = Minio("minio.svc.closed.internal:9000", credentials=provider, http_client=pool)
        assert client.bucket_exists("backups")

    return ask


def loop(name: str) -> None:
    """Ask 20 times a second until the end."""
    kind, _, how = name.partition("-")
    servers = {"gateway": gateway, "postgres": postgres, "minio": minio}
    ask = (servers | {"mlflow": mlflow, "phoenix": phoenix})[kind](how == "kept")
    errors: list[str] = []
    done, longest = 0, 0.0
    following = answered = time.monotonic()
    while not STOP.exists():
        try:
            ask()
            done += 1
            longest, answered = max(longest, time.monotonic() - answered), time.monotonic()
        except Exception as error:  # noqa: BLE001  (each is counted)
            errors.append(f"{type(error).__name__}: {error}"[:200])
        following += 0.05
        time.sleep(max(0, following - time.monotonic()))
    found = {"done": done, "failed": len(errors), "errors": errors[:3]}
    FOUND[name] = {**found, "longest": round(longest, 1)}


threads = [threading.Thread(target=loop, args=(name,)) for name in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.stdout.write(json.dumps(FOUND))
