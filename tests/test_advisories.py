"""Known vulnerabilities out of a given database: matching by each ecosystem's order, the report, wrong files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bundle import advisories, versions
from bundle.errors import ConfigError
from tests.supplies import INVENTORY

DEBIAN = (
    *(("1.0", "1.0", 0), ("1.0~rc1", "1.0", -1), ("1.0", "1.0+b1", -1), ("1:0.1", "2.0", 1)),
    *(("1.0-1", "1.0-1+deb13u1", -1), ("1.0-1", "1.0-1~bpo", 1), ("1.10", "1.9", 1)),
    *(
        ("1.0a", "1.0", 1),
        ("1.0-1.1", "1.0-1", 1),
        ("0:1", "1", 0),
        ("1.0.", "1.0a", 1),
        ("01", "1", 0),
    ),
)
GO = (
    *(("v1.2.3", "1.2.3", 0), ("v1.2.3-rc1", "v1.2.3", -1), ("go1.26.11", "1.26.2", 1)),
    *(
        ("1.21rc2", "1.21.0", -1),
        ("v0.0.0-20260212201848-7aac2a2c5b7c", "0.0.0-20250101000000-a", 1),
    ),
    *(
        ("1.0.0-alpha.1", "1.0.0-alpha.beta", -1),
        ("1.0.0-9", "1.0.0-10", -1),
        ("1.0.0+incompatible", "1.0.0", 0),
    ),
)
PYTHON = (("1.0", "1.0.0", 0), ("1.0rc1", "1.0", -1), ("1.0.post1", "1.0", 1), ("2!0", "10", 1))


@pytest.mark.parametrize(("one", "other", "order"), DEBIAN)
def test_debian_order(one: str, other: str, order: int) -> None:
    assert versions.compare_debian(one, other) == order
    assert versions.compare_debian(other, one) == -order


@pytest.mark.parametrize(("one", "other", "order"), GO)
def test_go_order(one: str, other: str, order: int) -> None:
    assert versions.compare_go(one, other) == order
    assert versions.compare_go(other, one) == -order


@pytest.mark.parametrize(("one", "other", "order"), PYTHON)
def test_python_order(one: str, other: str, order: int) -> None:
    assert versions.compare_python(one, other) == order
    assert versions.compare_python(other, one) == -order


def record(
    ecosystem: str, name: str, *events: dict[str, str], name_of: str = "CVE-2026-1", **more: Any
) -> dict[str, Any]:
    """A record of one package with one range."""
    kind = "SEMVER" if ecosystem == "Go" else "ECOSYSTEM"
    affected = {
        "package": {"ecosystem": ecosystem, "name": name},
        "ranges": [{"type": kind, "events": list(events)}],
    }
    base = {
        "id": name_of,
        "modified": "2026-10-01T00:00:00Z",
        "summary": "a hole",
        "affected": [affected],
    }
    return {**base, **more}


def database(path: Path, *records: dict[str, Any]) -> Path:
    """A zip of records, as osv.dev exports it."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, one in enumerate(records):
            archive.writestr(f"{one['id']}-{number}.json", json.dumps(one))
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_zip_is_refused_by_name(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "osv.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.json", json.dumps(record("Go", "a")) * 50)
    data = bytearray(path.read_bytes())
    for place in range(36, 70):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"osv\.zip: cannot be read"):
        advisories.look_up(INVENTORY, path)


@pytest.mark.parametrize(
    ("ecosystem", "name", "events", "found"),
    [
        ("PyPI", "Arize_Phoenix", [{"introduced": "0"}, {"fixed": "20.27"}], True),
        ("PyPI", "arize-phoenix", [{"introduced": "0"}, {"fixed": "20.26.1"}], False),
        ("PyPI", "arize-phoenix", [{"introduced": "21"}], False),
        ("PyPI", "arize-phoenix", [{"introduced": "0"}, {"last_affected": "20.26.1"}], True),
        ("PyPI", "arize-phoenix", [{"introduced": "0"}, {"last_affected": "20.26"}], False),
        (
            "PyPI",
            "arize-phoenix",
            [{"fixed": "1"}, {"introduced": "0"}, {"introduced": "20"}, {"fixed": "30"}],
            True,
        ),
        ("Debian:13", "gcc-14", [{"introduced": "0"}, {"fixed": "14.2.0-20"}], True),
        ("Debian:13", "gcc-14", [{"introduced": "0"}, {"fixed": "14.2.0-19"}], False),
        ("Debian:12", "gcc-14", [{"introduced": "0"}], False),
        ("Debian:13", "libstdc++6", [{"introduced": "0"}], False),
        ("Go", "github.com/minio/minio", [{"introduced": "0"}], True),
        ("Go", "stdlib", [{"introduced": "1.26.0"}, {"fixed": "1.26.12"}], True),
        ("Go", "stdlib", [{"introduced": "0"}, {"fixed": "1.25.3"}], False),
        ("npm", "arize-phoenix", [{"introduced": "0"}], False),
    ],
)
def test_matching(
    tmp_path: Path, ecosystem: str, name: str, events: list[dict[str, str]], found: bool
) -> None:
    path = database(tmp_path / "all.zip", record(ecosystem, name, *events))
    _, findings = advisories.look_up(INVENTORY, path)
    assert bool(findings) is found


def test_listed_version_counts_without_a_range(tmp_path: Path) -> None:
    one = record("PyPI", "arize-phoenix")
    one["affected"][0]["versions"] = ["20.26.1"]
    assert advisories.look_up(INVENTORY, database(tmp_path / "a.zip", one))[1]


def test_withdrawn_record_does_not_count(tmp_path: Path) -> None:
    one = record("PyPI", "arize-phoenix", {"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z")
    assert advisories.look_up(INVENTORY, database(tmp_path / "a.zip", one))[1] == ()


def test_records_of_one_hole_become_one_finding(tmp_path: Path) -> None:
    events = ({"introduced": "0"}, {"fixed": "20.27"})
    one = record("PyPI", "arize-phoenix", *events, name_of="GHSA-x", aliases=["CVE-2026-9"])
    other = record("PyPI", "arize-phoenix", *events, name_of="PYSEC-1", aliases=["CVE-2026-9"])
    one["database_specific"] = {"severity": "HIGH"}
    _, (found,) = advisories.look_up(INVENTORY, database(tmp_path / "a.zip", other, one))
    assert (found.id, found.severity, found.fixed) == ("CVE-2026-9", "HIGH", "20.27")
    assert found.also == ("GHSA-x", "PYSEC-1")
    assert found.places == ("phoenix",)


def test_hole_that_a_patch_of_ours_closes_is_said_to_be_closed_and_no_other(tmp_path: Path) -> None:
    minio = ("Go", "github.com/minio/minio", {"introduced": "0"})
    by_alias = record(*minio, name_of="GO-2026-1", aliases=["CVE-2026-1"])
    by_name = record(*minio, name_of="GHSA-1-2-3")
    other = record(*minio, name_of="GO-2026-2", aliases=["CVE-2026-2"])
    path = database(tmp_path / "a.zip", by_alias, by_name, other)
    known, findings = advisories.look_up(INVENTORY, path)
    assert {one.id: one.patched for one in findings} == {
        "CVE-2026-1": ("patches/1.patch",),
        "GHSA-1-2-3": ("patches/1.patch",),
        "CVE-2026-2": (),
    }
    found = advisories.report(INVENTORY, known, findings)
    assert "2 of them are closed by patches of ours" in found["statement"]
    assert advisories.page(found).count("| closed here: patches/1.patch |") == 2


def test_folder_of_zips_and_records_is_one_database_in_any_order(tmp_path: Path) -> None:
    folder = tmp_path / "osv"
    (folder / "Go").mkdir(parents=True)
    database(folder / "Go" / "all.zip", record("Go", "stdlib", {"introduced": "0"}))
    (folder / "z.json").write_text(json.dumps(record("PyPI", "x", {"introduced": "0"})))
    known, findings = advisories.look_up(INVENTORY, folder)
    assert known.records == {"Go": 1, "PyPI": 1}
    assert len(findings) == 1
    assert advisories.look_up(INVENTORY, folder) == (known, findings)


def test_report_names_its_date_and_what_was_not_checked(tmp_path: Path) -> None:
    path = database(tmp_path / "a.zip", record("PyPI", "arize-phoenix", {"introduced": "0"}))
    report = advisories.report(INVENTORY, *advisories.look_up(INVENTORY, path))
    assert report["database"]["as_of"] == "2026-10-01T00:00:00Z"
    assert "no record for Debian, Go: those packages were not checked" in report["statement"]
    page = advisories.page(report)
    assert "| unknown | CVE-2026-1 | arize-phoenix | 20.26.1 | — | phoenix | a hole |" in page
    assert str(tmp_path) not in json.dumps(report)


def test_report_without_a_database_says_so_in_plain_words() -> None:
    report = advisories.report(INVENTORY, None, ())
    assert report["database"] is None
    assert report["findings"] is None
    assert "No advisory database was given" in report["statement"]
    assert "Nothing was checked" in advisories.page(report)


@pytest.mark.parametrize(
    "raw",
    [
        "{",
        "[]",
        '{"id": "x"}',
        '{"id": 1, "modified": ""}',
        '{"id": "x", "modified": "", "affected": 1}',
        '{"id": "x", "modified": "", "affected": [1]}',
        '{"id": "x", "modified": "", "affected": [{"package": {"ecosystem": "Go", "name": "stdlib"}, "ranges": 1}]}',
        "[" * 100_000,
    ],
)
def test_bad_record_is_a_configuration_error_that_names_it(tmp_path: Path, raw: str) -> None:
    (tmp_path / "bad.json").write_text(raw)
    with pytest.raises(ConfigError, match=r"bad\.json"):
        advisories.look_up(INVENTORY, tmp_path)


def test_bad_files_are_configuration_errors(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("not a zip")
    (tmp_path / "empty").mkdir()
    whole = database(
        tmp_path / "whole.zip", *(record("Go", f"m{n}", {"introduced": "0"}) for n in range(9))
    )
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-40])
    for name in ("absent", "text.zip", "cut.zip"):
        with pytest.raises(ConfigError):
            advisories.check(str(tmp_path / name))
    for name in ("text.zip", "empty", "cut.zip", "absent"):
        with pytest.raises(ConfigError):
            advisories.look_up(INVENTORY, tmp_path / name)
    advisories.check("")


def test_damaged_zip_is_a_configuration_error(tmp_path: Path) -> None:
    path = database(tmp_path / "a.zip", record("Go", "stdlib", {"introduced": "0"}))
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError):
        advisories.look_up(INVENTORY, path)
