"""What the tasks of people do; each can be killed anywhere and run again."""

from __future__ import annotations

from pathlib import Path

from bundle import access, users
from bundle.console import table
from bundle.run import log
from bundle.words import say
from bundle.workflows.closed import open_plan


def show(here: Path) -> str:
    """Who is in which tracker, with which role."""
    host, plan = open_plan(here)
    disabled = say("disabled", "중지됨")
    rows = [
        (p.name, p.mlflow or "-", p.team or "-", p.phoenix or "-", disabled if p.disabled else "")
        for p in users.users_list(plan, host)
    ]
    head = (say("person", "사용자"), "MLflow", say("team", "팀"), "Phoenix", say("state", "상태"))
    return table(head, rows)


def add(here: Path, *, name: str, role: str, team: str) -> None:
    """Add a person to both trackers."""
    host, plan = open_plan(here)
    with host.lock("users"):
        users.users_add(plan, host, name, users.seat_of(role, team))


def role(here: Path, *, name: str, role: str, team: str) -> None:
    """Give a person another role or team."""
    host, plan = open_plan(here)
    with host.lock("users"):
        access.users_role(plan, host, name, users.seat_of(role, team))


def disable(here: Path, *, name: str) -> None:
    """Refuse a person everywhere."""
    host, plan = open_plan(here)
    with host.lock("users"):
        access.users_disable(plan, host, name)


def enable(here: Path, *, name: str) -> None:
    """Let a person in again."""
    host, plan = open_plan(here)
    with host.lock("users"):
        access.users_enable(plan, host, name)
    hint = f"invoke users.env --user {name} --out FILE"
    log.info("  %s: %s", say("a fresh credential", "새 자격 증명"), hint)


def passwd(here: Path, *, name: str, file: str) -> None:
    """Give a person the password in a file."""
    host, plan = open_plan(here)
    password = access.read_password(file)
    with host.lock("users"):
        access.users_passwd(plan, host, name, password)


def keys(here: Path, *, name: str, revoke: str) -> str:
    """The API keys of a person, after one has been taken back."""
    host, plan = open_plan(here)
    with host.lock("users"):
        keys = access.users_keys(plan, host, name, revoke)
    return table((say("key", "키"), "id"), [(label, key) for key, label in keys.items()])


def environment(here: Path, *, name: str, out: Path) -> Path:
    """Write a person's client environment."""
    host, plan = open_plan(here)
    with host.lock("users"):
        return access.users_env(plan, host, name, out)
