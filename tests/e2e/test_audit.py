"""The audit log of the installed stack: who changed what through the doors, what operators ran, what damage shows."""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import CommandError
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(400)
CHANGES = Path(__file__).with_name("changes.py")
PERSON = "audit-kim"


@pytest.fixture(scope="module")
def person(stack: Stack) -> dict[str, str]:
    """Somebody with a password and an API key."""
    if PERSON not in stack.invoke("users.list").split():
        stack.invoke("users.add", PERSON, "--role", "editor")
    stack.invoke("users.env", "--user", PERSON, "--out", "/root/audit.env")
    lines = (stack.host.root / "root/audit.env").read_text("utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return {
        "name": PERSON,
        "password": found["MLFLOW_TRACKING_PASSWORD"],
        "key": found["PHOENIX_API_KEY"],
    }


def send(stack: Stack, person: dict[str, str], **more: Any) -> dict[str, Any]:
    """Send the changes; their statuses."""
    request = {"ca": str(stack.root / "pki/clients.crt"), **person, **more}
    said = stack.host.beside(
        [sys.executable, str(CHANGES)],
        timeout=200,
        text=json.dumps(request),
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    found: dict[str, Any] = json.loads(said)
    return found


def entries(stack: Stack) -> list[dict[str, Any]]:
    """The whole log."""
    text = stack.invoke("audit.show", "--since", "", "--format", "json")
    return [json.loads(line) for line in text.splitlines()]


def last(stack: Stack) -> int:
    """The number of the last line."""
    return int(entries(stack)[-1]["seq"])


def new(stack: Stack, since: int, kind: str = "request") -> list[dict[str, Any]]:
    """The lines after `since` of a kind."""
    return [e for e in entries(stack) if e["seq"] > since and e["kind"] == kind]


def chain(stack: Stack) -> Path:
    """The newest file of the log."""
    return max((stack.root / "audit/chain").glob("*.jsonl"))


def test_changes_are_written_down_with_the_name_that_the_tracker_gave(
    stack: Stack, person: dict[str, str]
) -> None:
    before, mark = last(stack), f"audit-{secrets.token_hex(4)}"
    statuses = send(stack, person, mark=mark)
    assert (statuses["basic"], statuses["cookie"], statuses["question"]) == (200, 200, 200)
    assert (statuses["anonymous"], statuses["wrong"], statuses["nobody"]) == (401, 401, 401)
    found = new(stack, before)
    create = "POST /api/2.0/mlflow/experiments/create"
    rows = [
        (e["what"], e["user"], e["result"], e.get("claims"), e.get("mutation"))
        for e in found
        if e["user"] != "verify"
    ]
    assert rows == [
        (create, PERSON, 200, None, None),
        (create, "unknown", 401, PERSON, None),
        (create, "unknown", 401, None, None),
        ("POST /v1/projects", PERSON, statuses["key"], None, None),
        ("POST /graphql", "unknown", 401, None, "createDataset"),
        ("POST /auth/login", "unknown", statuses["login"], None, None),
        ("POST /graphql", PERSON, 200, None, "createDataset"),
    ]
    assert {e["door"] for e in found} == {"mlflow", "phoenix"}
    text = "".join(path.read_text("utf-8") for path in (stack.root / "audit").rglob("*.jsonl"))
    for secret in (person["password"], person["key"], "s3cret-of-a-query", mark):
        assert secret not in text


def test_many_at_once_lose_no_line(
    stack: Stack, person: dict[str, str], request: pytest.FixtureRequest
) -> None:
    count = 500 if request.config.option.nightly else 100
    before, mark = last(stack), f"many-{secrets.token_hex(4)}"
    statuses = send(stack, person, mark=mark, count=count)
    assert statuses.keys() == {"405"}, statuses
    for seconds in ("0.3", "0.6", "0.9"):  # killed in the middle, three times
        line = f"cd {stack_folder()} && timeout -s KILL {seconds} .venv/bin/invoke audit.collect --quiet"
        stack.host.run(["sh", "-c", line], timeout=60, check=False)
    found = [e for e in new(stack, before) if mark in e["what"]]
    assert sorted(e["what"] for e in found) == sorted(f"POST /v1/{mark}-{n}" for n in range(count))
    assert {e["user"] for e in found} == {PERSON}
    assert len({e["request"] for e in found}) == count
    assert stack.invoke("audit.verify").startswith("whole: lines 1 to ")


def stack_folder() -> str:
    return "/var/lib/tracking-bundle/current"


def test_tasks_are_written_down_with_person_options_place_and_exit_code(stack: Stack) -> None:
    before = last(stack)
    line = f"cd {stack_folder()} && .venv/bin/invoke users.add {PERSON} --role editr"
    script = f"SSH_CLIENT='10.9.8.7 5000 22' SUDO_USER=lee sh -c '{line}'"
    stack.host.run(["sh", "-c", script], timeout=60, check=False)
    begun, ended = new(stack, before, "users")
    assert (begun["state"], ended["state"], ended["result"]) == ("begun", "ended", 2)
    assert (ended["what"], ended["target"]) == ("invoke users.add", PERSON)
    assert ended["options"] == {"name": PERSON, "role": "editr"}
    assert (ended["from"], ended["uid"]) == ("10.9.8.7", 0)
    assert ended["user"] == ("lee" if ended["known"] == "sudo" else "root")
    shown = stack.invoke("audit.show", "--since", "1h", "--user", PERSON)
    assert "users: invoke users.add" in shown


@contextlib.contextmanager
def changed(path: Path, text: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(text)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_damage_is_red_by_its_line_in_both_tasks(stack: Stack) -> None:
    stack.invoke("audit.collect")
    whole = chain(stack).read_bytes()
    rows = whole.splitlines(keepends=True)
    number = json.loads(rows[3])["seq"]
    with changed(chain(stack), whole.replace(rows[3], rows[3].replace(b'"kind":"', b'"kind":"x'))):
        with pytest.raises(CommandError, match=rf"exit code 5(?s:.*)line {number} was changed"):
            stack.invoke("audit.verify")
        with pytest.raises(CommandError, match="exit code 6"):
            stack.invoke("verify", "--only", "audit-chain", timeout=200)
        report = json.loads((stack.root / "reports/part/verify.json").read_text("utf-8"))
        assert any(f"line {number}" in line for line in report["results"][0]["evidence"])
    stack.invoke("audit.verify")


def test_lines_cut_off_are_noticed_against_the_copied_head(stack: Stack) -> None:
    share = stack.host.root / "root/audit-share"
    share.mkdir(exist_ok=True)
    settings = stack.root / "site.toml"
    text = settings.read_bytes()
    assert b"\n[audit]\n" in text, "the sample has the section"
    wanted = b'\n[audit]\nfolder = "/root/audit-share"\n'
    with changed(settings, text.replace(b"\n[audit]\n", wanted, 1)):
        assert "copied" in stack.invoke("audit.collect")
        assert "equal to 1 copied heads" in stack.invoke("audit.verify")
        whole = chain(stack).read_bytes()
        with (
            changed(chain(stack), b"".join(whole.splitlines(keepends=True)[:-6])),
            pytest.raises(CommandError, match=r"exit code 5(?s:.*)(cut off|not the one)"),
        ):
            stack.invoke("audit.verify")
        stack.invoke("verify", "--only", "audit-head", timeout=200)
    for path in share.iterdir():
        path.unlink()
    assert "audit.folder" in stack.invoke("audit.verify")


def test_job_collects_by_itself(stack: Stack) -> None:
    assert "audit" in stack.host.run(["cat", "/etc/cron.d/tracking-bundle"], timeout=20)
