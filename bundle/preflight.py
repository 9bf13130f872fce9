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

from bundle import theirs
from bundle.engine import MINIMUM_SERVER
from bundle.errors import BundleError, Problem
from bundle.host import Host
from bundle.model import EngineFacts
from bundle.plan import Plan
from bundle.words import say

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
    """What preflight must know of the bundle: its architecture, its age, the bytes of images and files not yet here."""

    arch: str
    created: int
    image_bytes: int
    file_bytes: int = 0


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
        say(
            f"uid {uid} cannot own files for the services",
            f"uid {uid}는 서비스에 파일을 줄 수 없습니다",
        ),
        say("Run as root (sudo).", "root 권한(sudo)으로 실행하십시오."),
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
        say(f"{folder} cannot be written", f"{folder}에 쓸 수 없습니다"),
        say("Choose another --root, or change its rights.", "--root를 바꾸거나 권한을 고치십시오."),
    )


def check_server(facts: EngineFacts) -> Row:
    """The engine itself, not its client, is new enough."""
    need = ".".join(map(str, MINIMUM_SERVER))
    found = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:2])
    hint = say(
        f"Install Docker Engine {need} or newer.", f"Docker Engine {need} 이상을 설치하십시오."
    )
    return _row(
        "engine",
        facts.version,
        found >= MINIMUM_SERVER,
        say(
            f"{facts.version} is older than {need}", f"{facts.version}은 {need}보다 오래되었습니다"
        ),
        hint,
    )


def check_compose(facts: EngineFacts) -> Row:
    """The compose plugin is there and new enough."""
    need = ".".join(map(str, MINIMUM_COMPOSE))
    found = tuple(int(part) for part in re.findall(r"\d+", facts.compose)[:2])
    message = say(
        f"{facts.compose or 'no compose plugin'} found, {need} or newer needed",
        f"compose {facts.compose or '플러그인 없음'}, {need} 이상 필요",
    )
    return _row(
        "compose",
        facts.compose,
        found >= MINIMUM_COMPOSE,
        message,
        say("Install docker-compose-plugin.", "docker-compose-plugin을 설치하십시오."),
    )


def check_arch(facts: EngineFacts, release: Release) -> Row:
    """The images are for this machine."""
    message = say(
        f"this engine runs {facts.arch}, the bundle is for {release.arch}",
        f"이 엔진은 {facts.arch}, 번들은 {release.arch}용입니다",
    )
    hint = say(
        f"Make the bundle on a {facts.arch} host.", f"{facts.arch} 호스트에서 번들을 만드십시오."
    )
    return _row("architecture", facts.arch, facts.arch == release.arch, message, hint)


def check_memory(facts: EngineFacts, plan: Plan) -> Row:
    """The limits of all services fit into the memory."""
    need = sum(service.memory_mb for service in plan.services)
    need += sum(extra.memory_mb for extra in plan.extras)
    have = facts.memory // (1 << 20)
    message = say(
        f"{have:,} MiB, but the limits of the services add up to {need:,} MiB",
        f"{have:,} MiB인데 서비스 한도의 합은 {need:,} MiB입니다",
    )
    hint = say(
        "Give the host more memory, or lower memory.* in site.toml (mem_limit in the site's compose file).",
        "메모리를 늘리거나 site.toml의 memory.*(사이트 compose 파일의 mem_limit)를 낮추십시오.",
    )
    return _row("memory", f"{have:,} MiB of {need:,}", have >= need, message, hint)


def _mount_of(path: Path) -> tuple[Path, int]:
    while not path.exists():
        path = path.parent
    return path, path.stat().st_dev


def check_space(host: Host, facts: EngineFacts, release: Release) -> list[Row]:
    """Each file system has room for what goes there: images and data to the engine's, the rest to the root's."""
    installed = host.compose_file.exists()
    needs: dict[int, tuple[Path, int]] = {}
    wanted = (
        (Path(facts.folder), release.image_bytes + (0 if installed else DATA_NEEDS)),
        (host.root, release.file_bytes + (0 if installed else ROOT_NEEDS)),
    )
    for path, size in wanted:
        existing, device = _mount_of(path)
        needs[device] = (existing, needs.get(device, (existing, 0))[1] + size)
    rows = []
    for path, size in needs.values():
        free = shutil.disk_usage(path).free
        found = f"{free / GIB:.1f} GiB free of {size / GIB:.1f} needed"
        message = say(
            f"{found}, on the file system of {path}",
            f"{path} 파일 시스템: 여유 {free / GIB:.1f} GiB, 필요 {size / GIB:.1f} GiB",
        )
        lacking = f"{(size - free) / GIB:.1f} GiB"
        hint = say(f"Free {lacking} there.", f"{lacking}를 비우십시오.")
        rows.append(_row("space", found, free >= size, message, hint))
    return rows


def check_ports(plan: Plan, facts: EngineFacts) -> list[Row]:
    """Each published port is free, or ours already."""
    rows = []
    for service in plan.services:
        for outside, _ in service.published:
            name = f"port {outside}"
            if (plan.project, plan.site.bind, outside) in facts.ports:
                rows.append(Row(name=name, found="ours"))
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((plan.site.bind, outside))
                    rows.append(Row(name=name, found="free"))
                except OSError as error:
                    place = f"{plan.site.bind}:{outside}"
                    message = say(
                        f"{place} cannot be listened on ({error.strerror})",
                        f"{place}을(를) 열 수 없습니다 ({error.strerror})",
                    )
                    hint = say(
                        "End what uses it, or set another port or bind in site.toml.",
                        "사용 중인 프로그램을 끝내거나 site.toml의 포트나 bind를 바꾸십시오.",
                    )
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
        say(
            f"{found} is before the bundle was made ({made:%Y-%m-%d})",
            f"{found}은 번들을 만든 날({made:%Y-%m-%d})보다 이릅니다",
        ),
        say("Set the clock.", "시계를 맞추십시오."),
    )


def check_kernel(facts: EngineFacts) -> list[Row]:
    """The kernel can limit memory and processes, and forwards what comes to a published port."""
    wanted = {
        "memory limits": facts.memory_limit,
        "process limits": facts.pids_limit,
        "ip_forward": facts.forwarding,
    }
    hints = {
        "memory limits": say(
            "Enable the memory control group (kernel parameter cgroup_enable=memory).",
            "메모리 제어 그룹을 켜십시오 (커널 인자 cgroup_enable=memory).",
        ),
        "process limits": say("Enable the pids control group.", "pids 제어 그룹을 켜십시오."),
        "ip_forward": say(
            "Set net.ipv4.ip_forward = 1 (sysctl).", "net.ipv4.ip_forward = 1로 두십시오 (sysctl)."
        ),
    }
    return [
        _row(name, "on" if ok else "off", ok, say("is off", "꺼져 있습니다"), hints[name])
        for name, ok in wanted.items()
    ]


def check_strangers(plan: Plan, facts: EngineFacts) -> list[Row]:
    """No other project and no other installation has our names."""
    rows = []
    if facts.strangers:
        names = ", ".join(facts.strangers)
        message = say(
            f"another project called {plan.project!r} has containers here: {names}",
            f"이름이 {plan.project!r}인 다른 프로젝트의 컨테이너가 있습니다: {names}",
        )
        rows.append(
            _row(
                "project",
                "taken",
                False,
                message,
                say(
                    "Remove or rename that project; it is not touched.",
                    "그 프로젝트를 지우거나 이름을 바꾸십시오. 건드리지 않습니다.",
                ),
            )
        )
    foreign = [
        name
        for name, site in facts.volumes.items()
        if name in plan.volumes.values() and (not site or site != plan.id)
    ]
    if foreign:
        names = " ".join(sorted(foreign))
        message = say(
            f"the volumes {names} belong to another or an earlier installation",
            f"볼륨 {names}은(는) 다른 설치 또는 이전 설치의 것입니다",
        )
        hint = say(
            "Their data opens only with the secrets they were made with: put that installation's secrets/ and"
            f" site-id back; or, to lose the data: docker volume rm {names}.",
            "데이터는 만들 때의 비밀로만 열립니다. 그 설치의 secrets/와 site-id를 되돌리거나,"
            f" 데이터를 버리려면: docker volume rm {names}",
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
        "s3": lambda: [
            _row("s3", line, not wrong, wrong, theirs.hint())
            for line, wrong in theirs.look(plan.site)
        ],
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
        say(
            "the engine restarts without ending containers (live-restore)",
            "엔진이 다시 시작해도 컨테이너는 계속됩니다 (live-restore)",
        )
        if facts.live_restore
        else say(
            "the engine has no live-restore: after its crash invoke start brings the stack back",
            "엔진에 live-restore가 없습니다. 엔진이 죽은 뒤에는 invoke start로 다시 올리십시오",
        )
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
