"""A layer in its one form: what differs between two builds of the same files is gone, what counts is kept."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tempfile
from typing import Any

import pytest

from bundle import layers, packing
from bundle.blobs import rewrite_config
from bundle.layers import LayerError

EPOCH = 1_700_000_000
LONG = "/".join(["a" * 60] * 4) + "/" + "b" * 90
SPLIT = "p" * 90 + "/" + "n" * 99
KOREAN = "etc/한글.conf"

# name → (type, content or link, mode, uid)
FILES: dict[str, tuple[bytes, str, int, int]] = {
    "etc": (tarfile.DIRTYPE, "", 0o755, 0),
    "etc/passwd": (tarfile.REGTYPE, "root:x:0:0::/:/bin/sh\n", 0o644, 0),
    "etc/.wh.gone": (tarfile.REGTYPE, "", 0o600, 0),
    "etc/.wh..wh..opq": (tarfile.REGTYPE, "", 0o600, 0),
    KOREAN: (tarfile.REGTYPE, "값\n", 0o640, 3_000_000),
    LONG: (tarfile.REGTYPE, "long", 0o644, 10003),
    SPLIT: (tarfile.REGTYPE, "split", 0o644, 0),
    "bin/sh": (tarfile.SYMTYPE, "../usr/bin/" + "d" * 120, 0o777, 0),
    "dev/null": (tarfile.CHRTYPE, "", 0o666, 0),
    "empty": (tarfile.REGTYPE, "", 0o444, 65534),
    "z/first": (tarfile.REGTYPE, "shared" * 1000, 0o755, 7),
    "a/second": (tarfile.LNKTYPE, "z/first", 0o755, 7),
    "z/third": (tarfile.LNKTYPE, "z/first", 0o755, 7),
    "below": (tarfile.LNKTYPE, "in/another/layer", 0o644, 0),
}
XATTR = "SCHILY.xattr.security.capability"


def layer(
    seed: int, *, form: int = tarfile.PAX_FORMAT, dots: bool = False, **changed: str
) -> bytes:
    """The layer of FILES as one engine or another writes it: order, times, names of owners and headers by chance."""
    chance, data = random.Random(seed), io.BytesIO()
    names = list(FILES)
    chance.shuffle(names)
    names.sort(key=lambda name: FILES[name][0] == tarfile.LNKTYPE)  # as engines do, targets first
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for name in names:
            kind, text, mode, uid = FILES[name]
            info = tarfile.TarInfo(("./" if dots else "") + name)
            info.type, info.mode, info.uid, info.gid = kind, mode, uid, uid
            info.mtime = chance.uniform(0, 2e9) if form == tarfile.PAX_FORMAT else 5
            info.uname = info.gname = chance.choice(["", "root", "someone"])
            content = changed.get(name.replace("/", "_"), text).encode()
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            elif kind == tarfile.CHRTYPE:
                info.devmajor, info.devminor = 1, 3
            else:
                info.linkname = text
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"atime": str(chance.random()), "ctime": "7.5"}
                info.pax_headers |= {XATTR: "\x01\x02"} if name == "empty" else {}
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def normalised(raw: bytes, epoch: int = EPOCH) -> bytes:
    """`raw` in the one form."""
    out = io.BytesIO()
    with tempfile.TemporaryFile() as spill:
        found = layers.normalise(io.BytesIO(raw), spill)
        written = layers.write(found, spill, epoch, out)
    data = out.getvalue()
    assert written.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert written.size == len(data)
    return data


def read(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {info.name: info for info in archive}


def test_order_times_and_names_of_owners_are_gone() -> None:
    assert len({layer(seed, dots=bool(seed % 2)) for seed in range(8)}) == 8
    assert len({normalised(layer(seed, dots=bool(seed % 2))) for seed in range(8)}) == 1


def test_form_of_the_tar_is_gone() -> None:
    """GNU's long names against pax headers; what only pax can say (attributes) is left out of both."""
    without = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(layer(1))) as source,
        tarfile.open(fileobj=without, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for info in source:
            info.pax_headers = {}
            target.addfile(info, source.extractfile(info) if info.isreg() else None)
    assert normalised(without.getvalue()) == normalised(layer(2, form=tarfile.GNU_FORMAT))


def test_second_time_changes_nothing() -> None:
    once = normalised(layer(1))
    assert normalised(once) == once


def test_names_are_in_order_and_links_after_their_files() -> None:
    names = list(read(normalised(layer(3))))
    assert names == sorted(FILES, key=lambda name: name.encode().split(b"/"))


def test_file_of_several_names_comes_under_the_first() -> None:
    found = read(normalised(layer(4)))
    assert found["a/second"].isreg()
    assert found["a/second"].size == 6000
    assert {found[name].linkname for name in ("z/first", "z/third")} == {"a/second"}
    assert found["z/first"].islnk()
    assert (found["below"].type, found["below"].linkname) == (tarfile.LNKTYPE, "in/another/layer")


def test_what_counts_is_kept() -> None:
    data = normalised(layer(5))
    found = read(data)
    for name, (kind, text, mode, uid) in FILES.items():
        info = found[name]
        assert (info.mode, info.uid, info.gid) == (mode, uid, uid), name
        assert (info.uname, info.gname) == ("", "")
        if "/first" not in name and "second" not in name and "third" not in name:
            assert info.type == kind
        if kind == tarfile.SYMTYPE:
            assert info.linkname == text
    assert (found["dev/null"].devmajor, found["dev/null"].devminor) == (1, 3)
    assert found["empty"].pax_headers == {XATTR: "\x01\x02"}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        content = archive.extractfile(KOREAN)
        assert content is not None
        assert content.read() == "값\n".encode()


def test_pax_headers_hold_nothing_else() -> None:
    keys = {key for info in read(normalised(layer(6))).values() for key in info.pax_headers}
    assert keys <= {"path", "linkpath", "uid", "gid", XATTR}


def test_time_follows_the_content_and_only_that() -> None:
    before = read(normalised(layer(7)))
    after = read(normalised(layer(8, etc_passwd="root:x:0:0::/:/bin/zh\n")))
    assert before["etc/passwd"].size == after["etc/passwd"].size
    assert before["etc/passwd"].mtime != after["etc/passwd"].mtime
    assert {n for n in FILES if before[n].mtime != after[n].mtime} == {"etc/passwd"}
    assert before["etc"].mtime == EPOCH
    assert before["bin/sh"].mtime == EPOCH
    age = int.from_bytes(hashlib.sha256(b"root:x:0:0::/:/bin/sh\n").digest()[:3], "big")
    assert before["etc/passwd"].mtime == EPOCH - age


def test_empty_layer_is_one_too() -> None:
    assert normalised(bytes(10240)) == bytes(1024)
    assert normalised(bytes(1024)) == bytes(1024)


def test_root_folder_comes_first() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("./etc", "./"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
    assert list(read(normalised(data.getvalue()))) == [".", "etc"]


@pytest.mark.parametrize("cut", [100, 512, 700, 1500, -4000])
def test_cut_off_is_said(cut: int) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("big")
        info.size = 5000
        archive.addfile(info, io.BytesIO(bytes(5000)))
    whole = data.getvalue()[: 512 + 5120]
    with pytest.raises(LayerError), tempfile.TemporaryFile() as spill:
        layers.normalise(io.BytesIO(whole[:cut]), spill)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"\xff" + data[1:],
        lambda data: data[:512] + b"zz" + data[514:],
    ],
)
def test_damage_is_said(damage: Any) -> None:
    raw = layer(9)
    first = next(i for i in range(0, len(raw), 512) if raw[i + 156 : i + 157] == b"x")
    with pytest.raises(LayerError), tempfile.TemporaryFile() as spill:
        layers.normalise(io.BytesIO(damage(raw[first:])), spill)


def test_names_and_attributes_have_a_limit() -> None:
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(LayerError, match="1073741824 bytes"), tempfile.TemporaryFile() as spill:
        layers.normalise(io.BytesIO(head.tobuf(tarfile.USTAR_FORMAT)), spill)


def test_configuration_says_nothing_of_the_engine() -> None:
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "1:1", "Env": ["A=b"]},
        "created": "2026-11-21T10:11:12.123456789Z",
        "container": "c0ffee",
        "docker_version": "26.1.5",
        "history": [
            {"created": "2026-11-21T10:11:12.1Z", "created_by": "RUN x", "comment": "c"},
            {"created": "2026-11-21T10:11:13.2Z", "created_by": "USER 1", "empty_layer": True},
        ],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:old"]},
    }
    new = json.loads(rewrite_config(json.dumps(raw).encode(), ["sha256:new"], 0))
    then = "1970-01-01T00:00:00Z"
    assert new == {
        "architecture": "amd64",
        "os": "linux",
        "config": raw["config"],
        "created": then,
        "history": [
            {"created": then, "created_by": "RUN x", "comment": "c"},
            {"created": then, "created_by": "USER 1", "empty_layer": True},
        ],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:new"]},
    }


def test_images_that_share_are_asked_for_together() -> None:
    layers_of = {
        "postgres": ["base", "p"],
        "minio": ["base", "curl", "m"],
        "mlflow": ["base", "python", "x"],
        "gateway": ["base", "curl", "g"],
        "phoenix": ["base", "python", "y"],
        "ops": ["base", "z", "python"],
    }
    facts = {name: {"RootFS": {"Layers": found}} for name, found in layers_of.items()}
    groups = packing._groups(facts)
    assert [sorted(group) for group in groups] == [
        ["postgres"],
        ["gateway", "minio"],
        ["mlflow", "ops", "phoenix"],
    ]
