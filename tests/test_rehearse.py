"""The rehearsal's own decisions; the closed host itself is tried in tests/integration and tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle import rehearse
from bundle.closed import ClosedHost
from bundle.errors import ConfigError
from bundle.rehearse import Rehearsal, Row


def wanted(tmp_path: Path) -> Rehearsal:
    return Rehearsal(
        bundle=tmp_path / "bundle.tar",
        fingerprint="0" * 64,
        folder=tmp_path / "host",
        cache=tmp_path / "cache",
        reports=tmp_path / "reports",
    )


def test_names_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bundle\.tar") as error:
        rehearse.rehearse(wanted(tmp_path))
    assert "invoke bundle" in str(error.value)
    assert not (tmp_path / "host").exists()


def test_times_a_step_and_keeps_what_was_found() -> None:
    rows: list[Row] = []
    with rehearse.timed(rows, "look") as found:
        found.append("two lines")
    assert [(row.step, row.found) for row in rows] == [("look", "two lines")]


def test_leaves_no_row_for_a_step_that_failed() -> None:
    rows: list[Row] = []
    with pytest.raises(OSError, match="gone"), rehearse.timed(rows, "look"):
        raise OSError("gone")
    assert rows == []


def test_proves_it_closed_before_anything_goes_in() -> None:
    acts = [act for _, _, act in rehearse.STEPS]
    assert acts[0] is rehearse.assert_closed
    assert (
        acts.index(rehearse.bootstrap) < acts.index(rehearse.install) < acts.index(rehearse.verify)
    )


def test_brings_reports_back_where_there_are_some(tmp_path: Path) -> None:
    host = ClosedHost(folder=tmp_path / "host")
    rehearse.bring_back(host, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()
    inside = host.root / "var/lib/tracking-bundle/reports"
    inside.mkdir(parents=True)
    (inside / "verify.json").write_text("{}", "utf-8")
    rehearse.bring_back(host, tmp_path / "reports")
    assert (tmp_path / "reports/verify.json").read_text("utf-8") == "{}"


@pytest.mark.parametrize("note", ["", "12", "1 0", "not a number", "999999999 1"])
def test_takes_a_stale_note_for_a_host_that_is_off(tmp_path: Path, note: str) -> None:
    (tmp_path / "pid").write_text(note, "ascii")
    assert ClosedHost(folder=tmp_path).pid is None
