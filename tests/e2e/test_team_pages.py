"""MLflow's pages in a real browser: the people of a team see their team's experiment and nothing of another's."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bundle import browse
from tests.e2e.stack import Stack
from tests.e2e.test_access import run_of
from tests.e2e.test_client import environment

pytestmark = [pytest.mark.timeout(600), pytest.mark.nightly]
TOP = Path(__file__).parents[2]
TEAMS = {"tina": ("editor", "vision"), "vera": ("viewer", "vision"), "sora": ("editor", "speech")}
MAKER = {"vision": "tina", "speech": "sora"}
OTHER = {"vision": "speech", "speech": "vision"}


@pytest.fixture(scope="module")
def people(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Two people of one team and one of another, with their passwords."""
    listed = [line.split()[0] for line in stack.invoke("users.list").splitlines()]
    found = {}
    for name, (role, team) in TEAMS.items():
        if name not in listed:
            stack.invoke("users.add", name, "--role", role, "--team", team)
        env = environment(stack, name, tmp_path_factory.mktemp(name))
        found[name] = {"name": name, "password": env["MLFLOW_TRACKING_PASSWORD"]}
    return found


def visits(stack: Stack, people: dict[str, dict[str, str]], out: Path) -> dict[str, Any]:
    """What each person saw."""
    made = {team: run_of(stack, people, who, team) for team, who in MAKER.items()}
    wanted = [
        {
            **people[name],
            "team": team,
            "experiment": f"of-{MAKER[team]}",
            "number": made[team]["experiment"],
            "other_team": OTHER[team],
            "other_number": made[OTHER[team]]["experiment"],
        }
        for name, (_, team) in TEAMS.items()
    ]
    with tempfile.TemporaryDirectory(prefix="browse-") as home:
        browse.trust(Path(home), stack.root / "pki/clients.crt")
        said = stack.host.beside(
            [*browse.witnessed(Path(home)), sys.executable, "-m", "tests.e2e.team_pages"],
            timeout=400,
            env={
                "HOME": home,
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(TOP),
            },
            text=json.dumps(
                {"chromium": browse.find_chromium(), "people": wanted, "out": str(out)}
            ),
        )
    found: dict[str, Any] = json.loads(said)
    return found


def test_people_of_a_team_see_their_own_and_nothing_else(
    stack: Stack, people: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    for name, saw in visits(stack, people, tmp_path).items():
        team = TEAMS[name][1]
        own, other = f"of-{MAKER[team]}", f"of-{MAKER[OTHER[team]]}"
        assert not saw["wrong"], (name, saw["wrong"])
        assert team in saw["chooser"], name
        assert OTHER[team] not in saw["chooser"], name
        assert own in saw["listed"], name
        assert other not in saw["listed"], name
        assert own in saw["inside"], name
        assert other not in saw["theirs"], name
