"""The last look into layers, where grep says where needles are: it finds what a look at every file finds."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from bundle import leaks, scan, streams
from bundle.scan import Travelling
from tests import test_scan


def layer_of(files: Mapping[str, bytes], target: Path) -> Travelling:
    """A zstd layer with `files`, as a member of a bundle."""
    plain = target.with_suffix(".tar")
    with tarfile.open(plain, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    subprocess.run(["zstd", "-q", "-f", str(plain), "-o", str(target)], check=True, timeout=60)
    return Travelling(path="blobs/x", size=1, sha256="0" * 64, content=target)


def test_every_canary_in_a_layer_is_found_by_grep_as_without(tmp_path: Path) -> None:
    files, wanted = {"first": b"x" * 5000}, set()
    for number, (rule, canary) in enumerate(test_scan.CANARIES.values()):
        for pack in (test_scan.in_nothing, test_scan.in_gzip, test_scan.in_zip):
            data, inner = pack(canary)
            path = f"files/{number}-{pack.__name__}"
            files |= {path: data, f"{path}-clean": b"clean" + bytes(1000)}
            wanted.add((rule, f"{path}!{inner}" if pack is test_scan.in_zip else path))
    files |= {"home/build7/" + "p" * 90 + "/name": b"", "p" * 95 + "/srv/checkouts/bundle/x": b""}
    member = layer_of(files, tmp_path / "layer")
    found = set(scan.read_member(member, test_scan.RULES))
    assert isinstance(member.content, Path)
    with streams.layer(member.content) as archive:
        assert found == set(scan.look_into(archive, test_scan.RULES))
    pairs = {(find.rule, find.path.rstrip("!")) for find in found}
    assert not wanted - pairs
    assert len([name for name in pairs if name[1] in list(files)[-2:]]) == 2
    assert [pair for pair in pairs if pair[1].endswith("-clean")] == []


def test_needles_that_grep_cannot_take_are_looked_for_by_a_piece(tmp_path: Path) -> None:
    needle = b"one\nthe longer piece\0two"
    rules = [leaks.Rule(name="odd", needles=(needle,))]
    files = {"a": b"." * 700 + needle, "b": b"the longer piece alone", "c": b"none"}
    member = layer_of(files, tmp_path / "layer")
    assert [find.path for find in scan.read_member(member, rules)] == ["a"]
    assert isinstance(member.content, Path)
    assert len(scan.find_needles(member.content, rules) or ()) == 2
    short = [leaks.Rule(name="short", needles=(b"a\nb",))]
    assert scan.find_needles(member.content, short) is None
