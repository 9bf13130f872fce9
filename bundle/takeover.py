"""A second instance of a server that cannot reload: it serves while the first is made anew, so that nobody is refused.

The gateway looks a server's name up again every `KNOWN_AFTER_S` seconds and, of two addresses, tries the other when one
does not answer; the engine gives both out while both run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundle.host import Host
from bundle.inside import inspect
from bundle.model import Service
from bundle.plan import Plan
from bundle.run import log
from bundle.words import say

KNOWN_AFTER_S = 11.0  # templates/gateway: resolver … valid=10s
HEALTHY_WITHIN_S = 120.0
STAMP = "org.tracking-bundle.config"  # templates/compose.yaml
SPARE_MB = 512  # what the host keeps beside a second instance


def instance(plan: Plan, name: str) -> str:
    """The name of the second instance's container."""
    return f"{plan.project}-{name}-second"


def _containers(plan: Plan, host: Host, name: str) -> list[Any]:
    """The second instance of the service `name`, if there is one."""
    wanted: dict[str, str | list[str] | bool] = {"name": [f"^/{instance(plan, name)}$"]}
    return list(host.engine.api.containers.list(all=True, filters=wanted, ignore_removed=True))


def remove(plan: Plan, host: Host, name: str) -> None:
    """End the second instance of the service `name`, if there is one: it finishes what it was asked."""
    for container in _containers(plan, host, name):
        container.stop(timeout=30)
        container.remove(v=True, force=True)


def outdated(plan: Plan, host: Host, name: str) -> bool:
    """Whether the container of the service `name` runs with other certificates or secrets than lie on disk."""
    text = host.engine.compose(
        plan.project, host.compose_file, ["config", "--format", "json", name], timeout=60
    )
    wanted = json.loads(text)["services"][name]["labels"][STAMP]
    return bool(inspect(plan, host)[name]["Config"]["Labels"].get(STAMP) != wanted)


def _has_room(service: Service) -> bool:
    told = Path("/proc/meminfo").read_text("ascii").split("MemAvailable:")[1]
    return int(told.split()[0]) >> 10 > service.memory_mb + SPARE_MB


def _healthy(plan: Plan, host: Host, name: str) -> bool:
    """Wait for the second instance; False when it ended or did not become healthy in time."""
    end = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < end and (found := _containers(plan, host, name)):
        state = found[0].attrs["State"]
        if state.get("Health", {}).get("Status") == "healthy":
            return True
        if state["Status"] not in ("created", "running"):
            return False
        time.sleep(0.5)
    return False


@contextmanager
def second(plan: Plan, host: Host, service: Service) -> Iterator[bool]:
    """Have a second instance of `service` serve while the block runs; False where there is no room for one.

    One that a killed run left is taken away first. Raises CommandError when the engine refuses.
    """
    remove(plan, host, service.name)
    serves = _has_room(service)
    try:
        if serves:
            line = ["run", "--detach", "--no-deps", "--use-aliases"]
            line += ["--name", instance(plan, service.name), service.name]
            host.engine.compose(plan.project, host.compose_file, line, timeout=120)
            if serves := _healthy(plan, host, service.name):
                time.sleep(KNOWN_AFTER_S)
        if not serves:
            log.info(
                "  %s",
                say(
                    f"no room for a second {service.name}: it is away for about 20 s",
                    f"두 번째 {service.name}를 띄울 여유가 없어 약 20초 동안 응답하지 않습니다",
                ),
            )
        yield serves
        if serves:
            time.sleep(KNOWN_AFTER_S)
    finally:
        remove(plan, host, service.name)
