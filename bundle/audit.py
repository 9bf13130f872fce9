"""The audit log at work: collect what the gateway wrote, copy the head away, let old files go, show what was done."""

from __future__ import annotations

import datetime
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundle import auditlog, gateway_log
from bundle.chained import Head, digest_of, fingerprint, parse_line
from bundle.config import SiteConfig
from bundle.errors import CommandError, ConfigError
from bundle.host import Host, write_file
from bundle.run import run
from bundle.words import say

BATCH = 1 << 20
COPY_WITHIN_S = 30
SECRETIVE = re.compile(r"pass|secret|token|key\b", re.IGNORECASE)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


# --- the gateway's lines ----------------------------------------------------------------------------------------------


def collect(host: Host) -> int:
    """Chain what the gateway has written since the last time; the number of lines.

    Killed anywhere and run again, it takes each line once: how far it came stands in the chained lines themselves.
    """
    taken = 0
    with auditlog.locked(host, "collect"):
        seq, places = positions(host)
        spool = auditlog.folder(host, auditlog.SPOOL)
        for path in sorted(spool.glob("*.jsonl")):
            now = datetime.datetime.now(datetime.timezone.utc)
            closed = gateway_log.is_closed(path.name, now)
            for records in _batches(path, places.get(path.name, 0), closed):
                seq = auditlog.append(host, records).seq
                taken += len(records)
                places[path.name] = records[-1]["spool"][1]
                _note(host, seq, places)
            if closed:
                path.unlink()
        _note(host, seq, {name: at for name, at in places.items() if (spool / name).exists()})
    return taken


def _batches(path: Path, start: int, closed: bool) -> Iterator[list[dict[str, Any]]]:
    """The records of a file from `start` on; of a closed one the half line at its end too."""
    size = path.stat().st_size
    at = start if start <= size else 0  # another file of this name
    with open(path, "rb") as file:
        # What is chained must still be here after a power cut, or this hour would be taken twice.
        os.fsync(file.fileno())
        while True:
            file.seek(at)
            data = file.read(BATCH)
            if closed and data and at + len(data) >= size and not data.endswith(b"\n"):
                data += b"\n"
            records = [gateway_log.record(*row) for row in _rows(data, at, path.name)]
            if not records:
                return
            at = records[-1]["spool"][1]
            yield records


def _rows(data: bytes, at: int, name: str) -> Iterator[tuple[bytes, str, int]]:
    for line, end in gateway_log.split(data, at):
        yield line, name, end


def positions(host: Host) -> tuple[int, dict[str, int]]:
    """How far each of the gateway's files has been taken: by the note, and the lines chained after it.

    With the number of the last line that was looked at.
    """
    spool = auditlog.folder(host, auditlog.SPOOL)
    try:
        note = json.loads(auditlog.folder(host, "state.json").read_bytes())
        seq, places = int(note["seq"]), dict(note["places"])
    except (OSError, ValueError, KeyError, TypeError):
        seq, places = 0, {}
    for path in auditlog.files(host)[_file_of(host, seq) :]:
        with open(path, "rb") as file:
            for line in file:
                entry = parse_line(line)
                if entry and entry["seq"] > seq:
                    seq = entry["seq"]
                    places.update([entry["spool"]] if "spool" in entry else [])
    return seq, {name: int(at) for name, at in places.items() if (spool / name).exists()}


def _file_of(host: Host, seq: int) -> int:
    """The place among the files of the one with the line `seq`."""
    firsts = [int(path.stem) for path in auditlog.files(host)]
    return max((i for i, first in enumerate(firsts) if first <= seq), default=0)


def _note(host: Host, seq: int, places: dict[str, int]) -> None:
    path = auditlog.folder(host, "state.json")
    write_file(path, json.dumps({"seq": seq, "places": places}).encode(), mode=0o600)


def note_start(host: Host, started: str) -> bool:
    """Say in the log that the gateway has started anew at `started`; whether it had.

    What it was doing when it was killed has no line: this line shows that there was such a moment.
    """
    path = auditlog.folder(host, "started")
    if path.exists() and path.read_text("ascii") == started:
        return False
    told = {"at": auditlog.stamp(), "kind": "gateway", "user": "-", "what": f"started {started}"}
    auditlog.append(host, [told])
    write_file(path, started.encode(), mode=0o600)
    return True


# --- the head, away from this host ------------------------------------------------------------------------------------


def copy_head(host: Host, site: SiteConfig) -> bool:
    """Copy the head to where the site wants it, when it is a new one; whether that was done.

    Raises CommandError or OSError when it cannot be.
    """
    head = last(host)
    if not (site.audit_folder or site.audit_command) or head == auditlog.copied(host):
        return False
    row: dict[str, Any] = {
        "site": site.domain,
        "seq": head.seq,
        "sha256": head.digest,
        "at": auditlog.stamp(),
        "key": fingerprint(auditlog.open_key(host)),
    }
    text = json.dumps(row) + "\n"
    if site.audit_folder:
        _to_folder(Path(site.audit_folder), f"{site.domain}-{row['at'][:10]}.jsonl", text)
    if site.audit_command:
        run(list(site.audit_command), text=text, timeout=COPY_WITHIN_S)
    write_file(auditlog.folder(host, "copied.json"), text.encode(), mode=0o600)
    return True


def _to_folder(folder: Path, name: str, text: str) -> None:
    try:
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CommandError(
            say(
                f"copying the audit log's head: {error.strerror}",
                f"감사 로그의 헤드 복사: {error.strerror}",
            ),
            where=str(folder),
            hint=say(
                "Mount the folder of audit.folder again, or name another one in site.toml.",
                "site.toml의 audit.folder를 다시 마운트하거나 다른 폴더를 지정하십시오.",
            ),
        ) from error


def last(host: Host) -> Head:
    """The head of the log as it lies there."""
    head = Head()
    for path in reversed(auditlog.files(host)):
        with open(path, "rb") as file:
            for line in file:
                if entry := parse_line(line):
                    head = Head(seq=entry["seq"], digest=digest_of(line))
        if head.seq:
            return head
    return head


# --- letting go -------------------------------------------------------------------------------------------------------


def prune(host: Host, days: int) -> int:
    """Let whole files go whose lines are all older than `days` (0: none); a line says up to where. The number of files.

    The line comes first: a log whose beginning is missing without one is broken.
    """
    old = time.time() - days * 86400
    paths = [path for path in auditlog.files(host)[:-1] if days and path.stat().st_mtime < old]
    if not paths:
        return 0
    with open(paths[-1], "rb") as file:
        final = file.readlines()[-1]
    entry = parse_line(final)
    if entry is None:
        raise ConfigError(f"{paths[-1]}: its last line is none; run invoke audit.verify")
    told = {"at": auditlog.stamp(), "kind": "pruned", "through": entry["seq"]}
    auditlog.append(host, [told | {"digest": digest_of(final), "files": len(paths)}])
    for path in paths:
        path.unlink()
    return len(paths)


# --- reading ----------------------------------------------------------------------------------------------------------


def since_when(text: str, now: datetime.datetime) -> str:
    """The time that --since means, as lines have it: 90m, 24h, 7d, a date or a time; empty: the beginning.

    Raises ConfigError when it means none.
    """
    if not text:
        return ""
    try:
        if match := re.fullmatch(r"(\d{1,6})([smhd])", text):
            at = now - datetime.timedelta(**{UNITS[match[2]]: int(match[1])})
        else:
            at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
            at = at if at.tzinfo else at.astimezone()
        whole = at.astimezone(datetime.timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            say(f"{text!r} is no time", f"{text!r}은(는) 시각이 아닙니다"),
            where="--since",
            hint=say(
                "Write a duration like 90m, 24h or 7d, or a time like 2026-11-21T09:00.",
                "90m, 24h, 7d 같은 기간이나 2026-11-21T09:00 같은 시각을 쓰십시오.",
            ),
        ) from error
    return whole.replace("+00:00", "Z")


def shown(host: Host, *, since: str, user: str) -> Iterator[dict[str, Any]]:
    """What the log says since a time, of one user or of all."""
    for entry in auditlog.entries(host):
        if str(entry.get("at", "")) >= since and user in (
            "",
            entry.get("user"),
            entry.get("target"),
        ):
            yield entry


def row(entry: dict[str, Any]) -> list[str]:
    """An entry as a row of the table."""
    what = str(entry.get("what", entry["kind"]))
    options = " ".join(f"{key}={value}" for key, value in entry.get("options", {}).items())
    more = [options, entry.get("mutation", ""), entry.get("why", "")]
    more += [f"claims {entry['claims']}"] if entry.get("claims") else []
    place = entry.get("door", entry["kind"])
    return [
        str(entry.get("at", ""))[:19],
        str(entry.get("user", "-")),
        f"{place}: {' '.join([what, *filter(None, more)])}",
        str(entry.get("from", "-")),
        str(entry.get("result", "begun" if entry.get("state") == "begun" else "-")),
    ]


def without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    """A task's options as they may be written down: those that were given, none that could be a secret."""
    given = {name: value for name, value in options.items() if value not in ("", False, None, [])}
    return {
        name: "***" if SECRETIVE.search(name) and not name.endswith("_file") else _plain(value)
        for name, value in given.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int):
        return value
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)
