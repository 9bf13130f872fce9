"""The forms of a report, and how they come to lie in their folder."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bundle.checks import CHECKS
from bundle.checks.checklist import PATH
from bundle.checks.report import Report, write_reports
from bundle.errors import ConfigError
from bundle.model import Result, Status
from bundle.words import choose

NASTY = 'a <b> & "c" | d\n두 번째 줄 \x07'
CHECKLIST = PATH.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _english() -> None:
    choose("en")


def result(index: int, status: Status) -> Result:
    check = CHECKS[index]
    return Result(
        id=check.id,
        group=check.group,
        title=check.title,
        status=status,
        seconds=1.25,
        at="2026-11-21T00:00:00+00:00",
        needs=check.needs,
        evidence=(NASTY,),
        hint="Mend <it>." if status == "failed" else "",
    )


def report(folder: Path, *, complete: bool = True) -> Report:
    return Report(
        version="1.2.3",
        sha256="ab" * 32,
        site="lab.internal",
        started="2026-11-21T00:00:00+00:00",
        finished="2026-11-21T00:00:30+00:00",
        complete=complete,
        results=(result(0, "passed"), result(1, "failed"), result(2, "not_applicable")),
        folder=folder,
    )


def test_json_is_the_one_of_the_interface(tmp_path: Path) -> None:
    found = json.loads(report(tmp_path).text("json"))
    assert list(found) == [
        "bundle",
        "site",
        "started",
        "finished",
        "complete",
        "summary",
        "results",
    ]
    assert found["bundle"] == {"version": "1.2.3", "sha256": "ab" * 32}
    assert found["summary"] == {"passed": 1, "failed": 1, "not_applicable": 1}
    assert list(found["results"][0]) == [
        "id",
        "group",
        "title",
        "status",
        "needs",
        "seconds",
        "at",
        "evidence",
        "hint",
    ]


@pytest.mark.parametrize("complete", [True, False])
def test_junit_parses_and_counts(tmp_path: Path, complete: bool) -> None:
    suite = ET.fromstring(report(tmp_path, complete=complete).text("junit"))
    cases = suite.findall("testcase")
    assert int(suite.attrib["tests"]) == len(cases) == (3 if complete else 4)
    failures = suite.findall("testcase/failure")
    assert int(suite.attrib["failures"]) == len(failures) == (1 if complete else 2)
    assert 'a <b> & "c" | d' in (failures[0].text or "")


class Page(HTMLParser):
    """What a page refers to, and whether its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [str(value) for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "img", "iframe")
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    text = report(tmp_path).text("html")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.references == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert "<b>" not in text
    assert "Mend &lt;it&gt;." in text


def test_table_shows_evidence_of_red_lines_only(tmp_path: Path) -> None:
    lines = report(tmp_path, complete=False).text().splitlines()
    assert sum("두 번째 줄" in line for line in lines) == 1
    assert lines[-1] == "1 passed, 1 FAILED · INCOMPLETE"


def test_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'yaml' is not a format"):
        report(tmp_path).text("yaml")


def test_files_are_written_and_nothing_is_left_over(tmp_path: Path) -> None:
    folder = tmp_path / "폴더 하나" / "reports"
    made = report(folder)
    for _ in range(2):
        write_reports(made, CHECKLIST)
    names = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert names == dict.fromkeys(
        ("checklist.md", "verify.xml", "verify.html", "verify.json"), 0o644
    )
    found: dict[str, Any] = json.loads((folder / "verify.json").read_text("utf-8"))
    assert found["results"][1]["status"] == "failed"


def test_filled_checklist_keeps_its_tables(tmp_path: Path) -> None:
    write_reports(report(tmp_path, complete=False), CHECKLIST)
    text = (tmp_path / "checklist.md").read_text("utf-8")
    assert "INCOMPLETE" in text
    rows = [line for line in text.splitlines() if re.match(r"\| `[a-z0-9-]+` \|", line)]
    assert len(rows) == len(CHECKS)
    cells = {len(re.split(r"(?<!\\)\|", row)) for row in rows}
    assert cells == {8}
    assert sum("실행하지 않음" in row for row in rows) == len(CHECKS) - 3
    assert sum("실패 · FAILED" in row for row in rows) == 1
