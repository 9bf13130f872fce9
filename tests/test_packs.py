"""Packs in memory: an index says what the bytes are, and other bytes are never handed out as right."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle.ops import packs, save
from bundle.ops.packs import Entry
from bundle.ops.restic import PackError, Restic, serve


def make(objects: dict[str, bytes]) -> tuple[bytes, list[Entry]]:
    data, entries = packs.HEAD, []
    for key, content in objects.items():
        sha256 = hashlib.sha256(content).hexdigest()
        entry = Entry(bucket="b", key=key, version="v", at="t", offset=len(data), sha256=sha256)
        entries.append(replace(entry, size=len(content)))
        data += content
    return data, entries


OBJECTS = {"p": b"", "p/q": b"x" * 3_000_000, "한글\n": b"y", "한": b"z" * 10}


def test_index_is_the_same_after_its_file() -> None:
    _, entries = make(OBJECTS)
    entries.append(Entry(bucket="b", key="", version="null", at="t", gone=True))
    data = packs.dump(entries)
    assert packs.parse(data, hashlib.sha256(data).hexdigest()) == entries
    with pytest.raises(PackError):
        packs.parse(data + b"\n", hashlib.sha256(data).hexdigest())


def test_bytes_come_out_as_they_went_in_of_some_or_all() -> None:
    data, entries = make(OBJECTS)
    for wanted in (entries, entries[1:], entries[:1], entries[2:3], []):
        found = {entry.key: part.read() for entry, part in packs.parts(io.BytesIO(data), wanted)}
        assert found == {entry.key: OBJECTS[entry.key] for entry in wanted}


def test_what_is_not_read_is_compared_too(rng: random.Random) -> None:
    data, entries = make({str(n): rng.randbytes(1000) for n in range(5)})
    for _ in range(50):
        place = rng.randrange(len(packs.HEAD), len(data))
        other = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        with pytest.raises(PackError, match="other bytes"):
            for _ in packs.parts(io.BytesIO(other), entries):
                pass
    with pytest.raises(PackError, match="ends before"):
        list(packs.parts(io.BytesIO(data[:-1]), entries))


def entry(key: str, content: str = "", *, gone: bool = False) -> Entry:
    return Entry(bucket="b", key=key, version=content, at="t", sha256=content, gone=gone)


def test_last_version_of_a_chain_counts_and_a_deletion_takes_away() -> None:
    chain = [
        [entry("a", "1"), entry("a", "2"), entry("b", "1"), entry("c", "1")],
        [entry("b", gone=True), entry("c", gone=True), entry("c", "2")],
    ]
    there = packs.current(chain)
    assert {key: (n, e.version) for (_, key), (n, e) in there.items()} == {
        "a": (0, "2"),
        "c": (1, "2"),
    }
    assert packs.wanted(there) == {0: [chain[0][1]], 1: [chain[1][2]]}
    assert packs.current([]) == {}


def test_state_is_the_same_whatever_the_packs_were() -> None:
    one = [entry("a", "1"), entry("b", "2")]
    assert packs.state(one) == packs.state(reversed(one))
    assert packs.state(one) != packs.state([entry("a", "2"), entry("b", "1")])
    assert packs.state(one) != packs.state(one[:1])


def test_index_that_is_broken_here_is_asked_for_again(tmp_path: Path) -> None:
    data = packs.dump([entry("a", "1")])
    row = ["pack", "index", hashlib.sha256(data).hexdigest(), 1, 1]
    asked = []

    class Kept(Restic):
        def load(self, snapshot: str, name: str) -> bytes:
            asked.append((snapshot, name))
            return data

    restic = Kept(repository=str(tmp_path), passphrase="")
    for broken in (None, b"", b"{", data + b"x"):
        if broken is not None:
            (tmp_path / "index.ndjson").write_bytes(broken)
        assert save.chain_of(restic, tmp_path, [row]) == [[entry("a", "1")]]
    assert asked == [("index", "index.ndjson")] * 4
    assert save.chain_of(restic, tmp_path, [row])
    assert len(asked) == 4


def test_expected_failure_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))

    def act(_: dict[str, Any]) -> dict[str, Any]:
        raise PackError("a pack is broken")

    with pytest.raises(SystemExit) as caught:
        serve(act)
    assert caught.value.code == "a pack is broken"
    monkeypatch.setattr("sys.stdin", io.StringIO("{}"))
    serve(lambda _: {"good": True})
    assert capsys.readouterr().out == '{"good": true}'
