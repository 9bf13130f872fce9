"""checklist.md: the lines that are checked, for people; this is its only reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bundle.checks.model import GROUPS

PATH = Path(__file__).resolve().parents[2] / "checklist.md"
_LINE = re.compile(r"^\| `(?P<id>[a-z0-9-]+)` \| (?P<ko>.+?) \| (?P<en>.+?) \|$")
_HEAD = "| id | 항목 | line |"
_WORDS = {
    "passed": "통과 · passed",
    "failed": "**실패 · FAILED**",
    "not_applicable": "해당 없음 · n/a",
}


def read(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Every line as (id, group, title), in the order of the file."""
    lines, group = [], ""
    headings = {f"## {title['ko']} · {title['en']}": name for name, title in GROUPS.items()}
    for line in text.splitlines():
        if line.startswith("## "):
            group = headings.get(line, "")
        elif group and (match := _LINE.match(line)):
            lines.append((match["id"], str(group), {"ko": match["ko"], "en": match["en"]}))
    return lines


def filled(text: str, found: dict[str, Any]) -> str:
    """The checklist with what was found beside each line, and with the run in its head."""
    results = {result["id"]: result for result in found["results"]}
    out: list[str] = []
    in_table = False
    for line in text.splitlines():
        if line == _HEAD:
            in_table = True
            out.append("| id | 항목 | line | 결과 · result | 시각 · at | 근거 · evidence |")
        elif in_table and line.startswith("| ---"):
            out.append("| --- | --- | --- | --- | --- | --- |")
        elif in_table and (match := _LINE.match(line)):
            out.append(line + _cells(results.get(match["id"])))
        else:
            in_table = False
            out.append(line)
    return "\n".join([out[0], "", *_facts(found), *out[1:]]) + "\n"


def _facts(found: dict[str, Any]) -> list[str]:
    summary = found["summary"]
    counts = ", ".join(f"{_WORDS[status]} {summary[status]}" for status in _WORDS)
    whole = "" if found["complete"] else " · **불완전 · INCOMPLETE**"
    return [
        f"{found['site']} · tracking-bundle {found['bundle']['version']} · sha256 `{found['bundle']['sha256']}`  ",
        f"{found['started']} – {found['finished']} · {counts}{whole}",
    ]


def _cells(result: dict[str, Any] | None) -> str:
    if result is None:
        return " – | – | 실행하지 않음 · not run |"
    evidence = "; ".join(result["evidence"]).replace("|", "\\|").replace("\n", " ")
    return f" {_WORDS[result['status']]} | {result['at']} | {evidence} |"
