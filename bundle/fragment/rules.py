"""Which keys a fragment may not have, and why: each with its reason and what to do, in both languages."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

Two = tuple[str, str]
Reason = tuple[Two, Two]
"""What is wrong and what to do, each in English and Korean."""

RESERVED = ("gateway", "mlflow", "phoenix", "postgres", "minio", "ops", "portal", "root")
OMIT: Two = ("Leave it out.", "빼십시오.")
RIGHTS: Two = (
    "gives the container rights on the host; services have none",
    "컨테이너에 호스트 권한을 줍니다. 서비스에는 권한이 없습니다",
)
NETWORK: Two = (
    "the service is on the internal network `extras` only, as NAME.svc.<domain>",
    "서비스는 내부 네트워크 extras에만 NAME.svc.<도메인>으로 연결됩니다",
)
SHARED: Two = (
    "shares the host's or another container's name spaces",
    "호스트나 다른 컨테이너의 네임스페이스를 공유합니다",
)
FILES: Two = (
    "reads a file of the host that is not in the bundle",
    "번들에 없는 호스트 파일을 읽습니다",
)
CARRY: Two = (
    "Carry it: [extras] files, then volumes: [./files/NAME:/path:ro].",
    "[extras] files로 싣고 volumes: [./files/이름:/경로:ro]로 마운트하십시오.",
)
CLIENT: Two = (
    "Credentials for the trackers come by x-tracking: {client: true}.",
    "추적기 자격 증명은 x-tracking: {client: true}로 받습니다.",
)
LIMITS: Two = ("Use mem_limit, pids_limit and cpus.", "mem_limit, pids_limit, cpus를 쓰십시오.")
OURS: Two = ("is set for every service", "모든 서비스에 정해져 있습니다")

REFUSED: dict[str, Reason] = {
    "build": (
        ("nothing is built on the closed side", "폐쇄망 쪽에서는 빌드하지 않습니다"),
        (
            "Build it before, and name the image in [extras] images.",
            "먼저 빌드하고 [extras] images에 쓰십시오.",
        ),
    ),
    "ports": (
        ("only the gateway is published", "게이트웨이만 공개됩니다"),
        (
            "Leave it out; other services reach it as NAME.svc.<domain>.",
            "빼십시오. 다른 서비스는 NAME.svc.<도메인>으로 접근합니다.",
        ),
    ),
    "expose": (NETWORK, OMIT),
    "networks": (NETWORK, OMIT),
    "network_mode": (NETWORK, OMIT),
    "links": (NETWORK, OMIT),
    "external_links": (NETWORK, OMIT),
    "extra_hosts": (NETWORK, OMIT),
    "dns": (NETWORK, OMIT),
    "hostname": (NETWORK, OMIT),
    "mac_address": (NETWORK, OMIT),
    "pid": (SHARED, OMIT),
    "ipc": (SHARED, OMIT),
    "uts": (SHARED, OMIT),
    "userns_mode": (SHARED, OMIT),
    "cgroup": (SHARED, OMIT),
    "cgroup_parent": (SHARED, OMIT),
    "volumes_from": (SHARED, OMIT),
    "cap_add": (RIGHTS, OMIT),
    "devices": (RIGHTS, OMIT),
    "device_cgroup_rules": (RIGHTS, OMIT),
    "gpus": (RIGHTS, OMIT),
    "group_add": (RIGHTS, OMIT),
    "sysctls": (RIGHTS, OMIT),
    "runtime": (RIGHTS, OMIT),
    "oom_kill_disable": (RIGHTS, OMIT),
    "use_api_socket": (RIGHTS, OMIT),
    "env_file": (FILES, CARRY),
    "configs": (FILES, CARRY),
    "extends": (FILES, ("Write the service in full.", "서비스를 모두 적으십시오.")),
    "label_file": (FILES, OMIT),
    "secrets": (FILES, CLIENT),
    "deploy": (("is for a cluster", "클러스터용입니다"), LIMITS),
    "memswap_limit": (OURS, LIMITS),
    "logging": (OURS, OMIT),
    "labels": (OURS, OMIT),
    "container_name": (OURS, OMIT),
    "profiles": (("every service of the file is started", "파일의 모든 서비스가 시작됩니다"), OMIT),
    "scale": (("one container a service", "서비스마다 컨테이너는 하나입니다"), OMIT),
    "develop": (
        ("nothing is watched on the closed side", "폐쇄망 쪽에서는 감시하지 않습니다"),
        OMIT,
    ),
    "platform": (("the bundle has one architecture", "번들의 아키텍처는 하나입니다"), OMIT),
}
"""Keys that break a rule whatever their value."""

FIXED: dict[str, tuple[tuple[Any, ...], Two]] = {
    "pull_policy": (
        ("never",),
        ("nothing is pulled on the closed side", "폐쇄망 쪽에서는 이미지를 받지 않습니다"),
    ),
    "privileged": ((False,), RIGHTS),
    "cap_drop": (
        (["ALL"],),
        (
            "every service runs without capabilities",
            "모든 서비스는 권한(capability) 없이 실행됩니다",
        ),
    ),
    "security_opt": ((["no-new-privileges:true"], ["no-new-privileges"]), RIGHTS),
    "read_only": ((True, False), ("is not true or false", "true나 false가 아닙니다")),
    "init": ((True,), OURS),
    "tty": ((False,), OURS),
    "stdin_open": ((False,), OURS),
}
"""Keys that may stand there with the value that they have anyway."""

OF_FILE: dict[str, Reason] = {
    "networks": (NETWORK, OMIT),
    "secrets": (FILES, CLIENT),
    "configs": (FILES, CARRY),
    "include": (FILES, ("Write everything in this one file.", "이 파일 하나에 모두 쓰십시오.")),
    "name": (("the project is ours", "프로젝트 이름은 이 제품의 것입니다"), OMIT),
}
"""Keys of the whole file."""


def near(key: str, known: Collection[str]) -> Reason:
    """For a key that nobody knows: the one that was meant, or all."""
    names = ", ".join(sorted(known))
    reason = ("is not a key that is known here", "여기서 쓰는 키가 아닙니다")
    meant = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    if meant:
        return reason, (f"Did you mean {meant[0]}?", f"{meant[0]}을(를) 뜻했습니까?")
    return reason, (f"Known: {names}.", f"쓸 수 있는 키: {names}.")
