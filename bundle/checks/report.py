"""The outcome of a run of checks, and its forms; the page and the filled checklist have modules of their own."""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from bundle.checks import checklist, page
from bundle.checks.model import GROUPS
from bundle.errors import ConfigError
from bundle.host import make_folder
from bundle.model import Result
from bundle.words import say

FORMATS = ("text", "json", "junit", "html")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run of checks found; `complete` is False when it was cut short."""

    version: str
    sha256: str
    site: str
    started: str
    finished: str
    complete: bool
    results: tuple[Result, ...]
    folder: Path

    def count(self, status: str) -> int:
        """How many results have `status`."""
        return sum(result.status == status for result in self.results)

    @property
    def failed(self) -> int:
        """How many lines are red."""
        return self.count("failed")

    def as_dict(self) -> dict[str, Any]:
        """The outcome in the form of verify.json."""
        return {
            "bundle": {"version": self.version, "sha256": self.sha256},
            "site": self.site,
            "started": self.started,
            "finished": self.finished,
            "complete": self.complete,
            "summary": {
                status: self.count(status) for status in ("passed", "failed", "not_applicable")
            },
            "results": [result.as_dict() for result in self.results],
        }

    def text(self, form: str = "text") -> str:
        """The outcome as text, json, junit or html.

        Raises ConfigError for another form.
        """
        check_form(form)
        if form == "json":
            return json.dumps(self.as_dict(), ensure_ascii=False, indent=1)
        if form == "junit":
            return junit(self.as_dict())
        return page.html(self.as_dict()) if form == "html" else table(self)


def check_form(form: str) -> None:
    """See that there is such a form.

    Raises ConfigError.
    """
    if form not in FORMATS:
        raise ConfigError(
            f"{form!r} is not a format", where="--format", hint=f"Known: {', '.join(FORMATS)}."
        )


def _pad(text: str, columns: int) -> str:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return text + " " * max(0, columns - len(text) - wide)


def table(report: Report) -> str:
    """The outcome for a person at a terminal; evidence only where a line is red."""
    words = {
        "passed": say("passed", "통과"),
        "failed": say("FAILED", "실패"),
        "not_applicable": say("n/a", "해당 없음"),
    }
    lines: list[str] = []
    for group, title in GROUPS.items():
        rows = [result for result in report.results if result.group == group]
        if rows:
            lines += ["", say(title["en"], title["ko"])]
        for row in rows:
            title_text = say(row.title["en"], row.title["ko"])
            lines.append(f"  {_pad(words[row.status], 10)}{_pad(row.id, 23)}{title_text}")
            if row.status == "failed":
                lines += [f"             {line}" for line in row.evidence]
                lines.append(f"             {say('hint', '조치')}: {row.hint}")
    whole = "" if report.complete else " · " + say("INCOMPLETE", "불완전")
    done = f"{report.count('passed')} {words['passed']}, {report.failed} {words['failed']}"
    return "\n".join([*lines[1:], "", done + whole])


def junit(found: dict[str, Any]) -> str:
    """The outcome as JUnit XML."""
    results: Sequence[dict[str, Any]] = found["results"]
    failed = found["summary"]["failed"] + (0 if found["complete"] else 1)
    cases = []
    for result in results:
        head = f"<testcase classname={quoteattr(result['group'])} name={quoteattr(result['id'])}"
        inner = f"<system-out>{_xml(result['evidence'])}</system-out>"
        if result["status"] == "failed":
            inner = f"<failure message={quoteattr(_clean(result['hint']))}>{_xml(result['evidence'])}</failure>"
        elif result["status"] == "not_applicable":
            inner = f"<skipped message={quoteattr(_clean('; '.join(result['evidence'])))}/>"
        cases.append(f'{head} time="{result["seconds"]:.3f}">{inner}</testcase>')
    if not found["complete"]:
        text = '<failure message="interrupted before every check had run"/>'
        cases.append(f'<testcase classname="verify" name="complete" time="0">{text}</testcase>')
    head = f'<testsuite name="verify" tests="{len(cases)}" failures="{failed}" errors="0"'
    stamp = f'timestamp="{found["started"]}"'
    body = "\n".join(cases)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head} {stamp}>\n{body}\n</testsuite>\n'


def _clean(text: str) -> str:
    """`text` without the characters that XML cannot carry."""
    return "".join(char for char in text if char in "\t\n" or ord(char) >= 32)


def _xml(lines: Sequence[str]) -> str:
    return escape(_clean("\n".join(lines)))


def write_reports(report: Report, checklist_text: str) -> None:
    """Write all forms to the report's folder: built beside it first, verify.json moved last."""
    make_folder(report.folder, 0o755)
    found = report.as_dict()
    texts = {
        "checklist.md": checklist.filled(checklist_text, found),
        "verify.xml": junit(found),
        "verify.html": page.html(found),
        "verify.json": report.text("json") + "\n",
    }
    staging = Path(tempfile.mkdtemp(prefix=".verify-", dir=report.folder))
    try:
        for name, text in texts.items():
            file = staging / name
            file.write_text(text, encoding="utf-8")
            file.chmod(0o644)
        for name in texts:
            (staging / name).replace(report.folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
