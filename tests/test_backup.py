"""What a point goes on from, what opens the site, and what stops it."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest

from bundle import auditlog, backup, ledger, points
from bundle.config import parse_site
from bundle.errors import CommandError
from bundle.host import Host
from bundle.plan import Plan, make_plan
from bundle.repository import Backup
from tests.pointed import NOON, make_point


def test_chain_goes_on_under_the_same_full_backup_only() -> None:
    last = make_point(3, database="20261121-110000F_20261121-120000I")
    rows = points.rows(last.packs)
    assert backup.chain_for((last,), "20261121-110000F_20261121-130000I", full=False) == rows
    assert backup.chain_for((last,), "20261121-110000F", full=False) == rows
    assert backup.chain_for((last,), "20261128-110000F", full=False) == []
    assert backup.chain_for((last,), "20261121-110000F", full=True) == []
    assert backup.chain_for((), "20261121-110000F", full=False) == []


def test_what_opens_the_site_is_the_same_bytes_while_nothing_changes(tmp_path: Path) -> None:
    host = Host(root=tmp_path)
    (tmp_path / "secrets/store").mkdir(parents=True)
    (tmp_path / "site.toml").write_text("")
    (tmp_path / "secrets/store/A").write_text("a")
    first = backup.opener(host)
    (tmp_path / "site.toml").touch()
    assert backup.opener(host) == first
    (tmp_path / "secrets/store/A").write_text("b")
    assert backup.opener(host) != first


def test_point_is_not_made_while_secrets_change(tmp_path: Path) -> None:
    """Rows that are encrypted by one key and the other key beside them would be no point."""
    host = Host(root=tmp_path)
    store = tmp_path / "secrets/store"
    store.mkdir(parents=True)
    (store / "PHOENIX_SECRET").write_text("a")
    opens = backup.opener(host)
    backup.see_steady(host, opens)
    (store / "PHOENIX_SECRET").write_text("b")
    with pytest.raises(CommandError):
        backup.see_steady(host, opens)
    opens = backup.opener(host)
    (tmp_path / "secrets/next").mkdir()
    (tmp_path / "secrets/next/PHOENIX_SECRET").write_text("c")
    with pytest.raises(CommandError):
        backup.see_steady(host, opens)


def test_names_of_points_are_names_of_places_in_the_log() -> None:
    assert re.fullmatch(r"cp-20261121T120000Z-[0-9a-f]{4}", backup.new_id(NOON))
    assert len({backup.new_id(NOON) for _ in range(50)}) > 40


def test_backup_with_a_wrong_page_is_no_base_of_a_point() -> None:
    good = Backup(label="1F", at=NOON, start="", stop="", size=1, stored=1, bad=False)
    backup.see_pages(good)
    with pytest.raises(CommandError, match="1F"):
        backup.see_pages(Backup(label="1F", at=NOON, start="", stop="", size=1, stored=1, bad=True))


def plan_with(text: str) -> Plan:
    site = parse_site(f'domain = "lab.internal"\n{text}')
    return make_plan(site, site_id="0a1b2c3d", version="1.2.3")


def test_few_old_points_go_by_themselves_and_many_or_held_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    host, plan = Host(root=tmp_path), plan_with("")
    auditlog.prepare(host, 10005)
    days = [*(backup.now() - datetime.timedelta(days=n) for n in range(40, -1, -1))]
    for number, at in enumerate(days, 1):
        ledger.append(host, plan.site, points.record(make_point(number, at)))
    gone = backup.going(plan, host)
    assert [one.id for one in gone] == [f"cp-{n}" for n in range(1, 27 + 1)]
    assert backup.is_much(plan, host, gone)
    assert not backup.is_much(plan, host, gone[:12])
    assert not backup.is_much(plan, host, ())
    held = plan_with('[retention]\nhold = "case 17"')
    assert backup.going(held, host) == ()
    kept = plan_with("[backup]\nkeep_days = 60")
    assert backup.going(kept, host) == ()


def test_backups_that_no_point_stands_on_go_but_the_newest() -> None:
    def known(*labels: str, bad: str = "") -> list[Backup]:
        return [
            Backup(label=one, at=NOON, start="", stop="", size=1, stored=1, bad=one == bad)
            for one in labels
        ]

    on_one = [make_point(1, database="1F_2I")]
    assert backup.useless(known("1F", "1F_2I", "3F"), on_one) == []
    assert backup.useless(known("0F", "0F_1I", "1F", "1F_2I", "3F", "4F"), on_one) == ["0F", "3F"]
    assert backup.useless(known("0F"), []) == []
    assert backup.useless(known("0F", "0F_1I"), []) == []
    assert backup.useless(known("1F", "1F_2I", "1F_3I", "1F_4I", bad="1F_3I"), on_one) == ["1F_3I"]
    assert backup.useless(known("1F", "1F_2I", "1F_3I", bad="1F_3I"), on_one) == []
    assert backup.useless(known("1F", "1F_2I", "3F", "4F", bad="3F"), on_one) == ["3F"]
    assert backup.useless(known("1F", "1F_2I", "4F", bad="1F"), on_one) == []
