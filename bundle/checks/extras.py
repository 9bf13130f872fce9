"""What the site added: its files as they were sealed, its services inside the same walls as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundle import site, store
from bundle.checks.egress import OUTSIDE, OUTSIDE_NAMES
from bundle.checks.model import Check, Moot, Stage, settle
from bundle.checks.stage import inspected
from bundle.inside import ask
from bundle.manifest import EXTRA_IMAGE
from bundle.model import ExtraService
from bundle.plan import EXTRAS
from bundle.services.gateway import INSIDE
from bundle.services.names import public

KEY = "bundle.toml: extras"


def extra_files(stage: Stage) -> list[str]:
    """Each file and wheel of the site is there byte for byte, and nothing else is among them."""
    wanted = site.extra_files(stage.release.manifest)
    if not wanted:
        raise Moot(KEY)
    wrong = []
    for path, part in wanted.items():
        found = site.digest_of(stage.host.path(path))
        if found != part.sha256:
            wrong.append(f"{path}: {'changed' if found else 'missing'}")
    folders = {"/".join(path.split("/")[:3]) for path in wanted if path.startswith("extras/files/")}
    for folder in sorted(folders):
        inside = (p for p in stage.host.path(folder).rglob("*") if p.is_symlink() or not p.is_dir())
        names = {path.relative_to(stage.host.root).as_posix() for path in inside}
        wrong += [f"{name}: not of the bundle" for name in sorted(names - set(wanted))]
    size = sum(part.size for part in wanted.values())
    return settle(wrong, [f"{len(wanted)} files, {size / 1e6:,.1f} MB: each digest as sealed"])


def extra_services(stage: Stage) -> list[str]:
    """Each service of the site is well, has no rights, and is on its internal network only, which has no way out."""
    extras = stage.plan.extras
    if not extras:
        raise Moot(KEY)
    wrong: list[str] = []
    evidence: list[str] = []
    for extra in extras:
        attributes = inspected(stage).get(extra.slug)
        if attributes is None:
            wrong.append(f"{extra.slug}: no container")
            continue
        state = _state(extra, attributes["State"])
        found = [*state[1], *_walls(stage, extra, attributes)]
        wrong += [f"{extra.slug}: {line}" for line in found]
        evidence.append(f"{extra.slug}: {state[0]}, no rights, on the network {EXTRAS} only")
    name = f"{stage.plan.project}_{EXTRAS}"
    network = stage.notes.once("extras network", lambda: stage.host.engine.network(name))
    if network is None or not network.get("Internal"):
        wrong.append(f"the network {name} is not internal")
    ways = ways_out(stage)
    wrong += [
        f"{name} does not answer: the probe does not work" for name in _those(ways["inside"], False)
    ]
    wrong += [
        f"{name} is open from the network of the extras" for name in _those(ways["outside"], True)
    ]
    evidence.append(f"{len(ways['outside'])} ways out of their network tried, all blocked")
    return settle(wrong, evidence)


def ways_out(stage: Stage) -> dict[str, dict[str, bool]]:
    """What can be reached from the network of the site's services (see bundle.ops.outside)."""
    plan = stage.plan
    request = {
        "inside": [
            [public(plan.site, "mlflow"), INSIDE["portal"]],
            plan.service("gateway").names[0],
        ],
        "outside": [*map(list, OUTSIDE), *OUTSIDE_NAMES],
    }
    answer: dict[str, dict[str, bool]] = stage.notes.once(
        "ways out",
        lambda: ask(
            plan, stage.host, "outside", request, timeout=35, network=f"{plan.project}_{EXTRAS}"
        ),
    )
    return answer


def _those(found: Mapping[str, bool], verdict: bool) -> list[str]:
    return [name for name, works in found.items() if works is verdict]


def _state(extra: ExtraService, state: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How the service does, and what is wrong with that."""
    health = state.get("Health", {}).get("Status", "")
    told = f"{state['Status']}{', ' + health if health else ''}"
    ended = state["Status"] == "exited" and state.get("ExitCode") == 0
    well = state["Status"] == "running" and health == ("healthy" if extra.health else "")
    good = well or (ended and extra.restart != "unless-stopped")
    return told, [] if good else [f"{told} (exit code {state.get('ExitCode', 0)})"]


def _walls(stage: Stage, extra: ExtraService, attributes: Mapping[str, Any]) -> list[str]:
    """Where the container has more than the rules give it."""
    host = attributes["HostConfig"]
    wanted = {
        "Privileged": False,
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "ReadonlyRootfs": not extra.writable,
        "Memory": extra.memory_mb << 20,
        "PidsLimit": extra.pids,
        "Devices": None,
    }
    wrong = [
        f"{key} is {host.get(key)!r}, not {right!r}"
        for key, right in wanted.items()
        if (host.get(key) or None) != (right or None)
    ]
    if not any("no-new-privileges" in option for option in host.get("SecurityOpt") or ()):
        wrong.append("may gain privileges")
    modes = ("NetworkMode", "PidMode", "IpcMode", "UTSMode")
    shared = {mode: str(host.get(mode)) for mode in modes}
    wrong += [f"{m} is {v}" for m, v in shared.items() if v.split(":")[0] in ("host", "container")]
    if any((attributes["NetworkSettings"].get("Ports") or {}).values()):
        wrong.append("has a published port")
    networks = set(attributes["NetworkSettings"]["Networks"])
    if networks != {f"{stage.plan.project}_{EXTRAS}"}:
        wrong.append(f"is on {', '.join(sorted(networks)) or 'no network'}")
    own = [str(stage.host.path("extras")), str(stage.host.path("secrets", extra.slug))]
    for mount in attributes.get("Mounts") or ():
        inside = any(f"{mount['Source']}/".startswith(f"{place}/") for place in own)
        if mount["Type"] == "bind" and (mount["RW"] or not inside):
            wrong.append(f"has the host's {mount['Source']}{' writable' if mount['RW'] else ''}")
    return wrong


def extra_images(stage: Stage) -> tuple[list[str], list[str]]:
    """What is wrong with the site's images, and what was found: they run, or wait, as they were sealed."""
    sealed = {i.name: i for i in stage.release.manifest.images if i.name.startswith(EXTRA_IMAGE)}
    wrong: list[str] = []
    evidence: list[str] = []
    used = set()
    for extra in stage.plan.extras:
        attributes = inspected(stage).get(extra.slug)
        image = sealed.get(f"{EXTRA_IMAGE}{extra.image}")
        used.add(f"{EXTRA_IMAGE}{extra.image}")
        found = attributes["Image"] if attributes else "no container"
        if image is None or found not in (image.config, image.manifest):
            wrong.append(
                f"{extra.slug}: {found} is not {image.config if image else 'in the release'}"
            )
        evidence.append(f"{extra.slug}: {found[:19]}… as sealed")
    for name in sorted(set(sealed) - used):
        reference = stage.plan.extra_image(name.removeprefix(EXTRA_IMAGE))
        facts = store.inspect(stage.host.engine, reference)
        found = facts["Id"] if facts else "absent"
        if found not in (sealed[name].config, sealed[name].manifest):
            wrong.append(f"{reference}: {found} is not {sealed[name].config}")
        evidence.append(f"{reference}: {found[:19]}… as sealed")
    return wrong, evidence


_AGAIN = {
    "ko": "invoke install을 다시 실행하면 봉인된 대로 되돌립니다.",
    "en": "Run invoke install again: it puts back what was sealed.",
}

CHECKS = (
    Check(
        id="extra-files",
        group="services",
        title={
            "ko": "사이트가 추가한 파일과 휠이 봉인된 그대로임",
            "en": "The site's own files and wheels are as they were sealed",
        },
        hint=_AGAIN,
        probe=extra_files,
        timeout=90,
    ),
    Check(
        id="extra-services",
        group="services",
        title={
            "ko": "사이트가 추가한 서비스가 정상이고, 권한과 밖으로 나가는 길이 없음",
            "en": "The site's own services are well, without rights and without a way out",
        },
        hint={
            "ko": "invoke logs --service extra-이름의 내용을 보십시오. 손으로 바꾼 것은 invoke install이 되돌립니다.",
            "en": "Look at invoke logs --service extra-NAME; invoke install puts back what was changed by hand.",
        },
        probe=extra_services,
        timeout=60,
    ),
)
