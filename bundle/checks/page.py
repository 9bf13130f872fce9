"""The report as one page that needs nothing else: Korean and English, folded evidence, no script, prints on A4."""

from __future__ import annotations

from html import escape
from typing import Any

from bundle.checks.model import GROUPS

STYLE = """
:root { --good: #166534; --bad: #b00020; --quiet: #555; }
body { font: 16px/1.5 system-ui, 'Noto Sans CJK KR', sans-serif; color: #1a1a1a; background: #fff;
  margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .3rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .4rem .5rem;
  border-bottom: 1px solid #ccc; }
th:nth-child(1) { width: 6rem; } th:nth-child(2) { width: 13rem; } th:nth-child(4) { width: 4rem; }
.passed { color: var(--good); font-weight: 600; } .failed { color: var(--bad); font-weight: 700; }
.not_applicable, .quiet { color: var(--quiet); } code { font-size: .9em; overflow-wrap: anywhere; }
details pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: .5rem; margin: .3rem 0 0; }
fieldset { border: 0; padding: 0; margin: .5rem 0; }
body:has(#en:checked) .ko, body:has(#ko:checked) .en { display: none; }
@page { size: A4; margin: 15mm; }
@media print {
  body { margin: 0; max-width: none; font-size: 10pt; } fieldset { display: none; } tr { break-inside: avoid; }
}
"""
WORDS = {
    "passed": ("통과", "passed"),
    "failed": ("실패", "failed"),
    "not_applicable": ("해당 없음", "not applicable"),
}


def both(korean: str, english: str) -> str:
    """A text in both languages, of which the page shows the chosen one."""
    return (
        f'<span class="ko" lang="ko">{escape(korean)}</span>'
        f'<span class="en" lang="en">{escape(english)}</span>'
    )


def _row(result: dict[str, Any]) -> str:
    status = result["status"]
    title = both(result["title"]["ko"], result["title"]["en"])
    lines = escape("\n".join(result["evidence"]))
    opened = " open" if status == "failed" else ""
    evidence = f"<details{opened}><summary>{both('근거', 'evidence')}</summary><pre>{lines}</pre></details>"
    hint = f"<p><strong>{both('조치', 'what to do')}:</strong> {escape(result['hint'])}</p>"
    return (
        f'<tr><td class="{status}">{both(*WORDS[status])}</td>'
        f"<td><code>{escape(result['id'])}</code></td><td>{title}{hint if result['hint'] else ''}{evidence}</td>"
        f'<td class="quiet">{result["seconds"]:.1f} s</td></tr>'
    )


def _group(title: dict[str, str], results: list[dict[str, Any]]) -> str:
    heads = (
        both("결과", "result"),
        both("항목", "id"),
        both("내용", "check"),
        both("시간", "time"),
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    rows = "\n".join(map(_row, results))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
    return f"<h2>{both(title['ko'], title['en'])}</h2>\n{table}"


def html(found: dict[str, Any]) -> str:
    """The page for what verify.json says."""
    summary = found["summary"]
    counts = ", ".join(
        f'<span class="{status}">{summary[status]} {both(*WORDS[status])}</span>'
        for status in WORDS
    )
    whole = (
        "" if found["complete"] else f' <span class="failed">{both("불완전", "incomplete")}</span>'
    )
    groups = "\n".join(
        _group(title, rows)
        for group, title in GROUPS.items()
        if (rows := [result for result in found["results"] if result["group"] == group])
    )
    bundle = found["bundle"]
    facts = f"{found['site']} · tracking-bundle {bundle['version']} · {found['started']} – {found['finished']}"
    return f"""<!doctype html>
<html lang="ko">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>점검 결과 · Checklist · {escape(found["site"])}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<fieldset><legend class="quiet">언어 · Language</legend>
<label><input type="radio" name="lang" id="ko" checked> 한국어</label>
<label><input type="radio" name="lang" id="en"> English</label></fieldset>
<h1>{both("폐쇄망 배포 점검 결과", "Closed-network deployment checklist")}</h1>
<p>{counts}{whole}</p>
<p class="quiet">{escape(facts)}<br>sha256 <code>{escape(bundle["sha256"])}</code></p>
{groups}
</main>
</body>
</html>
"""
