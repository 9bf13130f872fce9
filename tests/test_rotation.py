"""New values on their way: each step can be the last one before a kill, and the next run goes on from there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle import rotation, vault
from bundle.certificates import now
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.host import Host
from bundle.model import SecretSpec
from bundle.plan import make_plan

PLAN = make_plan(parse_site('domain = "a.b"'), site_id="0a1b2c3d", version="0.1.0")
KNOWN = rotation.specs(PLAN, ["VERIFY_MLFLOW_PASSWORD"])
NAME = "DB_PHOENIX"
SPEC = next(spec for spec in KNOWN if spec.name == NAME)


class Killed(Exception):  # noqa: N818
    """The run ended here."""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(root=tmp_path)
    vault.open_store(made, PLAN)
    return made


def stored(host: Host) -> str:
    return host.path("secrets", "store", NAME).read_text()


def test_every_declared_secret_has_its_class() -> None:
    found = {spec.name: spec.rotation for spec in KNOWN}
    assert {name for name, kind in found.items() if kind == "data"} == {
        *("MLFLOW_CRYPTO_KEK_PASSPHRASE", "PHOENIX_SECRET")
    }
    assert found["MLFLOW_FLASK_SERVER_SECRET_KEY"] == "logout"
    assert found["PKI_ROOT_PASSPHRASE"] == "kit"
    assert found["VERIFY_MLFLOW_PASSWORD"] == found["DB_MLFLOW"] == "free"


def test_without_a_name_only_what_nobody_notices_is_chosen() -> None:
    assert {spec.rotation for spec in rotation.chosen(KNOWN, [])} == {"free"}
    both = rotation.chosen(KNOWN, ["logout", NAME])
    assert NAME in {spec.name for spec in both}
    assert {spec.rotation for spec in both} == {"logout", "free"}


def test_what_cannot_be_chosen_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        rotation.chosen(KNOWN, ["DB_PHONIX", "kit", "all"])
    hints = [problem.hint for problem in refused.value.problems]
    assert "Did you mean DB_PHOENIX?" in hints[0]
    assert "pki.rotate" in hints[1]
    assert hints[2].startswith("Known: ")


def test_value_is_drawn_once_and_comes_into_use_by_one_rename(host: Host) -> None:
    before = stored(host)
    rotation.draw(host, [SPEC])
    new = rotation.drawn(host)[NAME]
    rotation.draw(host, [SPEC])
    assert rotation.drawn(host)[NAME] == new
    assert stored(host) == before
    rotation.commit(host, NAME)
    assert stored(host) == new.reveal()
    assert rotation.replaced(host)[NAME].reveal() == before
    assert rotation.under_way(host) == [NAME]
    rotation.finish(host, [NAME], now())
    assert rotation.under_way(host) == []
    files = [path for path in host.path("secrets").rglob("*") if path.is_file()]
    assert not [path for path in files if path.stat().st_mode & 0o077]
    assert not [path for path in files if before in path.read_text()]


def test_unknown_and_absent_secret_is_not_drawn(host: Host) -> None:
    rotation.draw(host, [SecretSpec(name="EXTRA_NOT_THERE_KEY")])
    assert rotation.under_way(host) == []


CALLS = ("replace", "unlink", "chmod", "fsync", "mkdir")


def rotate(host: Host) -> None:
    rotation.draw(host, [SPEC])
    for name in rotation.drawn(host):
        rotation.commit(host, name)
    rotation.finish(host, rotation.replaced(host), now())


def killing(monkeypatch: pytest.MonkeyPatch, left: int) -> Callable[[], int]:
    """Every call that changes the disk counts; the one after `left` is never made."""
    count = 0

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*given: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count > left:
                raise Killed
            return real(*given, **named)

        monkeypatch.setattr(os, name, call)

    for name in CALLS:
        wrap(name)
    return lambda: count


def test_killed_at_each_step_the_next_run_ends_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as counted:
        steps = killing(counted, 1000)
        rotate(host)
        total = steps()
    assert total > 8
    for left in range(total):
        before = stored(host)
        with monkeypatch.context() as killed:
            killing(killed, left)
            with pytest.raises(Killed):
                rotate(host)
        assert stored(host)
        begun = rotation.under_way(host)
        rotate(host)
        assert rotation.under_way(host) == []
        assert stored(host) != before, (left, begun)
        rows = {row.name: row for row in rotation.status(host, KNOWN)}
        assert rows[NAME].rotated
        assert not rows[NAME].state


def test_status_never_tells_a_value(host: Host) -> None:
    rotation.draw(host, [SPEC])
    rows = rotation.status(host, KNOWN)
    told = repr(rows) + repr([row.as_dict() for row in rows])
    assert not [v for v in vault.open_store(host, PLAN).values() if v.reveal() in told]
    assert next(row for row in rows if row.name == NAME).state == "under way"
