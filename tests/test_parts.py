"""A bundle in parts: read as one, each fault named by its part, made again to the byte, copied and taken up again."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle import cutting, manifest, site, unseal
from bundle.cutting import Form
from bundle.errors import ConfigError, PreconditionError
from bundle.trust import fingerprint_of
from tests import bundles

SPLIT = 60_000


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("key") / "sign.key"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, key: Path) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("whole"), key=key)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, key: Path, whole: bundles.Made) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("made"), key=key, form=Form(split=SPLIT))


@pytest.fixture
def folder(tmp_path: Path, made: bundles.Made) -> Path:
    return Path(shutil.copytree(made.path.parent, tmp_path / "medium"))


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker lends itself to sealed modules as a stub of the package: undo that."""
    import sys

    for name in ("bundle", "bundle.unseal"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    monkeypatch.setattr(unseal, "KOREAN", False)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.[0-9][0-9][0-9]"))


def run(made: bundles.Made, folder: Path, *options: str) -> int:
    first = folder / made.path.name
    arguments = [str(first), "--manifest", made.digest, "--fingerprint", made.fingerprint]
    if "--root" not in options:
        arguments += ["--root", str(folder / "no-root")]
    return unseal.main([*arguments, *options])


def test_parts_are_the_whole_file_cut(whole: bundles.Made, made: bundles.Made) -> None:
    files = parts(made.path.parent)
    assert made.path == files[0]
    assert len(files) >= 4
    assert {part.stat().st_size for part in files[:-1]} == {SPLIT}
    assert b"".join(part.read_bytes() for part in files) == whole.path.read_bytes()
    assert not whole.path.with_name("x").exists()
    assert fingerprint_of(made.path) == made.fingerprint


def test_parts_are_read_as_one(whole: bundles.Made, made: bundles.Made, rng: random.Random) -> None:
    data = whole.path.read_bytes()
    assert unseal.members(made.path) == unseal.members(whole.path)
    with unseal.Reader(made.path) as file:
        assert file.size == len(data)
        for _ in range(200):
            at, size = rng.randrange(len(data) + 10), rng.randrange(3 * SPLIT)
            assert file.read(size, at) == data[at : at + size]
    assert manifest.read(made.path) == manifest.read(whole.path)


def test_parts_are_unpacked(tmp_path: Path, made: bundles.Made, folder: Path) -> None:
    root = tmp_path / "root"
    assert run(made, folder, "--root", str(root)) == 0
    home = root / "releases" / "1.0"
    assert (home / "tasks.py").read_text() == "# a task\n"
    assert json.loads((home / "release.json").read_text())["bundle"] == str(folder / made.path.name)
    assert manifest.release(home).bundle == folder / made.path.name


def gone(folder: Path) -> set[str]:
    parts(folder)[1].unlink()
    return {"002"}


def last_gone(folder: Path) -> set[str]:
    found = parts(folder)[-1]
    found.unlink()
    return {found.suffix[1:]}


def truncated(folder: Path) -> set[str]:
    os.truncate(parts(folder)[2], SPLIT - 7)
    return {"003"}


def last_truncated(folder: Path) -> set[str]:
    found = parts(folder)[-1]
    os.truncate(found, found.stat().st_size - 1)
    return {found.suffix[1:]}


def longer(folder: Path) -> set[str]:
    with open(parts(folder)[1], "ab") as file:
        file.write(b"x")
    return {"002"}


def swapped(folder: Path) -> set[str]:
    second, third = parts(folder)[1:3]
    second.rename(folder / "x")
    third.rename(second)
    (folder / "x").rename(third)
    return {"002", "003"}


def flipped(folder: Path) -> set[str]:
    data = bytearray(parts(folder)[2].read_bytes())
    data[SPLIT // 2] ^= 1
    parts(folder)[2].write_bytes(data)
    return {"003"}


def two_flipped(folder: Path) -> set[str]:
    parts(folder)[1].unlink()
    return {"002"} | flipped_at(folder, 3)


def flipped_at(folder: Path, index: int) -> set[str]:
    place = next(folder.glob(f"*.{index + 1:03d}"))
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    return {f"{index + 1:03d}"}


def extra(folder: Path) -> set[str]:
    found = parts(folder)
    name = found[0].with_suffix(f".{len(found) + 1:03d}")
    name.write_bytes(b"left over")
    return {name.suffix[1:]}


def flipped_anywhere(folder: Path) -> set[str]:
    return flipped_at(folder, 3)


FAULTS = [
    flipped_anywhere,
    gone,
    last_gone,
    truncated,
    last_truncated,
    longer,
    swapped,
    flipped,
    two_flipped,
    extra,
]


@pytest.mark.parametrize("table", [True, False], ids=["table", "no table"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_damaged_part_is_named(
    made: bundles.Made,
    folder: Path,
    fault: Callable[[Path], set[str]],
    table: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not table:
        next(folder.glob("*.parts.json")).unlink()
    bad = fault(folder)
    assert run(made, folder, "--check") == 5
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    stem = made.path.name[:-3]
    named = {line.split(stem)[1][:3] for line in shown.splitlines() if f"error: {stem}" in line}
    assert named >= bad
    if table:
        assert named == bad
    assert "hint:" in shown


def test_flip_at_any_place_names_its_part_without_a_table(
    made: bundles.Made,
    folder: Path,
    rng: random.Random,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    next(folder.glob("*.parts.json")).unlink()
    signature, size = unseal.members(folder / made.path.name)["MANIFEST.sig"]
    for _ in range(200 if request.config.option.nightly else 20):
        part = rng.choice(parts(folder))
        sound = part.read_bytes()
        data, place = bytearray(sound), rng.randrange(len(sound))
        data[place] ^= 1 << rng.randrange(8)
        if part.suffix == ".001" and place < 2 * signature + size:
            continue  # what bootstrap.sh looks at, see integration
        part.write_bytes(data)
        assert run(made, folder, "--check") == 5
        assert f"error: {part.name}: " in capsys.readouterr().err, (part, place)
        part.write_bytes(sound)


def test_part_of_another_bundle_is_named(
    tmp_path: Path, made: bundles.Made, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = bundles.CREATED + 1
    other = bundles.make(tmp_path / "other", created=later, form=Form(split=SPLIT))
    shutil.copy(parts(other.path.parent)[1], parts(folder)[1])
    assert run(made, folder, "--check") == 5
    assert ".002: changed, or of another bundle" in capsys.readouterr().err


def test_renamed_parts_say_what_they_are(
    made: bundles.Made, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped(folder)
    assert run(made, folder, "--check") == 5
    shown = capsys.readouterr().err
    assert f".002: this is {made.path.name[:-4]}.003, renamed" in shown


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"parts": 3}', '{"parts": [{"size": "x"}]}', '{"parts": [], "manifest": 1}'],
)
def test_broken_table_of_parts_is_left_aside(
    made: bundles.Made, folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    next(folder.glob("*.parts.json")).write_text(text)
    flipped(folder)
    assert run(made, folder, "--check") == 5
    assert ".003: " in capsys.readouterr().err


def test_table_vouches_for_nothing(made: bundles.Made, folder: Path) -> None:
    """One who changes a part and the table too is still refused, and a wrong table harms no sound bundle."""
    import hashlib

    place = next(folder.glob("*.parts.json"))
    table = json.loads(place.read_text())
    table["parts"][2]["sha256"] = "0" * 64
    place.write_text(json.dumps(table))
    assert run(made, folder, "--check") == 0
    flipped(folder)
    table["parts"][2]["sha256"] = hashlib.sha256(parts(folder)[2].read_bytes()).hexdigest()
    place.write_text(json.dumps(table))
    assert run(made, folder, "--check") == 5


def test_requested_parts_are_made_again_to_the_byte(
    tmp_path: Path, key: Path, made: bundles.Made, folder: Path
) -> None:
    bad = two_flipped(folder)
    request = tmp_path / "request.json"
    assert run(made, folder, "--check", "--request", str(request)) == 5
    form = cutting.read_request(request)
    assert {f"{number:03d}" for number in form.only} == bad
    dist = tmp_path / "again" / "dist"
    dist.mkdir(parents=True)
    shutil.copy(made.path, dist)
    bundles.make(tmp_path / "again", key=key, form=form)
    fresh = parts(dist)[1:]
    assert {part.suffix[1:] for part in fresh} == bad
    for part in fresh:
        assert part.read_bytes() == (made.path.parent / part.name).read_bytes()
        shutil.copy(part, folder)
    assert run(made, folder, "--check") == 0


def test_parts_of_other_inputs_are_not_made(
    tmp_path: Path, key: Path, made: bundles.Made, folder: Path
) -> None:
    flipped(folder)
    request = tmp_path / "request.json"
    assert run(made, folder, "--check", "--request", str(request)) == 5
    form = cutting.read_request(request)
    with pytest.raises(PreconditionError, match="another bundle"):
        bundles.make(tmp_path / "again", version="1.1", key=key, form=form)
    assert list((tmp_path / "again" / "dist").iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "[]", '{"split": 1, "parts": [], "manifest": ""}', '{"split": 0, "parts": ["1"]}']
)
def test_request_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigError):
        cutting.read_request(tmp_path / "r.json")


# ---- cutting ----


@pytest.mark.parametrize(
    ("text", "size"),
    [("4000M", 4000 << 20), ("1G", 1 << 30), ("7", 7), ("5k", 5 << 10), ("3GiB", 3 << 30)],
)
def test_size_is_read(text: str, size: int) -> None:
    assert cutting.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "4,000M", "4T", "x", "1.5G"])
def test_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        cutting.parse_size(text)


def test_part_that_fat32_cannot_hold_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for split, warned in ((4000 << 20, False), ((4 << 30) - 1, False), (4 << 30, True), (0, True)):
        caplog.clear()
        with caplog.at_level("WARNING"):
            cutting.check_form(Form(split=split), total=9 << 30, head=1, manifest="")
        assert ("FAT32" in caplog.text) == warned, split


def test_parts_too_small_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too small") as caught:
        bundles.make(tmp_path, form=Form(split=5000))
    assert "at least" in caught.value.problems[0].hint
    with pytest.raises(ConfigError, match="too small"):
        cutting.check_form(Form(split=1000), total=1_000_000, head=10, manifest="")
    assert list((tmp_path / "dist").iterdir()) == []


def test_earlier_form_of_the_same_bundle_is_taken_away(tmp_path: Path, key: Path) -> None:
    bundles.make(tmp_path, key=key, form=Form(split=SPLIT))
    bundles.make(tmp_path, key=key, form=Form(split=2 * SPLIT))
    assert {part.stat().st_size for part in parts(tmp_path / "dist")[:-1]} == {2 * SPLIT}
    made = bundles.make(tmp_path, key=key)
    assert [path.name for path in sorted((tmp_path / "dist").iterdir())] == [
        made.path.name,
        made.path.with_suffix(".trust.txt").name,
    ]


# ---- copying ----


def test_copy_is_checked_and_a_second_one_writes_nothing(
    tmp_path: Path, made: bundles.Made, folder: Path
) -> None:
    target = tmp_path / "site"
    assert run(made, folder, "--copy", str(target)) == 0
    assert [part.read_bytes() for part in parts(target)] == [p.read_bytes() for p in parts(folder)]
    assert len(list(target.glob("*.parts.json"))) == 1
    before = [part.stat().st_mtime_ns for part in parts(target)]
    assert run(made, folder, "--copy", str(target)) == 0
    assert [part.stat().st_mtime_ns for part in parts(target)] == before
    assert not list(target.glob("*.partial"))


def test_copy_that_broke_off_is_taken_up(
    tmp_path: Path, whole: bundles.Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "site"
    target.mkdir()
    data, half = whole.path.read_bytes(), 200_000
    partial = target / (whole.path.name + ".partial")
    partial.write_bytes(data[:half])
    assert run(whole, whole.path.parent, "--copy", str(target)) == 0
    assert (target / whole.path.name).read_bytes() == data
    assert not partial.exists()


def test_garbage_of_a_power_cut_is_written_again(
    tmp_path: Path, made: bundles.Made, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "site"
    target.mkdir()
    name = parts(folder)[1].name
    (target / name).write_bytes(bytes(SPLIT))
    assert run(made, folder, "--copy", str(target)) == 0
    assert "written again: 1 MB" in capsys.readouterr().err
    assert (target / name).read_bytes() == (folder / name).read_bytes()


def test_damaged_source_is_not_taken_for_a_copy(
    tmp_path: Path, made: bundles.Made, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flipped(folder)
    assert run(made, folder, "--copy", str(tmp_path / "site")) == 5
    assert "changed" in capsys.readouterr().err


def test_copy_of_a_part_that_is_not_there_is_refused(
    tmp_path: Path, made: bundles.Made, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone(folder)
    assert run(made, folder, "--copy", str(tmp_path / "site")) == 3
    assert ".002: missing" in capsys.readouterr().err
    assert run(made, made.path.parent, "--copy", str(made.path.parent)) == 2


def test_copy_onto_a_full_medium_is_refused_in_numbers(
    tmp_path: Path,
    made: bundles.Made,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert run(made, folder, "--copy", str(tmp_path / "site")) == 3
    shown = capsys.readouterr().err
    assert "0 MB free" in shown
    assert "Make room" in shown
    assert not list((tmp_path / "site").iterdir())


# ---- the digest of the whole ----


def test_digest_of_the_whole_is_noted_once_and_kept(
    tmp_path: Path, whole: bundles.Made, made: bundles.Made, folder: Path
) -> None:
    import hashlib

    digest = hashlib.sha256(whole.path.read_bytes()).hexdigest()
    root = tmp_path / "root"
    home = root / "releases" / "1.0"
    for _ in range(2):
        assert run(made, folder, "--root", str(root)) == 0
        with site.noting_digest(manifest.installed(home)):
            pass
        assert manifest.installed(home).sha256 == digest
    shutil.rmtree(folder)
    with site.noting_digest(manifest.installed(home)):
        pass
    assert manifest.installed(home).sha256 == digest


def test_digest_of_another_file_is_not_noted(
    tmp_path: Path, made: bundles.Made, folder: Path
) -> None:
    root = tmp_path / "root"
    assert run(made, folder, "--root", str(root)) == 0
    later = bundles.CREATED + 1
    other = bundles.make(tmp_path / "other", created=later, form=Form(split=SPLIT))
    for part in parts(other.path.parent):
        shutil.copy(part, folder)
    with site.noting_digest(manifest.installed(root / "releases" / "1.0")):
        pass
    assert manifest.installed(root / "releases" / "1.0").sha256 == ""
