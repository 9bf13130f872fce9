"""The lines of the CA: green on a right one, red for a planted defect."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from bundle import authority, certificates, pki
from bundle.checks import CHECKS
from bundle.checks.model import Stage
from bundle.checks.runner import Verdict, probe
from bundle.config import parse_site
from bundle.plan import make_plan
from tests.checks.authorities import AUTHORITY
from tests.checks.stages import make_stage

BY_ID = {check.id: check for check in CHECKS}
assert set(AUTHORITY) <= set(BY_ID)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = make_stage(tmp_path)
    (tmp_path / "secrets/gateway").mkdir(parents=True)
    authority.authorities(made.host, made.plan)
    pki.write_lists(made.host)
    return made


def look(stage: Stage, name: str) -> Verdict:
    return probe(stage, BY_ID[name])


def opened(stage: Stage) -> Stage:
    """The same on a site whose doors others can reach."""
    site = parse_site('domain = "lab.internal"\nbind = "10.0.0.5"')
    plan = make_plan(site, site_id="0a1b2c3d", version="1.2.3")
    return Stage(
        plan=plan, host=stage.host, release=stage.release, store=stage.store, notes=stage.notes
    )


def test_right_authority_is_green(stage: Stage) -> None:
    verdict = look(stage, "tls-authority")
    assert verdict.status == "passed"
    assert [line.split(":")[0] for line in verdict.evidence] == [
        *("root g1", "intermediate g1", "crl root g1", "crl")
    ]


@pytest.mark.parametrize(
    ("days", "named"),
    [(16, "crl: until"), (1095 - 14, "intermediate g1: until"), (3650 - 14, "root g1: until")],
)
def test_what_ends_soon_is_red(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, days: int, named: str
) -> None:
    later = certificates.now() + datetime.timedelta(days=days)
    monkeypatch.setattr(certificates, "now", lambda: later)
    verdict = look(stage, "tls-authority")
    assert verdict.status == "failed"
    assert named in "\n".join(verdict.evidence)


@pytest.mark.parametrize("lost", ["root.crt", "intermediate.crt"])
def test_lost_certificate_is_red(stage: Stage, lost: str) -> None:
    stage.host.path("pki", "g1", lost).unlink()
    verdict = look(stage, "tls-authority")
    assert verdict.status == "failed"
    assert "probe broke" not in verdict.evidence[0]


def test_no_authority_is_red(tmp_path: Path) -> None:
    assert look(make_stage(tmp_path), "tls-authority").evidence == ("no CA in pki/",)


def test_root_key_on_an_open_host_is_red_until_it_is_away(stage: Stage) -> None:
    assert look(stage, "tls-root-key").status == "not_applicable"
    verdict = look(opened(stage), "tls-root-key")
    assert verdict.status == "failed"
    assert "recovery.create" in verdict.evidence[0]
    authority.put_root_key_away(stage.host)
    for one in (stage, opened(stage)):
        assert look(one, "tls-root-key").status == "passed"


def test_passphrase_that_was_left_behind_is_red(stage: Stage) -> None:
    for path in authority.root_key_files(stage.host)[:-1]:
        path.unlink()
    assert look(opened(stage), "tls-root-key").status == "failed"
