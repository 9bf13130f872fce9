"""The lines about what the site added: moot without, green as sealed, red for each planted defect."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle.checks import CHECKS
from bundle.checks.model import Stage
from bundle.checks.runner import probe
from bundle.config import parse_site
from bundle.manifest import Member, SealedExtras, SealedImage
from bundle.model import ExtraService, Health
from bundle.plan import make_plan
from tests.checks.stages import containers, make_stage, make_test_plan

BY_ID = {check.id: check for check in CHECKS}
JUDGE = ExtraService(name="judge", image="judge", user=12000, health=Health(test=("CMD", "true")))
JOB = ExtraService(name="job", image="judge", user=12000, restart="no", writable="a reason")
FILES = {
    "extras/files/cache/a": b"one",
    "extras/files/cache/b/c": b"two",
    "extras/wheels/w.whl": b"w",
}
WAYS = {
    "inside": {"tcp lab.internal:8443": True, "dns g": True},
    "outside": {"dns example.com": False},
}


def attributes(extra: ExtraService, root: Path) -> dict[str, Any]:
    """What the engine says of a right container."""
    state: dict[str, Any] = {"Status": "running", "Health": {"Status": "healthy"}, "ExitCode": 0}
    if extra.restart == "no":
        state = {"Status": "exited", "ExitCode": 0}
    return {
        "Image": "sha256:judge-config",
        "State": state,
        "HostConfig": {
            "Privileged": False,
            "CapAdd": None,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "ReadonlyRootfs": not extra.writable,
            "Memory": extra.memory_mb << 20,
            "PidsLimit": extra.pids,
            "Devices": [],
            "NetworkMode": "tracking_extras",
            "PidMode": "",
            "IpcMode": "private",
        },
        "Mounts": [{"Type": "bind", "Source": f"{root}/extras/files/cache", "RW": False}],
        "NetworkSettings": {"Ports": {}, "Networks": {"tracking_extras": {}}},
    }


def stage_with_extras(root: Path, **planted: Any) -> Stage:
    """A stage on which the site's own are right, but for what is `planted` among the facts."""
    members = []
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        members.append(Member(path=path, size=len(data), sha256=digest))
    extras = (JUDGE, JOB)
    found = containers(make_test_plan()) | {e.slug: attributes(e, root) for e in extras}
    facts = {"inspect": found, "extras network": {"Internal": True}, "ways out": WAYS, **planted}
    stage = make_stage(root, **facts)
    image = SealedImage(
        name="extra/judge",
        reference="tracking-extra/judge:1.2.3",
        manifest="sha256:judge-manifest",
        config="sha256:judge-config",
        layers=(),
        diff_ids=(),
        size=1,
    )
    sealed = replace(
        stage.release.manifest,
        members=tuple(members),
        images=(*stage.release.manifest.images, image),
        extras=SealedExtras(images=("judge",), files=("cache",), wheels=("w.whl",)),
    )
    site = parse_site('domain = "lab.internal"')
    plan = make_plan(site, site_id="0a1b2c3d", version="1.2.3", extras=extras)
    return replace(stage, plan=plan, release=replace(stage.release, manifest=sealed))


def evidence(stage: Stage, name: str, status: str) -> str:
    """What the probe of the line `name` says, which must have come out as `status`."""
    verdict = probe(stage, BY_ID[name])
    assert verdict.status == status, verdict.evidence
    assert "probe broke" not in verdict.evidence[0]
    return "\n".join(verdict.evidence)


@pytest.mark.parametrize("name", ["extra-files", "extra-services"])
def test_lines_are_moot_where_nothing_was_added(name: str, tmp_path: Path) -> None:
    assert "bundle.toml: extras" in evidence(make_stage(tmp_path), name, "not_applicable")


@pytest.mark.parametrize("name", ["extra-files", "extra-services", "svc-images", "net-published"])
def test_right_extras_are_green(name: str, tmp_path: Path) -> None:
    assert evidence(stage_with_extras(tmp_path), name, "passed")


@pytest.mark.parametrize("path", FILES)
def test_changed_or_missing_file_is_red(path: str, tmp_path: Path) -> None:
    stage = stage_with_extras(tmp_path)
    (tmp_path / path).write_bytes(b"0ne")
    assert f"{path}: changed" in evidence(stage, "extra-files", "failed")
    (tmp_path / path).unlink()
    assert f"{path}: missing" in evidence(stage, "extra-files", "failed")
    (tmp_path / path).symlink_to("/etc/passwd")
    assert f"{path}: missing" in evidence(stage, "extra-files", "failed")


def test_foreign_file_in_a_folder_of_ours_is_red(tmp_path: Path) -> None:
    stage = stage_with_extras(tmp_path)
    (tmp_path / "extras/files/cache/b/new").write_text("")
    (tmp_path / "extras/files/other").mkdir()
    (tmp_path / "extras/files/other/x").write_text("")
    told = evidence(stage, "extra-files", "failed")
    assert told == "extras/files/cache/b/new: not of the bundle"


DEFECTS: tuple[tuple[tuple[str, ...], Any, str], ...] = (
    (("State", "Health", "Status"), "unhealthy", "running, unhealthy"),
    (("State", "Status"), "restarting", "restarting"),
    (("HostConfig", "Privileged"), True, "Privileged is True"),
    (("HostConfig", "CapAdd"), ["SYS_ADMIN"], "CapAdd is ['SYS_ADMIN']"),
    (("HostConfig", "CapDrop"), None, "CapDrop is None"),
    (("HostConfig", "ReadonlyRootfs"), False, "ReadonlyRootfs is False"),
    (("HostConfig", "Memory"), 0, "Memory is 0"),
    (("HostConfig", "PidsLimit"), None, "PidsLimit is None"),
    (("HostConfig", "Devices"), [{"PathOnHost": "/dev/kvm"}], "Devices is"),
    (("HostConfig", "SecurityOpt"), None, "may gain privileges"),
    (("HostConfig", "NetworkMode"), "host", "NetworkMode is host"),
    (("HostConfig", "PidMode"), "host", "PidMode is host"),
    (("HostConfig", "IpcMode"), "container:x", "IpcMode is container:x"),
    (("NetworkSettings", "Ports"), {"80/tcp": [{"HostPort": "80"}]}, "has a published port"),
    (("NetworkSettings", "Networks"), {"tracking_extras": {}, "bridge": {}}, "is on bridge, tracking_extras"),
    (("Mounts",), [{"Type": "bind", "Source": "/etc", "RW": False}], "has the host's /etc"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "value", "named"), DEFECTS, ids=[d[2] for d in DEFECTS])
def test_service_out_of_its_walls_is_red(
    path: tuple[str, ...], value: Any, named: str, tmp_path: Path
) -> None:
    stage = stage_with_extras(tmp_path)
    found = copy.deepcopy(stage.notes.found["inspect"][0])
    facts = found["extra-judge"]
    for key in path[:-1]:
        facts = facts[key]
    facts[path[-1]] = value
    told = evidence(stage_with_extras(tmp_path, inspect=found), "extra-services", "failed")
    assert f"extra-judge: {named}" in told


def test_mount_of_its_own_may_not_be_written(tmp_path: Path) -> None:
    stage = stage_with_extras(tmp_path)
    found = copy.deepcopy(stage.notes.found["inspect"][0])
    found["extra-judge"]["Mounts"][0]["RW"] = True
    told = evidence(stage_with_extras(tmp_path, inspect=found), "extra-services", "failed")
    assert "extras/files/cache writable" in told


def test_job_that_failed_and_service_that_is_gone_are_red(tmp_path: Path) -> None:
    stage = stage_with_extras(tmp_path)
    found = copy.deepcopy(stage.notes.found["inspect"][0])
    found["extra-job"]["State"]["ExitCode"] = 3
    del found["extra-judge"]
    told = evidence(stage_with_extras(tmp_path, inspect=found), "extra-services", "failed")
    assert "extra-job: exited (exit code 3)" in told
    assert "extra-judge: no container" in told
    assert "extra-judge: no container" in evidence(
        stage_with_extras(tmp_path, inspect=found), "svc-images", "failed"
    )


@pytest.mark.parametrize(
    ("facts", "value", "named"),
    [
        ("extras network", None, "is not internal"),
        ("extras network", {"Internal": False}, "is not internal"),
        ("ways out", {**WAYS, "outside": {"dns example.com": True}}, "dns example.com is open"),
        ("ways out", {**WAYS, "inside": {"tcp x:1": False}}, "the probe does not work"),
    ],
)
def test_way_out_is_red(facts: str, value: Any, named: str, tmp_path: Path) -> None:
    stage = stage_with_extras(tmp_path, **{facts: value})
    assert named in evidence(stage, "extra-services", "failed")


def test_other_image_is_red(tmp_path: Path) -> None:
    stage = stage_with_extras(tmp_path)
    found = copy.deepcopy(stage.notes.found["inspect"][0])
    found["extra-job"]["Image"] = "sha256:other"
    told = evidence(stage_with_extras(tmp_path, inspect=found), "svc-images", "failed")
    assert "extra-job: sha256:other is not sha256:judge-config" in told
