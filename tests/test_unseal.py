"""The checker: every damage is found and named, nothing is written before; then the small part is unpacked."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from bundle import arrive, kept, unpack, unseal
from tests import bundles

LENT = (unseal, arrive, kept, unpack)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copy(tmp_path: Path, made: bundles.Made) -> Path:
    return Path(shutil.copy(made.path, tmp_path / "copy.tar"))


def problems(path: Path, digest: str) -> str:
    with pytest.raises(unseal.SealError) as caught:
        unseal.check(path, digest)
    assert caught.value.code == 5
    assert caught.value.hint
    return "\n".join(caught.value.problems)


def test_sound_bundle_passes_and_every_content_byte_is_counted(made: bundles.Made) -> None:
    counted: list[int] = []
    assert unseal.check(made.path, made.digest, counted.append)["version"] == "1.0"
    sizes = sum(member.size for member in made.manifest.members)
    assert sum(counted) - sizes == len(unseal.manifest_bytes(made.path)) + 0 or sum(counted) > sizes


def test_any_flipped_bit_is_found(
    made: bundles.Made, copy: Path, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    data, sound = bytearray(copy.read_bytes()), made.path.read_bytes()
    signature = unseal.members(made.path)["MANIFEST.sig"]
    for _ in range(200 if request.config.option.nightly else 20):
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        if not signature[0] <= place < sum(signature):  # openssl looks at that one, see integration
            copy.write_bytes(data)
            assert problems(copy, made.digest), f"byte {place}"
        data[place] = sound[place]


def test_flip_in_each_kind_of_place_names_the_member(made: bundles.Made, copy: Path) -> None:
    places = unseal.members(made.path)
    data = bytearray(copy.read_bytes())
    blob = max(name for name in places if name.startswith("blobs/"))
    offset, size = places[blob]
    for place in (
        offset,
        offset + size - 1,
        offset + size,
        offset - 512,
        offset - 512 + 124,
        offset - 1,
    ):
        data[place] ^= 1
        copy.write_bytes(data)
        assert blob in problems(copy, made.digest), place - offset
        data[place] ^= 1


def test_flip_in_the_end_is_found(made: bundles.Made, copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    data[-1] = 1
    copy.write_bytes(data)
    assert "extra bytes after the last member" in problems(copy, made.digest)


def test_truncation_anywhere_is_found(
    made: bundles.Made, copy: Path, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    data = copy.read_bytes()
    lengths = [0, 1, 512, len(data) - 1, len(data) - 512]
    lengths += [rng.randrange(len(data)) for _ in range(20 if request.config.option.nightly else 5)]
    for length in lengths:
        copy.write_bytes(data[:length])
        assert problems(copy, made.digest), f"length {length}"


def test_truncated_file_says_how_far_it_goes(made: bundles.Made, copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:-200_000])
    assert "cut off at" in problems(copy, made.digest)


def test_longer_file_is_refused(made: bundles.Made, copy: Path) -> None:
    copy.write_bytes(copy.read_bytes() + bytes(10240))
    assert "extra bytes after the last member" in problems(copy, made.digest)


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("small/extra.py", b"0", ""),
        ("../../etc/cron.d/x", b"0", ""),
        ("/etc/passwd", b"0", ""),
        ("small/link", b"2", "/etc/shadow"),
        ("small/hard", b"1", "tasks.py"),
        ("small/device", b"3", ""),
        ("small/fifo", b"6", ""),
        ("small/folder", b"5", ""),
        ("././@LongLink", b"L", ""),
        ("PaxHeaders/x", b"x", ""),
    ],
)
@pytest.mark.parametrize("where", [5, -1])
def test_extra_member_is_named(
    made: bundles.Made, copy: Path, name: str, kind: bytes, link: str, where: int
) -> None:
    members = bundles.split(copy)
    members.insert(
        where if where > 0 else len(members), bundles.member(name, b"x" * 600, kind, link)
    )
    bundles.join(copy, members)
    assert f"{name}: extra" in problems(copy, made.digest)


def test_duplicated_member_is_named(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    bundles.join(copy, [*members, members[bundles.index(members, "small/tasks.py")]])
    assert "small/tasks.py: duplicated" in problems(copy, made.digest)


def test_second_version_of_a_member_is_named(made: bundles.Made, copy: Path) -> None:
    bundles.join(copy, [*bundles.split(copy), bundles.member("small/tasks.py", b"evil")])
    assert "small/tasks.py: duplicated" in problems(copy, made.digest)


def test_missing_changed_and_extra_are_all_named_at_once(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    del members[bundles.index(members, "small/scripts/quickstart")]
    at = bundles.index(members, "small/tasks.py")
    members[at] = bundles.member("small/tasks.py", b"# a tusk\n")
    members.insert(at, bundles.member("small/new.py", b""))
    bundles.join(copy, members)
    text = problems(copy, made.digest)
    assert "small/scripts/quickstart: missing" in text
    assert "small/tasks.py: changed" in text
    assert "small/new.py: extra" in text


def test_member_of_another_size_is_named(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    at = bundles.index(members, "small/tasks.py")
    members[at] = bundles.member("small/tasks.py", b"longer" * 200)
    bundles.join(copy, members)
    assert "small/tasks.py: changed (size 1200, sealed 9)" in problems(copy, made.digest)


def test_member_that_became_a_link_is_named(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    members[bundles.index(members, "small/tasks.py")] = bundles.member(
        "small/tasks.py", b"", b"2", "/etc/shadow"
    )
    bundles.join(copy, members)
    assert "small/tasks.py: changed (a link" in problems(copy, made.digest)


def test_swapped_blobs_are_named(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    first, second = made.manifest.images[0].layers[1], made.manifest.images[1].layers[1]
    a, b = (bundles.index(members, f"blobs/{d.replace(':', '/')}") for d in (first, second))
    members[a], members[b] = (members[a][0], members[b][1]), (members[b][0], members[a][1])
    bundles.join(copy, members)
    text = problems(copy, made.digest)
    assert first[7:] in text
    assert second[7:] in text


def test_moved_member_is_named(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    members[-1], members[-2] = members[-2], members[-1]
    bundles.join(copy, members)
    assert "moved" in problems(copy, made.digest)


def test_renamed_blob_is_extra_and_missing(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    name = "blobs/" + made.manifest.images[0].config.replace(":", "/")
    at = bundles.index(members, name)
    size = int(members[at][0][124:135], 8)
    members[at] = bundles.member("blobs/sha256/" + "0" * 64, members[at][1][:size])
    bundles.join(copy, members)
    text = problems(copy, made.digest)
    assert f"{name}: missing" in text
    assert "0: extra" in text


def test_negative_size_does_not_send_the_walk_back(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    header = bytearray(members[6][0])
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512 in the binary form
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    members[6] = (bytes(header), members[6][1])
    data = b"".join(head + content for head, content in members)
    copy.write_bytes(data + bytes(unseal.file_end(len(data)) - len(data)))
    assert "changed" in problems(copy, made.digest)


def test_manifest_of_another_bundle_is_refused(tmp_path: Path, made: bundles.Made) -> None:
    other = bundles.make(tmp_path / "other", version="1.1")
    assert "not the one that was signed" in problems(other.path, made.digest)


def test_huge_manifest_is_not_read(made: bundles.Made, copy: Path) -> None:
    members = bundles.split(copy)
    header = unseal.header("MANIFEST.json", 300 << 20, 0o644, bundles.CREATED)
    copy.write_bytes(members[0][0] + members[0][1] + header + b"{}")
    assert "MANIFEST.json is not where it must be" in problems(copy, made.digest)


def test_odd_names_are_shown_without_their_control_characters(
    made: bundles.Made, copy: Path
) -> None:
    bundles.join(copy, [*bundles.split(copy), bundles.member("small/\x1b[31m", b"")])
    assert "\x1b" not in problems(copy, made.digest)


# ---- the command ----


def run(made: bundles.Made, root: Path, *options: str) -> int:
    arguments = [str(made.path), "--manifest", made.digest, "--root", str(root)]
    return unseal.main([*arguments, "--fingerprint", made.fingerprint, *options])


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command lends itself to unpack.py as a stub of the package: undo that."""
    import sys

    for name in ("bundle", *(module.__name__ for module in LENT)):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    monkeypatch.setattr(unseal, "KOREAN", False)


def test_check_writes_nothing(tmp_path: Path, made: bundles.Made) -> None:
    assert run(made, tmp_path / "root", "--check") == 0
    assert not (tmp_path / "root").exists()


def test_nothing_is_written_when_the_check_fails(
    tmp_path: Path, made: bundles.Made, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(copy.read_bytes())
    data[-20_000] ^= 1
    copy.write_bytes(data)
    code = unseal.main([str(copy), "--manifest", made.digest, "--root", str(tmp_path / "root")])
    assert code == 5
    assert not (tmp_path / "root").exists()
    shown = capsys.readouterr().err
    assert "error: blobs/sha256/" in shown
    assert "hint: Copy the file again" in shown


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_small_part_is_unpacked_with_fixed_modes(
    tmp_path: Path, made: bundles.Made, umask: int
) -> None:
    root, before = tmp_path / "한글 폴더", os.umask(umask)
    try:
        assert run(made, root) == 0
    finally:
        os.umask(before)
    home = root / "releases" / "1.0"
    assert (root / "current").resolve() == home
    assert os.readlink(root / "current") == "releases/1.0"
    assert (mode(home / "tasks.py"), mode(home / "scripts/quickstart")) == (0o644, 0o755)
    assert (mode(home), mode(root / "releases"), mode(home / "bundle")) == (0o755, 0o755, 0o755)
    assert not (home / "bundle" / "__pycache__").exists()
    record = json.loads((home / "release.json").read_text())
    assert (record["bundle"], record["version"]) == (str(made.path), "1.0")
    assert (record["sha256_manifest"], record["fingerprint"]) == (made.digest, made.fingerprint)
    assert (home / "MANIFEST.json").read_bytes() == unseal.manifest_bytes(made.path)
    assert not [
        path
        for path in (root / "releases").iterdir()
        if path.name not in ("1.0", "installed.json", "trusted.json")
    ]


def test_environment_is_made_for_its_final_place(
    tmp_path: Path, made: bundles.Made, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "with space"
    assert run(made, root) == 0
    venv = root / "releases" / "1.0" / ".venv"
    site = next(venv.glob("lib/python3*/site-packages"))
    assert (site / "demo" / "__init__.py").is_file()
    assert (site / "demo_extra.py").is_file()
    assert not list(tmp_path.rglob("escape.py"))
    assert sorted(path.name for path in (venv / "bin").glob("*demo*")) == ["demo"]
    assert f"'{venv}/bin/python' " in (venv / "bin" / "demo").read_text()
    activate = (venv / "bin" / "activate").read_text()
    assert str(venv) in activate
    assert "staging" not in activate
    out = capsys.readouterr().out
    assert out == f"cd '{root}/current' && . .venv/bin/activate && invoke install\n"


def test_second_run_changes_nothing(tmp_path: Path, made: bundles.Made) -> None:
    assert run(made, tmp_path / "root") == 0
    home = tmp_path / "root" / "releases" / "1.0"
    before = home.stat().st_ino
    (home / "reports").mkdir()
    assert run(made, tmp_path / "root") == 0
    assert home.stat().st_ino == before
    assert (home / "reports").is_dir()


def test_changed_tool_is_unpacked_again(tmp_path: Path, made: bundles.Made) -> None:
    assert run(made, tmp_path / "root") == 0
    home = tmp_path / "root" / "releases" / "1.0"
    (home / "tasks.py").write_text("# broken\n")
    assert run(made, tmp_path / "root") == 0
    assert (home / "tasks.py").read_text() == "# a task\n"


def test_what_a_killed_run_left_is_cleared(tmp_path: Path, made: bundles.Made) -> None:
    releases = tmp_path / "root" / "releases"
    (releases / "1.0.staging-1").mkdir(parents=True)
    (releases / "1.0.old-1").mkdir()
    (releases / "1.0").mkdir()
    assert run(made, tmp_path / "root") == 0
    assert sorted(path.name for path in releases.iterdir()) == [
        "1.0",
        "installed.json",
        "trusted.json",
    ]


def test_failure_in_the_middle_leaves_no_half_release(
    tmp_path: Path, made: bundles.Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "sync", full)
    assert run(made, tmp_path / "root") == 3
    assert list((tmp_path / "root" / "releases").iterdir()) == []
    assert not (tmp_path / "root" / "current").exists()


def test_other_task_at_work_is_waited_for(tmp_path: Path, made: bundles.Made) -> None:
    import fcntl

    root = tmp_path / "root"
    root.mkdir()
    with open(root / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(made, root) == 7


def test_newer_replaces_current_and_older_is_refused(
    tmp_path: Path, made: bundles.Made, capsys: pytest.CaptureFixture[str]
) -> None:
    root, newer = (
        tmp_path / "root",
        bundles.make(tmp_path / "2", version="2.0", created=bundles.CREATED + 1),
    )
    assert run(made, root) == 0
    assert run(newer, root) == 0
    assert os.readlink(root / "current") == "releases/2.0"
    assert run(made, root) == 5
    assert "older than 2.0" in capsys.readouterr().err
    assert run(made, root, "--check") == 5
    assert os.readlink(root / "current") == "releases/2.0"
    assert run(made, root, "--accept-rollback") == 0
    assert "warning: the bundle 1.0 is older than 2.0" in capsys.readouterr().err
    assert os.readlink(root / "current") == "releases/1.0"


def test_expired_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = bundles.make(tmp_path / "old", created=1_500_000_000, expires=1_600_000_000)
    assert run(old, tmp_path / "root") == 5
    assert "--accept-expired" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()
    assert run(old, tmp_path / "root", "--accept-expired") == 0
    assert "warning: the bundle expired" in capsys.readouterr().err


def test_messages_are_korean_for_a_korean_operator(
    tmp_path: Path,
    made: bundles.Made,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unseal, "KOREAN", True)
    assert unseal.main([str(made.path), "--manifest", "0" * 64, "--root", str(tmp_path / "r")]) == 5
    assert "오류: MANIFEST.json이 서명된 것과 다릅니다" in capsys.readouterr().err


@pytest.mark.parametrize("root", ['a"b', "a$b", "a`b", "a:b", "a\nb", "a\\b", "a'b"])
def test_root_that_a_shell_would_read_otherwise_is_refused(
    tmp_path: Path, made: bundles.Made, root: str
) -> None:
    assert run(made, tmp_path / root) == 2


def test_root_that_cannot_be_made_is_explained(
    tmp_path: Path, made: bundles.Made, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(made, tmp_path / "file") == 3
    assert "hint:" in capsys.readouterr().err


def test_absent_file_is_an_argument_error(tmp_path: Path) -> None:
    assert unseal.main([str(tmp_path / "none"), "--manifest", "0" * 64]) == 2


def test_wrong_machine_is_refused(
    tmp_path: Path,
    made: bundles.Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert run(made, tmp_path / "root") == 3
    assert "this host is riscv64" in capsys.readouterr().err


def test_what_no_thread_came_to_read_is_not_taken_for_right(
    made: bundles.Made, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = unseal._fault

    def dies(file: unseal.Reader, start: int, *rest: object) -> str:
        if start == victim:
            raise IndexError("as if that thread had died")
        return read(file, start, *rest)  # type: ignore[arg-type]

    places = unseal.members(copy)
    name = max(name for name in places if name.startswith("blobs/"))
    victim = places[name][0]
    monkeypatch.setattr(unseal, "_fault", dies)
    assert f"{name}: cannot be read" in problems(copy, made.digest)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_any_number_of_cores_finds_the_same(
    made: bundles.Made, copy: Path, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    places, data = unseal.members(copy), bytearray(copy.read_bytes())
    names = [name for name in places if places[name][1] and name != "MANIFEST.json"][-5:]
    for name in names:
        data[places[name][0]] ^= 1
    copy.write_bytes(data)
    assert problems(copy, made.digest).splitlines() == [f"{name}: changed" for name in names]


def test_host_without_room_for_threads_is_checked_by_one(
    made: bundles.Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    assert unseal.check(made.path, made.digest)["version"] == "1.0"
