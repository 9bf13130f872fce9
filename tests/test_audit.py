"""The audit log: lines that follow one another, red for each kind of tampering; each of the gateway's lines once."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle import audit, auditlog, chained, chainlog, gateway_log
from bundle.chained import Head, Verdict
from bundle.config import SiteConfig, parse_site
from bundle.errors import CommandError, ConfigError, IntegrityError
from bundle.host import Host
from bundle.operators import whoami
from bundle.workflows import audit as tasks_of_audit

DAY = 86400


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)  # only root may give files away
    made = Host(root=tmp_path / "root")
    auditlog.prepare(made, 10005)
    return made


def site(text: str = "") -> SiteConfig:
    return parse_site(f'domain = "lab.internal"\n{text}')


def write(host: Host, count: int = 6) -> Head:
    head = Head()
    for number in range(count):
        head = auditlog.append(
            host, [{"at": "t", "kind": "task", "user": "김", "what": f"{number}"}]
        )
    return head


def chain(host: Host) -> Path:
    return auditlog.files(host)[-1]


def lines(host: Host) -> list[bytes]:
    return chain(host).read_bytes().splitlines(keepends=True)


def verdict(host: Host, heads: dict[int, str] | None = None) -> Verdict:
    return auditlog.examine(host, heads or {})


# --- the chain --------------------------------------------------------------------------------------------------------


def test_lines_follow_one_another_and_are_signed(host: Host) -> None:
    head = write(host)
    found = verdict(host)
    assert (found.wrong, found.lines, found.head, found.first) == ("", 6, head, 1)
    entry = json.loads(lines(host)[0])
    assert (entry["seq"], entry["prev"], entry["user"]) == (1, chained.GENESIS, "김")
    assert set(entry) == {"seq", "prev", "at", "kind", "user", "what", "sig"}


def test_log_and_key_are_for_root_only(host: Host) -> None:
    write(host)
    assert auditlog.folder(host).stat().st_mode & 0o777 == 0o700
    assert auditlog.key_file(host).stat().st_mode & 0o777 == 0o400
    assert chain(host).stat().st_mode & 0o777 == 0o600


def test_second_preparation_keeps_the_key(host: Host) -> None:
    before = auditlog.key_file(host).read_bytes()
    auditlog.prepare(host, 10005)
    assert auditlog.key_file(host).read_bytes() == before


def test_log_without_its_key_is_refused_and_gets_no_other_one(host: Host) -> None:
    write(host)
    auditlog.key_file(host).unlink()
    for use in (lambda: auditlog.prepare(host, 0), lambda: verdict(host), lambda: write(host, 1)):
        with pytest.raises(ConfigError, match=r"audit\.key"):
            use()


def changed(rows: list[bytes]) -> list[bytes]:
    rows[2] = rows[2].replace(b'"what":"2"', b'"what":"9"')
    return rows


def forged(rows: list[bytes]) -> list[bytes]:
    """Changed, and everything after it made to follow; only the key is missing."""
    other = chained.read_key(chained.make_key())
    head = Head(seq=2, digest=chained.digest_of(rows[1]))
    for number in range(2, len(rows)):
        rows[number] = chained.make_line(other, head, {"at": "t", "kind": "task", "what": "x"})
        head = Head(seq=number + 1, digest=chained.digest_of(rows[number]))
    return rows


def last_changed(rows: list[bytes]) -> list[bytes]:
    rows[-1] = rows[-1].replace(b'"what":"5"', b'"what":"9"')
    return rows


def swapped(rows: list[bytes]) -> list[bytes]:
    rows[2], rows[3] = rows[3], rows[2]
    return rows


TAMPERING: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "changed": (changed, ":3: line 3 was changed"),
    "forged and linked": (forged, ":3: line 3 was changed, or not written here"),
    "last one changed": (last_changed, ":6: line 6 was changed"),
    "one taken away": (lambda rows: rows[:2] + rows[3:], ":3: missing: lines 3 to 3"),
    "some taken away": (lambda rows: rows[:1] + rows[4:], ":2: missing: lines 2 to 4"),
    "reordered": (swapped, ":3: reordered: line 4 stands before line 3"),
    "doubled": (lambda rows: [*rows[:3], *rows[2:]], ":4: line 3 stands here once more"),
    "beginning cut": (lambda rows: rows[2:], "missing: everything before line 3"),
    "end cut": (lambda rows: rows[:4], ":4: cut off after line 4: line 6 was there"),
    "emptied": (lambda _: [], "cut off after line 0: line 6 was there"),
    "half a line": (lambda rows: [*rows[:-1], rows[-1][:40]], ":6: not a line of this log"),
    "scribbled": (lambda rows: [*rows[:2], b"hello\n", *rows[2:]], ":3: not a line of this log"),
    "signature gone": (
        lambda rows: [*rows[:2], rows[2].split(b',"sig"')[0] + b"}\n", *rows[3:]],
        ":3: line 3 was changed",
    ),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_red_and_its_first_line_is_named(host: Host, kind: str) -> None:
    head = write(host)
    assert verdict(host, {head.seq: head.digest}).wrong == ""
    tamper, said = TAMPERING[kind]
    chain(host).write_bytes(b"".join(tamper(lines(host))))
    assert said in verdict(host, {head.seq: head.digest}).wrong


def test_log_that_was_written_anew_with_the_right_key_differs_from_the_copied_head(
    host: Host,
) -> None:
    write(host, 3)
    middle = write(host, 1)
    write(host, 2)
    chain(host).unlink()
    write(host, 8)
    assert verdict(host).wrong == ""
    assert "line 4 is not the one whose digest was copied away" in (
        verdict(host, {middle.seq: middle.digest}).wrong
    )


def test_cut_line_is_noticed_repaired_and_told(host: Host) -> None:
    write(host, 3)
    whole = chain(host).read_bytes()
    for cut in range(1, 60, 7):
        chain(host).write_bytes(
            whole + b'{"seq":4,"prev":"0123456789", "at" "kind":"task","what":"killed"'[:cut]
        )
        assert "half" in verdict(host).wrong
        auditlog.append(host, [{"at": "t", "kind": "task", "what": "next"}])
        found = verdict(host)
        assert (found.wrong, found.repairs, found.lines) == ("", (4,), 5)
        repair = json.loads(lines(host)[3])
        assert (repair["kind"], repair["bytes"]) == ("repair", cut)


def test_chain_goes_on_over_files(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainlog, "FILE_BYTES", 1000)
    head = write(host, 20)
    names = [path.name for path in auditlog.files(host)]
    assert len(names) > 3
    assert names[0] == "000000000001.jsonl"
    assert verdict(host) == Verdict(lines=20, head=head)
    chain(host).write_bytes(b"")  # killed between the new file and its first line
    short = auditlog.append(host, [{"at": "t", "kind": "task"}])
    assert verdict(host).head == short
    auditlog.files(host)[1].unlink()
    assert "missing: lines" in verdict(host).wrong


def test_end_of_a_long_log_can_be_looked_at_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainlog, "FILE_BYTES", 1000)
    head = write(host, 20)
    found = auditlog.examine(host, {head.seq: head.digest, 1: "of a line that is not read"}, 2)
    assert (found.wrong, found.head) == ("", head)
    assert found.first > 10
    assert auditlog.examine(host, {}, newest=99) == verdict(host)
    path = auditlog.files(host)[-2]
    path.write_bytes(path.read_bytes().replace(b'"kind":"task"', b'"kind":"tosk"', 1))
    assert "was changed" in auditlog.examine(host, {}, newest=2).wrong


def test_long_line_is_found_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainlog, "TAIL", 64)
    auditlog.append(host, [{"at": "t", "kind": "task", "what": "x" * 5000}])
    assert auditlog.append(host, [{"at": "t", "kind": "task"}]).seq == 2
    assert verdict(host).wrong == ""


def test_line_that_somebody_made_unreadable_does_not_stop_the_log(host: Host) -> None:
    write(host, 3)
    chain(host).write_bytes(b"".join(lines(host)[:2]) + b"scribble\n")
    assert auditlog.append(host, [{"at": "t", "kind": "task"}]).seq == 4
    assert ":3: not a line of this log" in verdict(host).wrong


# --- letting go -------------------------------------------------------------------------------------------------------


def test_old_files_go_with_a_line_that_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainlog, "FILE_BYTES", 1000)
    head = write(host, 20)
    old = auditlog.files(host)[:2]
    for path in old:
        os.utime(path, (0, 0))
    assert audit.prune(host, 0) == 0
    assert audit.prune(host, 30) == 2
    assert not any(path.exists() for path in old)
    found = verdict(host, {2: "of a line that is gone", head.seq: head.digest})
    assert found.wrong == ""
    assert found.first > 1
    assert audit.prune(host, 30) == 0
    auditlog.files(host)[0].unlink()  # without a line
    assert "missing: everything before line" in verdict(host).wrong


# --- the head ---------------------------------------------------------------------------------------------------------


def test_head_is_copied_once_and_truncation_is_noticed_against_it(
    host: Host, tmp_path: Path
) -> None:
    folder = tmp_path / "사본"
    folder.mkdir()
    settings = site(f'audit.folder = "{folder}"')
    write(host)
    assert audit.copy_head(host, settings) is True
    assert audit.copy_head(host, settings) is False
    write(host, 1)
    assert audit.copy_head(host, settings) is True
    heads = auditlog.copied_heads(settings)
    assert sorted(heads) == [6, 7]
    assert verdict(host, heads).wrong == ""
    chain(host).write_bytes(b"".join(lines(host)[:-1]))
    assert "cut off after line 6" in verdict(host, heads).wrong


def test_head_that_cannot_be_copied_is_an_error_and_is_tried_again(
    host: Host, tmp_path: Path
) -> None:
    settings = site(f'audit.folder = "{tmp_path}/gone"')
    write(host)
    for _ in range(2):
        with pytest.raises(CommandError, match=r"head(?s:.*)audit\.folder"):
            audit.copy_head(host, settings)
    assert auditlog.copied(host) == Head()


def test_site_without_a_place_for_the_head_is_told_so(host: Host) -> None:
    write(host)
    assert audit.copy_head(host, site()) is False
    found = tasks_of_audit.told(host, site(), verdict(host), {})
    assert any("audit.folder" in line for line in found)


def test_two_heads_of_one_line_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "heads"
    file.write_text('{"seq": 1, "sha256": "a"}\n{"seq": 1, "sha256": "b"}\nscribble\n')
    with pytest.raises(ConfigError, match="two digests of one line"):
        auditlog.heads_in(file, "lab.internal")
    with pytest.raises(ConfigError, match="cannot be read"):
        auditlog.heads_in(tmp_path / "none", "lab.internal")


# --- the gateway's lines ----------------------------------------------------------------------------------------------


def asked(number: int, **more: str) -> bytes:
    entry = {
        "at": "1763731200.125",
        "id": f"{number:032x}",
        "door": "mlflow",
        "method": "POST",
        "path": "/api/2.0/mlflow/runs/create",
        "mutation": "",
        "status": "200",
        "from": "10.0.0.7",
        "claims": "kim",
        "who": "kim",
        "why": "",
    }
    return json.dumps({**entry, **more}).encode() + b"\n"


def spool(host: Host, *rows: bytes, hour: str = "2999-01-01T10") -> Path:
    path = auditlog.folder(host, auditlog.SPOOL, f"{hour}.jsonl")
    with open(path, "ab") as file:
        file.write(b"".join(rows))
    return path


def requests(host: Host) -> list[int]:
    return [int(e["request"], 16) for e in auditlog.entries(host) if e["kind"] == "request"]


def test_each_line_is_taken_once(host: Host) -> None:
    spool(host, *map(asked, range(5)))
    assert audit.collect(host) == 5
    assert audit.collect(host) == 0
    spool(host, asked(5), asked(6)[:30])
    assert audit.collect(host) == 1
    spool(host, asked(6)[30:])
    assert audit.collect(host) == 1
    assert requests(host) == list(range(7))
    assert verdict(host).wrong == ""


class KilledError(BaseException):
    """The writer is gone."""


@pytest.mark.parametrize("at", range(1, 12))
def test_killed_collector_loses_nothing_and_doubles_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(audit, "BATCH", 900)
    spool(host, *map(asked, range(9)), hour="2025-11-21T13")
    spool(host, *map(asked, range(9, 12)))
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                raise KilledError
            return real(*given, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(auditlog, "append", dying(auditlog.append))
        patch.setattr(audit, "_note", dying(audit._note))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        with contextlib.suppress(KilledError):
            audit.collect(host)
    audit.collect(host)
    assert requests(host) == list(range(12))
    assert verdict(host).wrong == ""
    assert [p.name for p in auditlog.folder(host, auditlog.SPOOL).iterdir()] == [
        "2999-01-01T10.jsonl"
    ]


def test_half_written_batch_is_taken_again_from_where_it_broke(host: Host) -> None:
    spool(host, *map(asked, range(5)))
    audit.collect(host)
    rows = lines(host)
    chain(host).write_bytes(
        b"".join(rows[:3]) + rows[3][:50]
    )  # one write was cut by a power failure
    auditlog.folder(host, "state.json").unlink()
    audit.collect(host)
    assert requests(host) == list(range(5))
    assert verdict(host).repairs == (4,)


def test_lost_note_is_found_again_in_the_lines(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainlog, "FILE_BYTES", 1500)
    spool(host, *map(asked, range(20)))
    audit.collect(host)
    auditlog.folder(host, "state.json").write_text("half of")
    assert audit.collect(host) == 0


def test_file_of_a_past_hour_goes_after_its_last_line(host: Host) -> None:
    path = spool(host, asked(1), asked(2)[:20], hour="2025-11-21T13")
    assert audit.collect(host) == 2
    assert not path.exists()
    broken = list(auditlog.entries(host))[-1]
    assert (broken["kind"], broken["user"]) == ("unreadable", "unknown")
    spool(host, asked(3), hour="2025-11-21T13")  # a clock that was set back
    assert audit.collect(host) == 1
    assert requests(host) == [1, 3]


def test_log_that_is_begun_anew_takes_no_line_of_the_gateway_again(host: Host) -> None:
    write(host, 30)
    spool(host, asked(1), asked(2))
    audit.collect(host)
    auditlog.folder(host, "chain").rename(auditlog.folder(host, "kept"))
    auditlog.prepare(host, 10005)
    spool(host, asked(3))
    audit.collect(host)
    audit.collect(host)
    assert requests(host) == [3]
    assert (verdict(host).wrong, verdict(host).first) == ("", 1)


def test_gateway_that_started_anew_has_a_line_once(host: Host) -> None:
    assert audit.note_start(host, "2026-11-21T10:00:00Z")
    assert not audit.note_start(host, "2026-11-21T10:00:00Z")
    assert audit.note_start(host, "2026-11-21T11:00:00Z")
    told = [entry["what"] for entry in auditlog.entries(host) if entry["kind"] == "gateway"]
    assert told == ["started 2026-11-21T10:00:00Z", "started 2026-11-21T11:00:00Z"]
    assert "started 2026-11-21T11:00:00Z" in audit.row(list(auditlog.entries(host))[-1])[2]


def record(**more: str) -> dict[str, Any]:
    return gateway_log.record(asked(1, **more).rstrip(b"\n"), "f", 9)


@pytest.mark.parametrize(
    ("more", "user", "claims"),
    [
        ({}, "kim", None),
        ({"who": "a%40lab.internal", "claims": ""}, "a@lab.internal", None),
        ({"who": "%EA%B9%80"}, "김", None),
        ({"who": ""}, "unknown", "kim"),
        ({"who": "unknown"}, "unknown", "kim"),
        ({"who": "", "claims": ""}, "unknown", None),
        ({"status": "401"}, "unknown", "kim"),
        ({"status": "403", "why": "disabled"}, "unknown", "kim"),
        ({"status": "403"}, "kim", None),
    ],
)
def test_name_counts_only_where_the_tracker_gave_it(
    more: dict[str, str], user: str, claims: str | None
) -> None:
    found = record(**more)
    assert (found["user"], found.get("claims")) == (user, claims)


def test_record_of_a_request_has_what_was_done(host: Host) -> None:
    found = record(mutation="deleteUsers", path="/graphql", door="phoenix")
    assert found["at"] == "2025-11-21T13:20:00.125Z"
    assert (found["what"], found["mutation"]) == ("POST /graphql", "deleteUsers")
    assert (found["result"], found["from"], found["spool"]) == (200, "10.0.0.7", ["f", 9])
    assert len(record(path="/" + "x" * 9000)["what"]) == gateway_log.LONGEST


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def release(host: Host) -> Path:
    here = host.path("releases", "1.2.3")
    here.mkdir(parents=True)
    (here / "release.json").write_text("{}")
    return here


def told(host: Host) -> list[dict[str, Any]]:
    return list(auditlog.entries(host))


def test_task_is_written_down_at_its_begin_and_end(host: Host, release: Path) -> None:
    given = {"name": "lee", "role": "viewer", "yes": False, "only": []}
    with tasks_of_audit.recorded(release, "users.add", given):
        assert [entry["state"] for entry in told(host)] == ["begun"]
    first, last = told(host)
    assert (last["kind"], last["target"], last["what"]) == ("users", "lee", "invoke users.add")
    assert last["options"] == {"name": "lee", "role": "viewer"}
    assert (last["state"], last["result"], last["begun"]) == ("ended", 0, first["at"])


@pytest.mark.parametrize(
    ("error", "code"),
    [(IntegrityError("x"), 5), (KeyboardInterrupt(), 130), (RuntimeError("x"), 1)],
)
def test_failed_task_is_written_down_with_its_exit_code(
    host: Host, release: Path, error: BaseException, code: int
) -> None:
    with pytest.raises(type(error)), tasks_of_audit.recorded(release, "install", {}):
        raise error
    assert told(host)[-1]["result"] == code


def test_no_secret_of_an_option_is_written_down() -> None:
    given = {"password": "s3cret", "api_token": "s3cret", "passphrase_file": "/root/p", "n": 3}
    found = audit.without_secrets(given)
    assert "s3cret" not in json.dumps(found)
    assert found["passphrase_file"] == "/root/p"


def test_connected_side_has_no_log(tmp_path: Path) -> None:
    with tasks_of_audit.recorded(tmp_path, "bundle", {}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_task_is_done_and_warned_of_where_it_cannot_be_written_down(
    host: Host, release: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auditlog.key_file(host).unlink()
    write_down = chain  # no file is made
    with tasks_of_audit.recorded(release, "status", {}):
        pass
    assert "not in the audit log" in caplog.text
    with pytest.raises(IndexError):
        write_down(host)


# --- who --------------------------------------------------------------------------------------------------------------


def process(proc: Path, pid: str, parent: str, *environment: str) -> None:
    folder = proc / pid
    folder.mkdir(parents=True)
    (folder / "environ").write_text("\0".join(environment))
    (folder / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")


def test_operator_behind_sudo_is_named_with_the_address_of_the_session(tmp_path: Path) -> None:
    process(tmp_path, "self", "40", "SUDO_USER=kim", "A=b")
    process(tmp_path, "40", "30", "SUDO_USER=kim")
    process(tmp_path, "30", "1", "SSH_CLIENT=10.0.0.9 51000 22")
    found = whoami(tmp_path, uid=0)
    assert (found.user, found.known, found.origin) == ("kim", "sudo", "10.0.0.9")
    (tmp_path / "self/loginuid").write_text("0\n")
    assert whoami(tmp_path, uid=0).known == "login"
    (tmp_path / "self/loginuid").write_text(f"{2**32 - 1}\n")
    assert whoami(tmp_path, uid=0).known == "sudo"
    assert whoami(tmp_path, uid=4242).user == "4242", "who is not root has not come by sudo"


def test_job_of_the_host_is_root_and_local(tmp_path: Path) -> None:
    found = whoami(tmp_path, uid=0)
    assert (found.user, found.known, found.origin) == ("root", "uid", "local")


# --- reading ----------------------------------------------------------------------------------------------------------

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("90m", "2026-11-21T10:30:00.000Z"),
        ("7d", "2026-11-14T12:00:00.000Z"),
        ("2026-11-20T01:00:00Z", "2026-11-20T01:00:00.000Z"),
        ("2026-11-20T10:00+09:00", "2026-11-20T01:00:00.000Z"),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, wanted: str) -> None:
    assert audit.since_when(text, NOW) == wanted


@pytest.mark.parametrize("text", ["yesterday", "5x", "999999d", "2026-13-01"])
def test_since_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time"):
        audit.since_when(text, NOW)


def test_shown_are_what_a_user_did_and_what_was_done_to_them(host: Host) -> None:
    auditlog.append(host, [{"at": "2026-11-20T00:00:00.000Z", "kind": "task", "user": "kim"}])
    auditlog.append(host, [{"at": "2026-11-21T00:00:00.000Z", "kind": "task", "user": "root"}])
    target = {"kind": "users", "user": "root", "target": "kim", "what": "invoke users.disable"}
    auditlog.append(host, [{"at": "2026-11-21T01:00:00.000Z", **target}])
    assert len(list(audit.shown(host, since="", user="kim"))) == 2
    found = list(audit.shown(host, since="2026-11-21", user=""))
    assert [audit.row(entry)[2] for entry in found] == ["task: task", "users: invoke users.disable"]
