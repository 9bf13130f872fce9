"""Points on the installed stack: made, proven, damaged in every part, brought back; what is damaged is never green."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import CommandError
from bundle.run import run
from tests.e2e.stack import Stack

Change = Callable[[bytes, random.Random], bytes | None]


def flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def remove(_: bytes, __: random.Random) -> None:
    return None


CHANGES: dict[str, Change] = {"flip": flip, "truncate": truncate, "remove": remove}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A kind of file among the backups, and the level that promises to find what is wrong with it."""

    pattern: str
    level: int


WHOLE = ("pgbackrest", "objects", "ledger")
PARTS = {
    "segment of the log": Part(pattern="pgbackrest/archive/site/17-1/*/*-*.zst", level=0),
    "file of a backup": Part(pattern="pgbackrest/backup/site/2*/bundle/*", level=0),
    "pack of objects": Part(pattern="objects/restic/data/*/*", level=1),
    "index of restic": Part(pattern="objects/restic/index/*", level=0),
    "snapshot": Part(pattern="objects/restic/snapshots/*", level=0),
    "line of the ledger": Part(pattern="ledger/*.jsonl", level=0),
}


def tell(stack: Stack, *words: str, timeout: float = 600) -> tuple[int, str]:
    """Run a task; its exit code and all that it said."""
    line = (
        'cd /var/lib/tracking-bundle/current && . .venv/bin/activate; invoke "$@" 2>&1; echo "= $?"'
    )
    said = stack.host.run(["bash", "-c", line, "sh", *words], timeout=timeout)
    text, _, code = said.rstrip().rpartition("= ")
    return int(code), text


def points(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.invoke("points", "--format", "json"))
    return found


def place(stack: Stack) -> Path:
    return stack.root / "backups"


@pytest.fixture(scope="module")
def point(stack: Stack) -> Iterator[str]:
    """A point of a stack with a sample run in it; the jobs are off meanwhile."""
    stack.invoke("schedule", "--remove")
    stack.invoke("verify", "--only", "run-mlflow", timeout=300, check=False)
    code, said = tell(stack, "backup")
    assert code == 0, said
    yield said.strip().splitlines()[-1]
    stack.invoke("schedule", "--install")


def test_point_is_proven_by_restoring_it_beside_the_live_system(stack: Stack, point: str) -> None:
    before = {name: one.started for name, one in stack.containers().items()}
    code, said = tell(stack, "restore", "--scratch")
    assert code == 0, said
    for level in range(4):
        assert f"✓ L{level}" in said
    assert points(stack)[-1]["id"] == point
    assert points(stack)[-1]["level"] == 3
    assert {name: one.started for name, one in stack.containers().items()} == before
    assert not (place(stack) / "scratch").exists()


def test_second_point_of_the_same_costs_kilobytes(stack: Stack, point: str) -> None:
    sizes = [used(place(stack))]
    code, said = tell(stack, "backup")
    assert code == 0, said
    sizes.append(used(place(stack)))
    assert sizes[1] - sizes[0] < 200_000, point


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", PARTS)
def test_what_is_damaged_is_found_by_the_level_that_promises_it(
    stack: Stack, point: str, kind: str, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    nightly = request.config.option.nightly
    if not nightly and kind not in ("segment of the log", "line of the ledger"):
        pytest.skip("nightly")
    part = PARTS[kind]
    for name in CHANGES if nightly else ("remove",):
        path = rng.choice(needed(stack, kind, sorted(place(stack).glob(part.pattern))))
        with damaged(path, CHANGES[name], rng):
            code, said = tell(stack, "prove", "--level", str(part.level))
            assert code in (5, 6), (kind, name, path, said)
        assert point
    code, said = tell(stack, "prove", "--level", str(part.level))
    assert code == 0, said


@pytest.mark.nightly
@pytest.mark.parametrize("part", [*WHOLE, "all"])
def test_repository_that_was_put_back_to_an_older_state_is_noticed(
    stack: Stack, point: str, part: str, tmp_path: Path
) -> None:
    """Of each part alone, and of all together."""
    parts = WHOLE if part == "all" else (part,)
    keep(stack, parts, tmp_path / "older")
    stack.invoke("verify", "--only", "run-mlflow", timeout=300, check=False)
    code, said = tell(stack, "backup")
    assert code == 0, said
    keep(stack, parts, tmp_path / "newer")
    try:
        put(stack, parts, tmp_path / "older")
        code, said = tell(stack, "prove", "--level", "0")
        assert code in (5, 6), (point, said)
    finally:
        put(stack, parts, tmp_path / "newer")
    code, said = tell(stack, "prove", "--level", "0")
    assert code == 0, said


def keep(stack: Stack, parts: tuple[str, ...], folder: Path) -> None:
    folder.mkdir()
    for part in parts:
        run(["cp", "-a", str(place(stack) / part), str(folder)], timeout=120)


def put(stack: Stack, parts: tuple[str, ...], folder: Path) -> None:
    """What was kept in the place of what is there; the folders themselves stay, they are mounted."""
    for part in parts:
        for path in (place(stack) / part).iterdir():
            run(["rm", "-rf", str(path)], timeout=60)
        run(["cp", "-a", f"{folder / part}/.", str(place(stack) / part)], timeout=120)


def needed(stack: Stack, kind: str, paths: list[Path]) -> list[Path]:
    """Those of `paths` that a point needs: of the log what lies between the newest backup and the newest point."""
    if kind != "segment of the log":
        return paths
    newest = max(one["segment"] for one in ledger_points(stack))
    return [path for path in paths if path.name[:24] == newest]


def ledger_points(stack: Stack) -> list[dict[str, Any]]:
    lines = next((place(stack) / "ledger").glob("*.jsonl")).read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == "point"]


class damaged:  # noqa: N801
    """A file that is other for a while."""

    def __init__(self, path: Path, change: Change, rng: random.Random) -> None:
        self.path, self.right, self.stat = path, path.read_bytes(), path.stat()
        self.wrong = change(self.right, rng)

    def __enter__(self) -> None:
        if self.wrong is None:
            self.path.unlink()
        else:
            self.path.chmod(0o600)
            self.path.write_bytes(self.wrong)

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.right)
        os.chown(self.path, self.stat.st_uid, self.stat.st_gid)
        self.path.chmod(self.stat.st_mode & 0o777)


def test_second_backup_at_once_is_told_that_one_is_at_work(stack: Stack, point: str) -> None:
    codes: list[int] = []

    def one() -> None:
        codes.append(tell(stack, "backup")[0])

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in codes, point
    assert set(codes) <= {0, 7}
    assert 7 in codes


@pytest.mark.nightly
def test_page_that_is_wrong_on_the_disk_is_no_base_of_a_point(stack: Stack, point: str) -> None:
    """pgBackRest backs it up and ends well; we do not."""
    psql = "docker compose -p tracking -f rendered/compose.yaml exec -T postgres psql -h /tmp -U postgres -XAtc"
    make = "create table bundle.victim as select generate_series(1, 5000) as n"
    script = (
        f'cd /var/lib/tracking-bundle && {psql} "{make}" && {psql} checkpoint >/dev/null &&'
        f" {psql} \"select pg_relation_filepath('bundle.victim')\" | tail -1"
    )
    file = stack.host.run(["sh", "-c", script], timeout=60).strip().splitlines()[-1]
    volumes = stack.host.root / "var/lib/docker/volumes/tracking_postgres/_data/pgdata"
    with (volumes / file).open("r+b") as page:
        page.seek(8192 + 4000)
        page.write(b"wrong")
    drop = f'cd /var/lib/tracking-bundle && {psql} "drop table bundle.victim; checkpoint"'
    try:
        code, said = tell(stack, "backup", "--full")
        assert code == 4, said
        assert "checksum" in said
        assert points(stack)[-1]["id"] >= point
    finally:
        stack.host.run(["sh", "-c", drop], timeout=60)
    code, said = tell(stack, "backup", "--full")
    assert code == 0, said
    code, said = tell(stack, "prove", "--level", "3")
    assert code == 0, said


@pytest.mark.nightly
def test_backup_that_is_killed_anywhere_leaves_the_points_and_the_next_one_is_made(
    stack: Stack, point: str, rng: random.Random
) -> None:
    restarts = {name: one.restarts for name, one in stack.containers().items()}
    for _ in range(15):
        before = {one["id"] for one in points(stack)}
        line = "cd /var/lib/tracking-bundle/current && exec .venv/bin/invoke backup --full"
        delay = rng.uniform(0.5, 15)
        stack.host.run(
            ["timeout", "--signal=KILL", f"{delay:.2f}", "bash", "-c", line],
            timeout=60,
            check=False,
        )
        kill_leftovers(stack)
        assert before <= {one["id"] for one in points(stack)}
        code, said = tell(stack, "backup")
        assert code == 0, said
    code, said = tell(stack, "prove", "--level", "3")
    assert code == 0, said
    assert {name: one.restarts for name, one in stack.containers().items()} == restarts


def kill_leftovers(stack: Stack) -> None:
    """End what a killed task left at work: commands in the container of Postgres, one-off containers."""
    script = "pkill -9 pgbackrest; docker ps -q --filter name=tracking-ops- | xargs -r docker kill"
    stack.host.run(["bash", "-c", script], timeout=60, check=False)


@pytest.mark.nightly
def test_point_is_brought_back_and_what_came_later_is_gone(stack: Stack, point: str) -> None:
    stack.invoke("verify", "--only", "run-mlflow", timeout=300, check=False)
    stack.invoke("backup", timeout=300)
    later = points(stack)[-1]
    code, said = tell(stack, "restore", "--point", point, "--yes", timeout=900)
    assert code == 0, said
    code, said = tell(stack, "backup")
    assert code == 0, said
    now = {one["id"]: one for one in points(stack)}
    assert points(stack)[-1]["objects"] == now[point]["objects"] != later["objects"]
    code, said = tell(stack, "restore", "--point", later["id"], "--yes", timeout=900)
    assert code == 0, said  # of the time line that was left
    code, said = tell(stack, "prove", "--level", "3")
    assert code == 0, said


@pytest.mark.nightly
def test_restore_that_is_killed_anywhere_is_finished_by_the_next_one(
    stack: Stack, point: str, rng: random.Random
) -> None:
    for _ in range(15):
        line = f"cd /var/lib/tracking-bundle/current && exec .venv/bin/invoke restore --point {point} --yes"
        stack.host.run(
            ["timeout", "--signal=KILL", f"{rng.uniform(1, 60):.1f}", "bash", "-c", line],
            timeout=120,
            check=False,
        )
        stack.host.run(
            ["bash", "-c", "docker ps -q --filter name=tracking-ops- | xargs -r docker kill"],
            timeout=60,
            check=False,
        )
        if (stack.root / "restoring.json").exists():
            code, said = tell(stack, "start")
            assert code == 4, said
            assert point in said
        code, said = tell(stack, "restore", "--point", point, "--yes", timeout=900)
        assert code == 0, said


def test_wrong_inputs_are_refused_with_what_to_do(stack: Stack, point: str) -> None:
    wrong = {
        ("restore", "--point", "cp-0", "--yes"): (2, "cp-"),
        ("restore", "--to-time", "tomorrow", "--yes"): (2, "time"),
        ("restore", "--to-time", "2020-01-01", "--yes"): (2, "oldest"),
        ("restore", "--point", point): (2, "--yes"),
        ("restore", "--kit", "/nowhere", "--yes"): (2, "--key"),
        ("prove", "--level", "7"): (2, "0, 1, 2 or 3"),
        ("points", "--format", "xml"): (2, "json"),
    }
    for words, (code, hint) in wrong.items():
        found, said = tell(stack, *words)
        assert (found, hint in said, "Traceback" in said) == (code, True, False), (words, said)


def test_full_disk_is_said_before_anything_is_changed(stack: Stack, point: str) -> None:
    """The folder of backups on a disk of its own, with nothing left."""
    script = "mount -t tmpfs -o size=8m tmpfs /mnt && echo mounted"
    assert "mounted" in stack.host.run(["sh", "-c", script], timeout=20)
    own = stack.root / "site.toml"
    text = own.read_text()
    try:
        assert "\n[backup]\n" in text
        own.write_text(text.replace("\n[backup]\n", '\n[backup]\nfolder = "/mnt"\n'))
        code, said = tell(stack, "backup")
        assert code == 5, said  # no ledger there, and the audit log knows one
        stack.host.run(["cp", "-a", "/var/lib/tracking-bundle/backups/ledger", "/mnt"], timeout=20)
        code, said = tell(stack, "backup")
        assert code == 3, said
        assert "MiB are free" in said
    finally:
        own.write_text(text)
        stack.host.run(["umount", "/mnt"], timeout=20)
    assert points(stack)[-1]["id"] >= point


def test_stack_serves_on_while_a_point_is_made(stack: Stack, point: str) -> None:
    """No container is started anew by it."""
    before = {name: one.started for name, one in stack.containers().items()}
    begin = time.monotonic()
    try:
        stack.invoke("backup", timeout=300)
    except CommandError as error:  # pragma: no cover
        pytest.fail(str(error))
    assert time.monotonic() - begin < 300
    assert {name: one.started for name, one in stack.containers().items()} == before, point
