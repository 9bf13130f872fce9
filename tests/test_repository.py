"""What the repositories say, judged by its text; secrets that come back; the copy on another host."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bundle import auditlog, copies, ledger, repository, restore, scratch, underway
from bundle.claims import QUERIES, claims_of, prefix_of, unmet
from bundle.config import parse_site
from bundle.errors import CommandError, ConfigError
from bundle.host import Host
from bundle.wal import Segment
from tests.pointed import NOON, make_point

RIGHT = """stanza: site
status: ok
  archiveId: 17-1, total WAL checked: 3, total valid WAL: 3
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-171528F, status: valid, total files checked: 2686, total valid files: 2686
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""
LABEL = "20261121-171528F"


def test_only_an_explicit_word_for_each_backup_is_good() -> None:
    assert repository.verified(RIGHT, {LABEL}) == []
    assert repository.verified("", {LABEL})
    assert repository.verified("", set())
    assert repository.verified(RIGHT, {LABEL, "20261121-180000I"})
    for word in ("invalid", "in-progress", "manifest missing", "valid-ish"):
        assert repository.verified(RIGHT.replace("status: valid", f"status: {word}"), {LABEL}), word
    assert repository.verified(RIGHT.replace("status: ok", "status: error"), {LABEL})


def made(label: str, start: int, stop: int) -> repository.Backup:
    names = [Segment(1, number).name for number in (start, stop)]
    return repository.Backup(
        label=label, at=NOON, start=names[0], stop=names[1], size=1, stored=1, bad=False
    )


def test_hole_is_looked_for_from_the_oldest_backup_to_the_newest_point() -> None:
    known = (made("1F", 3, 4), made("2F", 9, 9))
    there = {Segment(1, number) for number in range(3, 12)}
    assert repository.holes(there, known, Segment(1, 11).name) == []
    assert repository.holes(there - {Segment(1, 6)}, known) == [Segment(1, 6).name]
    assert repository.holes(there, known, Segment(1, 12).name) == [Segment(1, 12).name]
    assert repository.holes(there, ()) == []


def test_location_of_a_row_is_a_folder_of_our_bucket_or_no_claim() -> None:
    assert prefix_of("mlflow-artifacts:/1/models/m-1/artifacts", "b") == "b/1/models/m-1/artifacts/"
    assert prefix_of("s3://b/x", "b") == "b/x/"
    for other in (
        "s3://c/x",
        "dummy-source",
        "",
        "https://hub/x",
        "mlflow-artifacts:/",
        "runs:/1/x",
    ):
        assert prefix_of(other, "b") == ""


def test_claim_is_met_by_what_lies_under_it_only() -> None:
    claims = claims_of([("model", "m", "s3://b/1/m"), ("version", "v/1", "s3://b/1/mm")], "b")
    assert unmet(claims, ["b/1/m/MLmodel", "b/1/mm/x"]) == []
    assert [c.row for c in unmet(claims, ["b/1/m", "b/1/mm/x"])] == ["m"]
    assert [c.row for c in unmet(claims, ["b/1/m/x", "b/1/mmm/x"])] == ["v/1"]
    assert len(unmet(claims, [])) == 2


def test_look_is_believed_with_heartbeat_and_end_only() -> None:
    point = make_point(1)
    beat = {"kind": "heartbeat", "row": "cp-1", "location": ""}
    end = {"kind": "done", "row": "", "location": ""}
    rows = [beat, {"kind": "count", "row": "runs", "location": "7"}, end]
    assert scratch.read(rows, point).counts == {"runs": 7}
    for wrong in (rows[1:], rows[:-1], [], [beat | {"row": "cp-2"}, end]):
        with pytest.raises(CommandError, match=r"heartbeat|기록"):
            scratch.read(wrong, point)
    assert set(QUERIES) == {"model", "version", "trace"}
    assert scratch.timeline(make_point(1, segment="0000000A0000000400000000")) == 10


def test_secrets_of_the_databases_come_back_and_no_others(tmp_path: Path) -> None:
    host = Host(root=tmp_path)
    store = tmp_path / "secrets/store"
    store.mkdir(parents=True)
    names = ("PHOENIX_SECRET", "DB_MLFLOW", "S3_MLFLOW_KEY", "BACKUP_OBJECTS_PASSPHRASE", "SAME")
    for name in names:
        (store / name).write_bytes(b"now")
    then = {f"secrets/store/{name}": b"then" for name in names} | {"site.toml": b"then"}
    then["secrets/store/SAME"] = b"now"
    assert restore.take_secrets(host, then) == ["PHOENIX_SECRET"]
    assert (store / "PHOENIX_SECRET").read_bytes() == b"then"
    assert (store / "PHOENIX_SECRET").stat().st_mode & 0o777 == 0o400
    assert (store / "DB_MLFLOW").read_bytes() == b"now"


def test_kit_is_for_an_empty_host_and_its_secrets_are_for_root(tmp_path: Path) -> None:
    host = Host(root=tmp_path)
    restore.check_empty(host)
    files = {"site-id": b"1", "site.toml": b"", "secrets/store/A": b"a", "pki/g1/root.key": b"k"}
    restore.unpack(host, files)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in files}
    assert modes == {
        "site-id": 0o644,
        "site.toml": 0o644,
        "secrets/store/A": 0o400,
        "pki/g1/root.key": 0o400,
    }
    restore.check_empty(host)  # killed before anything was rendered: done again
    (tmp_path / "rendered").mkdir()
    (tmp_path / "rendered/compose.yaml").write_text("")
    with pytest.raises(ConfigError):
        restore.check_empty(host)


def test_nothing_starts_while_a_restore_is_under_way(tmp_path: Path) -> None:
    host = Host(root=tmp_path)
    underway.refuse(host)
    former = restore.remember(host, make_point(1))
    assert former.startswith("cp-1-")
    assert restore.remember(host, make_point(1)) == former  # cut short, and run again
    with pytest.raises(CommandError) as caught:
        underway.refuse(host)
    assert "--point cp-1" in caught.value.problems[0].hint
    (tmp_path / underway.NOTE).write_text("{")
    with pytest.raises(CommandError):
        underway.refuse(host)
    restore.forget(host)
    underway.refuse(host)


def test_copy_is_what_is_here_whole_and_only_what_is_new_is_read(tmp_path: Path) -> None:
    away = tmp_path / "away"
    site = parse_site(f'domain = "lab.internal"\n[backup]\ncopy_to = "{away}"')
    host = Host(root=tmp_path / "root")
    with pytest.raises(CommandError, match="no such folder"):
        copies.copy(host, site, "cp-1")
    away.mkdir()
    for part in copies.PARTS:
        ledger.place(host, site, part).mkdir(parents=True)
    objects = ledger.place(host, site, "objects")
    (objects / "data").mkdir()
    (objects / "data/one").write_bytes(b"1" * 100)
    (objects / "data/two").write_bytes(b"2" * 100)
    assert copies.copy(host, site, "cp-1").size == 200
    assert copies.copy(host, site, "cp-2").size == 0
    found = copies.last(host)
    assert found
    assert found.point == "cp-2"
    (objects / "data/two").unlink()
    (objects / "data/one").write_bytes(b"1" * 50)
    os.utime(objects / "data/one", ns=(1, 1))
    assert copies.copy(host, site, "cp-3").size == 50
    there = away / "lab.internal/objects/data"
    assert {path.name: path.stat().st_size for path in there.iterdir()} == {"one": 50}


def test_medium_has_the_digest_of_each_file_and_our_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    host, site = Host(root=tmp_path / "root"), parse_site('domain = "lab.internal"')
    auditlog.prepare(host, 10005)
    for part in copies.PARTS:
        ledger.place(host, site, part).mkdir(parents=True)
        (ledger.place(host, site, part) / "한글 file").write_bytes(part.encode())
    with pytest.raises(CommandError, match="no such folder"):
        copies.export(host, site, tmp_path / "medium")
    (tmp_path / "medium").mkdir()
    place = copies.export(host, site, tmp_path / "medium")
    listed = (place / "SHA256SUMS").read_bytes()
    rows = [row.split("  ", 1) for row in listed.decode().splitlines()]
    assert {name for _, name in rows} == {f"{part}/한글 file" for part in copies.PARTS}
    for digest, name in rows:
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    public = auditlog.open_key(host).public_key()
    public.verify((place / "SHA256SUMS.sig").read_bytes(), listed, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify((place / "SHA256SUMS.sig").read_bytes(), b"x", ec.ECDSA(hashes.SHA256()))
