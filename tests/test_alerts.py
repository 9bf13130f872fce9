"""A job that fails is told; jobs and their times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import alerts, jobs
from bundle.config import SiteConfig, parse_site
from bundle.errors import BusyError, CommandError
from bundle.host import Host
from bundle.words import choose


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose("")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    found: list[tuple[list[str], str]] = []

    def run(command: list[str], *, timeout: float, text: str) -> str:
        assert timeout <= 60
        found.append((command, text))
        if command[0] == "broken":
            raise CommandError("broken: not there")
        return ""

    monkeypatch.setattr(alerts, "run", run)
    return found


def site_with(*command: str) -> SiteConfig:
    words = ", ".join(f'"{word}"' for word in command)
    return parse_site(f'domain = "lab.internal"\n[alert]\ncommand = [{words}]')


def fail(site: SiteConfig, error: Exception) -> None:
    with alerts.alerting(site, "backup"):
        raise error


def test_failure_is_told_once_with_what_and_why(told: list[tuple[list[str], str]]) -> None:
    with pytest.raises(CommandError, match="disk"):
        fail(site_with("mail", "ops"), CommandError("the disk is gone"))
    line = '{"site": "lab.internal", "task": "backup", "message": "the disk is gone"}\n'
    assert told == [(["mail", "ops"], line)]


def test_nobody_is_told_of_success_or_of_another_one_at_work(
    told: list[tuple[list[str], str]],
) -> None:
    with alerts.alerting(site_with("mail"), "backup"):
        pass
    with pytest.raises(BusyError):
        fail(site_with("mail"), BusyError("another"))
    with pytest.raises(CommandError):
        fail(parse_site('domain = "lab.internal"'), CommandError("x"))
    assert told == []


def test_command_that_fails_hides_no_failure(told: list[tuple[list[str], str]]) -> None:
    with pytest.raises(CommandError, match="the disk"):
        fail(site_with("broken"), CommandError("the disk is gone"))
    assert told


@pytest.mark.parametrize(
    ("minutes", "cron", "timer"),
    [(5, "*/5 * * * * root", "*:00/5:30"), (60, "0 * * * * root", "*-*-* *:00:30")],
)
def test_points_are_made_as_often_as_the_site_says(
    tmp_path: Path, minutes: int, cron: str, timer: str
) -> None:
    (tmp_path / "site.toml").write_text(f"[backup]\nevery_minutes = {minutes}\n")
    host = Host(root=tmp_path)
    lines = jobs.cron_text(host).splitlines()
    line = next(line for line in lines if "invoke backup" in line)
    assert line.startswith(cron)
    made = next(job for job in jobs.jobs(host) if job.name == "backup")
    units = jobs.job_units(host, made)
    assert timer in units[made.timer]
    assert "Persistent=true" in units[made.timer]
    assert any("restore --scratch --quiet" in line for line in lines)
    assert len({job.name for job in jobs.jobs(host)}) == len(jobs.jobs(host))
