"""Preconditions: each can be red, all are told at once, and each says numbers and a way out."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path

import pytest

from bundle import preflight, words
from bundle.config import parse_site
from bundle.host import Host
from bundle.model import EngineFacts
from bundle.plan import Plan, make_plan
from bundle.preflight import GIB, Release, Row

RELEASE = Release(arch="amd64", created=1_700_000_000, image_bytes=2 * GIB)


def facts(folder: Path, **changes: object) -> EngineFacts:
    good = EngineFacts(
        version="26.1.5+dfsg1",
        compose="2.26.1-4",
        arch="amd64",
        memory=16 * GIB,
        folder=str(folder),
        memory_limit=True,
        pids_limit=True,
        forwarding=True,
        live_restore=True,
        security="name=seccomp,profile=builtin",
        api=(1, 45),
        ports=frozenset(("tracking", "127.0.0.1", port) for port in (8443, 8444, 8445)),
        strangers=(),
        volumes={},
    )
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_site('domain = "a.b"'), site_id="0a1b2c3d", version="0.1.0")


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def red(rows: list[Row]) -> dict[str, str]:
    return {row.name: str(row.problem) for row in rows if row.problem}


def test_good_host_has_no_red_row(plan: Plan, tmp_path: Path) -> None:
    rows = preflight.preflight(
        plan, Host(root=tmp_path), facts(tmp_path), dataclasses.replace(RELEASE, image_bytes=1)
    )
    assert red(rows) == {}
    assert len(rows) >= 14


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"version": "20.10.24"}, "engine", "20.10.24 is older than 24.0"),
        ({"compose": ""}, "compose", "no compose plugin found"),
        ({"compose": "2.3.0"}, "compose", "2.20 or newer needed"),
        ({"arch": "arm64"}, "architecture", "this engine runs arm64, the bundle is for amd64"),
        (
            {"memory": 2 * GIB},
            "memory",
            "2,048 MiB, but the limits of the services add up to 4,864 MiB",
        ),
        ({"memory_limit": False}, "memory limits", "cgroup_enable=memory"),
        ({"pids_limit": False}, "process limits", "pids control group"),
        ({"forwarding": False}, "ip_forward", "net.ipv4.ip_forward"),
        ({"strangers": ("tracking-web-1",)}, "project", "tracking-web-1"),
        ({"volumes": {"tracking_minio": "ffff"}}, "volumes", "tracking_minio"),
        ({"volumes": {"tracking_postgres": ""}}, "volumes", "another or an earlier installation"),
    ],
)
def test_each_fact_can_be_red(
    plan: Plan, tmp_path: Path, change: dict[str, object], name: str, words: str
) -> None:
    rows = preflight.preflight(plan, Host(root=tmp_path), facts(tmp_path, **change), RELEASE)
    found = red(rows)
    assert words in found[name]
    assert "hint:" in found[name]


def test_own_volumes_and_ports_are_no_problem(plan: Plan, tmp_path: Path) -> None:
    mine = facts(tmp_path, volumes={"tracking_minio": plan.id, "other": "x"})
    rows = preflight.preflight(plan, Host(root=tmp_path), mine, RELEASE)
    assert not {"volumes", "port 8443", "port 8444", "port 8445"} & set(red(rows))


def test_taken_port_is_named_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        site = parse_site(f'domain = "a.b"\n[ports]\nmlflow = {number}')
        plan = make_plan(site, site_id="x", version="1")
        found = red(preflight.check_ports(plan, facts(tmp_path, ports=frozenset())))
    assert f"127.0.0.1:{number} cannot be listened on" in found[f"port {number}"]


def test_address_that_this_host_does_not_have_is_a_problem(tmp_path: Path) -> None:
    plan = make_plan(parse_site('domain = "a.b"\nbind = "203.0.113.7"'), site_id="x", version="1")
    assert len(red(preflight.check_ports(plan, facts(tmp_path, ports=frozenset())))) == 3


def test_room_is_added_up_where_file_systems_are_one(tmp_path: Path) -> None:
    huge = dataclasses.replace(RELEASE, image_bytes=1 << 60)
    rows = preflight.check_space(
        Host(root=tmp_path / "not" / "yet"), facts(tmp_path / "engine"), huge
    )
    assert len(rows) == 1
    assert "GiB free of" in rows[0].found
    assert rows[0].problem is not None


def test_clock_before_the_bundle_is_red(tmp_path: Path) -> None:
    tomorrow = dataclasses.replace(RELEASE, created=int(time.time()) + 3 * 86400)
    assert "before the bundle was made" in str(preflight.check_clock(tomorrow).problem)


def test_ordinary_user_is_told_why_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "uid 1000 cannot own files" in str(preflight.check_rights().problem)


def test_first_installation_takes_no_volume_of_that_name(tmp_path: Path) -> None:
    """Before the first installation there is no mark yet, and a volume without one is not ours either."""
    fresh = make_plan(parse_site('domain = "a.b"'), site_id="", version="1")
    volumes = {"tracking_postgres": ""}
    rows = preflight.check_strangers(fresh, facts(tmp_path, volumes=volumes))
    assert "tracking_postgres" in red(rows)["volumes"]


def test_installed_stack_needs_no_more_room(tmp_path: Path) -> None:
    (tmp_path / "rendered").mkdir()
    (tmp_path / "rendered" / "compose.yaml").touch()
    nothing = dataclasses.replace(RELEASE, image_bytes=0)
    rows = preflight.check_space(Host(root=tmp_path), facts(tmp_path), nothing)
    assert [row.found.endswith("0.0 needed") for row in rows] == [True]


def test_all_problems_come_at_once(plan: Plan, tmp_path: Path) -> None:
    bad = facts(tmp_path, version="20.10", arch="arm64", memory=1, compose="")
    found = red(preflight.preflight(plan, Host(root=tmp_path), bad, RELEASE))
    assert {"engine", "architecture", "memory", "compose"} <= set(found)


def test_probe_that_breaks_hides_no_other(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Row]:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(preflight, "check_space", broken)
    found = red(
        preflight.preflight(plan, Host(root=tmp_path), facts(tmp_path, arch="arm64"), RELEASE)
    )
    assert "cannot be checked" in found["space"]
    assert "architecture" in found


def test_problems_are_told_in_korean_too(plan: Plan, tmp_path: Path) -> None:
    words.choose("ko")
    try:
        bad = facts(tmp_path, version="20.10", arch="arm64", strangers=("x",))
        found = red(preflight.preflight(plan, Host(root=tmp_path), bad, RELEASE))
    finally:
        words.choose("en")
    assert "오래되었습니다" in found["engine"]
    assert "arm64" in found["architecture"]
    assert "건드리지 않습니다" in found["project"]
