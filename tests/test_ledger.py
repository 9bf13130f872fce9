"""The ledger of points: signed, chained, and no older than the audit log knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import auditlog, ledger, points
from bundle.config import SiteConfig, parse_site
from bundle.errors import IntegrityError
from bundle.host import Host
from bundle.words import choose
from tests.pointed import make_point

SITE = parse_site('domain = "lab.internal"')


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    choose("en")
    monkeypatch.setattr(os, "chown", lambda *_: None)
    made = Host(root=tmp_path)
    auditlog.prepare(made, 10005)
    yield made
    choose("")


def write(host: Host, count: int = 3, site: SiteConfig = SITE) -> Path:
    for number in range(1, count + 1):
        ledger.append(host, site, points.record(make_point(number)))
    return next(ledger.folder(host, site).glob("*.jsonl"))


def test_points_are_read_back_and_their_heads_stand_in_the_audit_log(host: Host) -> None:
    assert ledger.check(host, SITE) == ()
    write(host)
    assert [point.id for point in ledger.check(host, SITE)] == ["cp-1", "cp-2", "cp-3"]
    assert sorted(ledger.heads(host)) == [1, 2, 3]


def test_ledger_lies_where_the_site_wants_its_backups(host: Host, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    site = parse_site(f'domain = "lab.internal"\n[backup]\nfolder = "{tmp_path}/disk"')
    write(host, site=site)
    assert (tmp_path / "disk/ledger/000000000001.jsonl").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"objects":2', b'"objects":3'), (b"cp-2", b"cp-7"), (b'"sig":"M', b'"sig":"N')],
)
def test_changed_line_is_named(host: Host, old: bytes, new: bytes) -> None:
    path = write(host)
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(IntegrityError, match=r"line [123]"):
        ledger.check(host, SITE)


def test_ledger_that_was_put_back_to_an_older_state_is_noticed(host: Host) -> None:
    path = write(host, 2)
    older = path.read_bytes()
    ledger.append(host, SITE, points.record(make_point(3)))
    path.write_bytes(older)
    with pytest.raises(IntegrityError, match="cut off after line 2"):
        ledger.check(host, SITE)
    path.unlink()
    with pytest.raises(IntegrityError):
        ledger.check(host, SITE)


def test_after_a_restore_the_next_point_starts_anew(host: Host) -> None:
    write(host, 1)
    assert not ledger.restored_since(host, SITE)
    ledger.append(host, SITE, {"kind": "restored", "point": "cp-1"})
    ledger.append(
        host, SITE, {"kind": "proof", "point": "cp-1", "level": 0, "good": True, "at": ""}
    )
    assert ledger.restored_since(host, SITE)
    ledger.append(host, SITE, points.record(make_point(2)))
    assert not ledger.restored_since(host, SITE)


def test_new_ledger_is_begun_when_that_is_asked_for_only(host: Host) -> None:
    write(host, 3).unlink()
    with pytest.raises(IntegrityError):
        ledger.check(host, SITE)
    assert ledger.check(host, SITE, anew=True) == ()
    path = write(host, 1)
    assert [point.id for point in ledger.check(host, SITE)] == ["cp-1"]
    path.unlink()
    with pytest.raises(IntegrityError):
        ledger.check(host, SITE)
