"""Every item of the benchmark goes red by a planted defect, and the document names the same items as the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bundle.checks import CHECKS
from bundle.checks.hardening import ITEMS
from bundle.checks.runner import probe
from tests.checks.stages import containers, make_stage, make_test_plan

DOCUMENT = Path(__file__).parents[2] / "docs" / "hardening.md"
CHECK = next(check for check in CHECKS if check.id == "svc-hardening")
SOCKET = {"Type": "bind", "Source": "/run/docker.sock", "RW": False}
ETC = {"Type": "bind", "Source": "/etc", "RW": False}
WRITABLE = {"Type": "bind", "Source": "/srv/data", "RW": True}
SHARED = {"Type": "bind", "Source": "/srv/data", "RW": False, "Propagation": "rshared"}

# item, where in what the engine says, the planted value
DEFECTS: tuple[tuple[str, tuple[str, ...], Any], ...] = (
    ("2.13", ("HostConfig", "LogConfig"), {"Type": "json-file", "Config": {}}),
    ("4.1", ("Config", "User"), ""),
    ("4.1", ("Config", "User"), "0:0"),
    ("4.6", ("Config", "Healthcheck"), None),
    ("5.2", ("HostConfig", "SecurityOpt"), ["apparmor:unconfined", "no-new-privileges:true"]),
    ("5.4", ("HostConfig", "CapDrop"), None),
    ("5.4", ("HostConfig", "CapAdd"), ["NET_ADMIN"]),
    ("5.5", ("HostConfig", "Privileged"), True),
    ("5.6", ("Mounts",), [ETC]),
    ("5.6", ("Mounts",), [WRITABLE]),
    ("5.10", ("HostConfig", "NetworkMode"), "host"),
    ("5.11", ("HostConfig", "Memory"), 0),
    ("5.13", ("HostConfig", "ReadonlyRootfs"), False),
    ("5.16", ("HostConfig", "PidMode"), "host"),
    ("5.17", ("HostConfig", "IpcMode"), "container:abc"),
    ("5.18", ("HostConfig", "Devices"), [{"PathOnHost": "/dev/kmsg"}]),
    ("5.20", ("Mounts",), [SHARED]),
    ("5.21", ("HostConfig", "UTSMode"), "host"),
    ("5.22", ("HostConfig", "SecurityOpt"), ["seccomp=unconfined", "no-new-privileges:true"]),
    ("5.25", ("HostConfig", "CgroupParent"), "/other"),
    ("5.26", ("HostConfig", "SecurityOpt"), ["no-new-privileges:false"]),
    ("5.27", ("State", "Health", "Status"), "unhealthy"),
    ("5.28", ("Config", "Image"), "tracking-bundle/mlflow:latest"),
    ("5.28", ("Config", "Image"), "registry.lab:5000/mlflow"),
    ("5.29", ("HostConfig", "PidsLimit"), -1),
    ("5.29", ("HostConfig", "PidsLimit"), None),
    ("5.30", ("NetworkSettings", "Networks"), {"bridge": {}}),
    ("5.31", ("HostConfig", "UsernsMode"), "host"),
    ("5.32", ("Mounts",), [SOCKET]),
)


def test_right_stack_is_green(tmp_path: Path) -> None:
    verdict = probe(make_stage(tmp_path), CHECK)
    assert verdict.status == "passed", verdict.evidence
    assert len(verdict.evidence) == len(ITEMS)


@pytest.mark.parametrize(("item", "where", "value"), DEFECTS, ids=lambda v: str(v)[:30])
def test_defect_is_red(item: str, where: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    facts = containers(make_test_plan())
    place: Any = facts["mlflow"]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    verdict = probe(make_stage(tmp_path, inspect=facts), CHECK)
    assert verdict.status == "failed"
    assert f"{item} mlflow: " in "\n".join(verdict.evidence)


@pytest.mark.parametrize(("service", "status"), [("gateway", "passed"), ("mlflow", "failed")])
def test_folder_that_a_service_declares_is_its_own_only(
    service: str, status: str, tmp_path: Path
) -> None:
    plan = make_test_plan()
    (folder,) = next(one for one in plan.services if one.name == "gateway").folders
    facts = containers(plan)
    facts[service]["Mounts"] = [{**WRITABLE, "Destination": folder.target}]
    assert probe(make_stage(tmp_path, inspect=facts), CHECK).status == status


def test_every_item_has_a_planted_defect() -> None:
    assert {item for item, _, _ in DEFECTS} == {item.id for item in ITEMS}


def test_document_names_every_item() -> None:
    lines = re.findall(
        r"^\| (\d+\.\d+) \|.*\| (checked|exception|host|elsewhere)",
        DOCUMENT.read_text("utf-8"),
        re.MULTILINE,
    )
    checked = {item for item, state in lines if state == "checked"}
    assert checked == {item.id for item in ITEMS}
    assert len(lines) == len({item for item, _ in lines})
