"""What must be true before anything is changed; reads and asks only, and lists everything that is wrong at once."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.engine import MINIMUM_SERVER
from bundle.errors import BundleError, Problem
from bundle.host import Host
from bundle.model import EngineFacts
from bundle.plan import Plan

MINIMUM_COMPOSE = (2, 20)
GIB = 1 << 30
ROOT_NEEDS = GIB // 2
DATA_NEEDS = 2 * GIB
"""Room for the empty databases, their log and the first days of work."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One precondition: what is there, what is needed, and what is wrong (if anything is)."""

    name: str
    found: str
    problem: Problem | None = None


@dataclass(frozen=True, kw_only=True)
class Release:
    """What preflight must know of the bundle: its architecture, its age and the bytes of the images not yet here."""

    arch: str
    created: int
    image_bytes: int


def _row(name: str, found: str, ok: bool, message: str, hint: str) -> Row:
    return Row(
        name=name,
        found=found,
        problem=None if ok else Problem(where=name, message=message, hint=hint),
    )


def check_rights() -> Row:
    """Root owns the secrets' files; only root can give them to the services' users."""
    uid = os.geteuid()
    return _row(
        "user",
        f"uid {uid}",
        uid == 0,
        f"uid {uid} cannot own files for the services",
        "Run as root (sudo).",
    )


def check_root(host: Host) -> Row:
    """The installation's folder can be written."""
    folder = host.root
    while not folder.exists():
        folder = folder.parent
    ok = os.access(folder, os.W_OK | os.X_OK)
    return _row(
        "folder",
        str(host.root),
        ok,
        f"{folder} cannot be written",
        "Choose another --root, or change its rights.",
    )


def check_server(facts: EngineFacts) -> Row:
    """The engine itself, not its client, is new enough."""
    need = ".".join(map(str, MINIMUM_SERVER))
    found = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:2])
    hint = f"Install Docker Engine {need} or newer."
    return _row(
        "engine",
        facts.version,
        found >= MINIMUM_SERVER,
        f"{facts.version} is older than {need}",
        hint,
    )


def check_compose(facts: EngineFacts) -> Row:
    """The compose plugin is there and new enough."""
    need = ".".join(map(str, MINIMUM_COMPOSE))
    found = tuple(int(part) for part in re.findall(r"\d+", facts.compose)[:2])
    message = f"{facts.compose or 'no compose plugin'} found, {need} or newer needed"
    return _row(
        "compose",
        facts.compose,
        found >= MINIMUM_COMPOSE,
        message,
        "Install docker-compose-plugin.",
    )


def check_arch(facts: EngineFacts, release: Release) -> Row:
    """The images are for this machine."""
    message = f"this engine runs {facts.arch}, the bundle is for {release.arch}"
    hint = f"Make the bundle on a {facts.arch} host."
    return _row("architecture", facts.arch, facts.arch == release.arch, message, hint)


def check_memory(facts: EngineFacts, plan: Plan) -> Row:
    """The limits of all services fit into the memory."""
    need = sum(service.memory_mb for service in plan.services)
    have = facts.memory // (1 << 20)
    message = f"{have:,} MiB, but the limits of the services add up to {need:,} MiB"
    hint = "Give the host more memory, or lower memory.* in site.toml."
    return _row("memory", f"{have:,} MiB of {need:,}", have >= need, message, hint)


def _mount_of(path: Path) -> tuple[Path, int]:
    while not path.exists():
        path = path.parent
    return path, path.stat().st_dev


def check_space(host: Host, facts: EngineFacts, release: Release) -> list[Row]:
    """Each file system has room for what goes there: images and data to the engine's, the rest to the root's."""
    needs: dict[int, tuple[Path, int]] = {}
    wanted = ((Path(facts.folder), release.image_bytes + DATA_NEEDS), (host.root, ROOT_NEEDS))
    for path, size in wanted:
        existing, device = _mount_of(path)
        needs[device] = (existing, needs.get(device, (existing, 0))[1] + size)
    rows = []
    for path, size in needs.values():
        free = shutil.disk_usage(path).free
        found = f"{free / GIB:.1f} GiB free of {size / GIB:.1f} needed"
        message = f"{found}, on the file system of {path}"
        rows.append(
            _row(
                "space", found, free >= size, message, f"Free {(size - free) / GIB:.1f} GiB there."
            )
        )
    return rows


def check_ports(plan: Plan, facts: EngineFacts) -> list[Row]:
    """Each published port is free, or ours already."""
    rows = []
    for service in plan.services:
        for outside, _ in service.published:
            name = f"port {outside}"
            if (plan.project, outside) in facts.ports:
                rows.append(Row(name=name, found="ours"))
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((plan.site.bind, outside))
                    rows.append(Row(name=name, found="free"))
                except OSError as error:
                    message = f"{plan.site.bind}:{outside} cannot be listened on ({error.strerror})"
                    hint = "End what uses it, or set another port or bind in site.toml."
                    rows.append(_row(name, "taken", False, message, hint))
    return rows


def check_clock(release: Release) -> Row:
    """The clock is not before the bundle was made: certificates would not be valid."""
    now = datetime.datetime.now(datetime.timezone.utc)
    made = datetime.datetime.fromtimestamp(release.created, datetime.timezone.utc)
    ok = now > made - datetime.timedelta(days=1)
    found = now.isoformat(timespec="seconds")
    return _row(
        "clock",
        found,
        ok,
        f"{found} is before the bundle was made ({made:%Y-%m-%d})",
        "Set the clock.",
    )


def check_kernel(facts: EngineFacts) -> list[Row]:
    """The kernel can limit memory and processes, and forwards what comes to a published port."""
    wanted = {
        "memory limits": facts.memory_limit,
        "process limits": facts.pids_limit,
        "ip_forward": facts.forwarding,
    }
    hints = {
        "memory limits": "Enable the memory control group (kernel parameter cgroup_enable=memory).",
        "process limits": "Enable the pids control group.",
        "ip_forward": "Set net.ipv4.ip_forward = 1 (sysctl).",
    }
    return [
        _row(name, "on" if ok else "off", ok, "is off", hints[name]) for name, ok in wanted.items()
    ]


def check_strangers(plan: Plan, facts: EngineFacts) -> list[Row]:
    """No other project and no other installation has our names."""
    rows = []
    if facts.strangers:
        message = f"another project called {plan.project!r} has containers here: {', '.join(facts.strangers)}"
        rows.append(
            _row(
                "project",
                "taken",
                False,
                message,
                "Remove or rename that project; this one is not touched.",
            )
        )
    foreign = [
        name
        for name, site in facts.volumes.items()
        if name in plan.volumes.values() and site != plan.id
    ]
    if foreign:
        message = (
            f"the volumes {', '.join(sorted(foreign))} belong to another or an earlier installation"
        )
        hint = (
            "Their data opens only with the secrets they were made with: put that installation's secrets/ and"
            f" site-id back; or, to lose the data: docker volume rm {' '.join(sorted(foreign))}."
        )
        rows.append(_row("volumes", "foreign", False, message, hint))
    return rows or [Row(name="names", found="free or ours")]


def preflight(plan: Plan, host: Host, facts: EngineFacts, release: Release) -> list[Row]:
    """Every precondition of an installation; nothing is changed, and one that fails to answer hides no other."""
    probes: Mapping[str, Callable[[], Row | list[Row]]] = {
        "user": lambda: check_rights(),
        "folder": lambda: check_root(host),
        "engine": lambda: check_server(facts),
        "compose": lambda: check_compose(facts),
        "architecture": lambda: check_arch(facts, release),
        "memory": lambda: check_memory(facts, plan),
        "space": lambda: check_space(host, facts, release),
        "ports": lambda: check_ports(plan, facts),
        "clock": lambda: check_clock(release),
        "kernel": lambda: check_kernel(facts),
        "names": lambda: check_strangers(plan, facts),
    }
    rows: list[Row] = []
    for name, probe in probes.items():
        try:
            found = probe()
            rows += found if isinstance(found, list) else [found]
        except (OSError, BundleError) as error:
            rows.append(
                _row(
                    name, "unknown", False, f"cannot be checked: {error}", "Run again with --debug."
                )
            )
    return rows


def notes(facts: EngineFacts) -> list[str]:
    """What is not wrong but good to know on this host."""
    found = [
        "the engine restarts without ending containers (live-restore)"
        if facts.live_restore
        else "the engine has no live-restore: after its crash the boot unit brings the stack back (invoke schedule)"
    ]
    if "selinux" in facts.security:
        found.append(
            "SELinux is enforcing: the engine needs --selinux-enabled and container-selinux"
        )
    with contextlib.suppress(OSError):
        if Path("/run/firewalld").exists():
            found.append(
                "firewalld is active: colleagues need firewall-cmd --add-port=<port>/tcp --permanent"
            )
    return found
