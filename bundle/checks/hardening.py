"""Hardening: the items of the CIS Docker Benchmark that apply to a container, asked of the engine, one by one.

docs/hardening.md has the whole list, with the exceptions and their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bundle.checks.model import Check, Stage, settle
from bundle.checks.stage import inspected
from bundle.model import Service

SOCKETS = ("docker.sock", "containerd.sock", "podman.sock")
HOST_FOLDERS = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")
NAMESPACES = {"5.10": "NetworkMode", "5.16": "PidMode", "5.17": "IpcMode", "5.21": "UTSMode"}
PIDS_AT_MOST = 1024

Attributes = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Item:
    """An item of the benchmark: `wrong` says what a container does against it; empty when it holds."""

    id: str
    title: str
    wrong: Callable[[Attributes], str]


def _config(key: str, *bad: object) -> Callable[[Attributes], str]:
    return lambda of: f"{key} is {of['Config'].get(key)!r}" if of["Config"].get(key) in bad else ""


def _unless(key: str, right: object) -> Callable[[Attributes], str]:
    return lambda of: (
        "" if of["HostConfig"].get(key) == right else f"{key} is {of['HostConfig'].get(key)!r}"
    )


def _empty(key: str) -> Callable[[Attributes], str]:
    return lambda of: f"{key} is {of['HostConfig'][key]}" if of["HostConfig"].get(key) else ""


def _own_namespace(key: str) -> Callable[[Attributes], str]:
    def wrong(of: Attributes) -> str:
        mode = str(of["HostConfig"].get(key) or "")
        return f"{key} is {mode}" if mode.split(":")[0] in ("host", "container") else ""

    return wrong


def _limit(key: str, most: int | None = None) -> Callable[[Attributes], str]:
    def wrong(of: Attributes) -> str:
        value = of["HostConfig"].get(key) or 0
        return "" if 0 < value <= (most or value) else f"{key} is {value}"

    return wrong


def _mounts(of: Attributes, bad: Callable[[Mapping[str, Any]], bool]) -> str:
    return ", ".join(str(mount["Source"]) for mount in of.get("Mounts") or () if bad(mount))


def _host_folder(mount: Mapping[str, Any]) -> bool:
    return mount["Type"] == "bind" and (mount["RW"] or mount["Source"] in HOST_FOLDERS)


def _shared(mount: Mapping[str, Any]) -> bool:
    return "shared" in str(mount.get("Propagation", ""))


def _socket(mount: Mapping[str, Any]) -> bool:
    return str(mount["Source"]).endswith(SOCKETS) or str(mount["Source"]) == "/run/containerd"


def _profile(kind: str) -> Callable[[Attributes], str]:
    def wrong(of: Attributes) -> str:
        options = of["HostConfig"].get("SecurityOpt") or ()
        loose = [o for o in options if o.startswith(kind) and o.endswith("unconfined")]
        return loose[0] if loose else ""

    return wrong


def _no_new_privileges(of: Attributes) -> str:
    options = of["HostConfig"].get("SecurityOpt") or ()
    set_so = any(option in ("no-new-privileges", "no-new-privileges:true") for option in options)
    return "" if set_so else "no-new-privileges is not set"


def _bridge(of: Attributes) -> str:
    return "is on docker0" if "bridge" in of["NetworkSettings"].get("Networks", {}) else ""


def _not_well(of: Attributes) -> str:
    health = of["State"].get("Health", {}).get("Status", "not probed")
    return "" if health == "healthy" else f"health: {health}"


def _latest(of: Attributes) -> str:
    image = str(of["Config"].get("Image", ""))
    tagged = ":" in image.rsplit("/", 1)[-1] and not image.endswith(":latest")
    return "" if tagged else f"runs {image or 'an image without a name'}"


def _log(of: Attributes) -> str:
    options = of["HostConfig"].get("LogConfig", {}).get("Config") or {}
    return "" if {"max-size", "max-file"} <= set(options) else "its log grows without a limit"


ITEMS = (
    Item(id="2.13", title="logs have a limit", wrong=_log),
    Item(
        id="4.1", title="runs as a user, not as root", wrong=_config("User", "", "0", "root", "0:0")
    ),
    Item(id="4.6", title="has a health check", wrong=_config("Healthcheck", None, {})),
    Item(id="5.2", title="AppArmor is not switched off", wrong=_profile("apparmor")),
    Item(id="5.4", title="drops every capability", wrong=_unless("CapDrop", ["ALL"])),
    Item(id="5.4", title="adds no capability", wrong=_empty("CapAdd")),
    Item(id="5.5", title="is not privileged", wrong=_unless("Privileged", False)),
    Item(
        id="5.6",
        title="has no folder of the host's own, and none to write to but what it declares",
        wrong=lambda of: _mounts(of, _host_folder),
    ),
    *(
        Item(id=id_, title=f"{key}: a namespace of its own", wrong=_own_namespace(key))
        for id_, key in NAMESPACES.items()
    ),
    Item(id="5.11", title="memory has a limit", wrong=_limit("Memory")),
    Item(id="5.13", title="its root is read-only", wrong=_unless("ReadonlyRootfs", True)),
    Item(id="5.18", title="has no device of the host", wrong=_empty("Devices")),
    Item(id="5.20", title="no mount is shared back", wrong=lambda of: _mounts(of, _shared)),
    Item(id="5.22", title="seccomp is not switched off", wrong=_profile("seccomp")),
    Item(id="5.25", title="has no cgroup parent of its own", wrong=_empty("CgroupParent")),
    Item(id="5.26", title="cannot gain privileges", wrong=_no_new_privileges),
    Item(id="5.27", title="is healthy", wrong=_not_well),
    Item(id="5.28", title="runs a release by its number", wrong=_latest),
    Item(id="5.29", title="processes have a limit", wrong=_limit("PidsLimit", PIDS_AT_MOST)),
    Item(id="5.30", title="is not on docker0", wrong=_bridge),
    Item(id="5.31", title="has no user namespace of the host", wrong=_own_namespace("UsernsMode")),
    Item(id="5.32", title="has no engine socket", wrong=lambda of: _mounts(of, _socket)),
)


def _undeclared(service: Service, of: Attributes) -> Attributes:
    """Without the folders that the service declares as its own to write in: notes that the host reads, a socket."""
    own = {folder.target for folder in service.folders}
    own |= {meeting.path for meeting in service.meetings if meeting.host}
    mounts = [mount for mount in of.get("Mounts") or () if mount.get("Destination") not in own]
    return {**of, "Mounts": mounts}


def svc_hardening(stage: Stage) -> list[str]:
    """Every container of the stack keeps every item."""
    seen = inspected(stage)
    containers = {
        service.name: _undeclared(service, seen[service.name]) if service.name in seen else None
        for service in stage.plan.services
    }
    wrong = [f"{name}: no container" for name, of in containers.items() if of is None]
    evidence: list[str] = []
    for item in ITEMS:
        found = {name: item.wrong(of) for name, of in containers.items() if of is not None}
        bad = [f"{item.id} {name}: {what}" for name, what in found.items() if what]
        wrong += bad
        if not bad:
            evidence.append(f"{item.id} {item.title}: {len(found)} containers")
    return settle(wrong, evidence)


CHECKS = (
    Check(
        id="svc-hardening",
        group="services",
        title={
            "ko": "컨테이너 강화: CIS Docker Benchmark 항목 (예외는 docs/hardening.md)",
            "en": "Containers are hardened: items of the CIS Docker Benchmark (exceptions: docs/hardening.md)",
        },
        hint={
            "ko": "손으로 바꾼 것은 invoke install이 되돌립니다.",
            "en": "invoke install puts back what was changed by hand.",
        },
        probe=svc_hardening,
    ),
)
