"""Whom the host believes: keys under a passphrase, a key that follows another, old media, parts, bombs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundle import door, manifest, seal, unseal
from bundle.cutting import Form
from bundle.errors import ConfigError, IntegrityError
from bundle.keys import load_key
from tests import bundles

SPLIT = 60_000
OPENSSL = ("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")


def boot(
    file: Path, *options: str, root: Path, shell: str = "sh", script: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Do what the trust sheet says."""
    command = [*shell.split(), str(script or bundles.TOP / "scripts/bootstrap.sh"), str(file)]
    return subprocess.run(
        [*command, "--root", str(root), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )


def named(made: bundles.Made) -> tuple[str, str]:
    return "--fingerprint", made.fingerprint


def recorded(root: Path) -> list[str]:
    keys: list[str] = json.loads((root / "releases" / "trusted.json").read_text())["keys"]
    return keys


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 5) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert "hint:" in done.stderr


# ---- a key that follows another ----


@dataclass(frozen=True, kw_only=True)
class Releases:
    """Signed by the old key, by the new one that follows it, by the new one alone, and by a stranger."""

    first: bundles.Made
    rotated: bundles.Made
    later: bundles.Made
    strange: bundles.Made


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    folder, then = tmp_path_factory.mktemp("releases"), bundles.CREATED
    old, new = folder / "old.key", folder / "new.key"
    return Releases(
        first=bundles.make(folder / "1", version="1.0", created=then, key=old),
        rotated=bundles.make(folder / "2", version="2.0", created=then + 1, key=new, old_key=old),
        later=bundles.make(folder / "3", version="3.0", created=then + 2, key=new),
        strange=bundles.make(folder / "4", version="4.0", created=then + 3),
    )


def test_two_keys_are_accepted_during_a_rotation_and_one_after_it(
    tmp_path: Path, releases: Releases
) -> None:
    root, old, new = tmp_path / "root", releases.first.fingerprint, releases.rotated.fingerprint
    assert boot(releases.first.path, *named(releases.first), root=root).returncode == 0
    assert recorded(root) == [old]
    done = boot(releases.rotated.path, root=root)  # no sheet: by the key that this host trusts
    assert done.returncode == 0, done.stderr
    assert f"the key {old}, which you trust, is followed by {new}" in done.stderr
    assert recorded(root) == [new, old]
    assert boot(releases.later.path, root=root).returncode == 0
    assert recorded(root) == [new]


@pytest.mark.parametrize("which", ["first", "rotated"])
def test_either_fingerprint_is_accepted_on_a_new_host(
    tmp_path: Path, releases: Releases, which: str
) -> None:
    by = getattr(releases, which)
    done = boot(releases.rotated.path, *named(by), root=tmp_path / "root")
    assert done.returncode == 0, done.stderr
    assert recorded(tmp_path / "root") == [
        releases.rotated.fingerprint,
        releases.first.fingerprint,
    ]


def test_unknown_key_is_refused_unless_the_operator_names_it(
    tmp_path: Path, releases: Releases
) -> None:
    root = tmp_path / "root"
    assert boot(releases.first.path, *named(releases.first), root=root).returncode == 0
    stranger = releases.strange
    refused(boot(stranger.path, root=root), "signed by another key", stranger.fingerprint)
    refused(boot(stranger.path, *named(releases.first), root=root), "signed by another key")
    refused(boot(releases.later.path, root=root), "signed by another key")
    assert recorded(root) == [releases.first.fingerprint]
    done = boot(stranger.path, *named(stranger), root=root)
    assert done.returncode == 0, done.stderr
    assert f"warning: the key {stranger.fingerprint} is new to this host" in done.stderr
    assert recorded(root) == [stranger.fingerprint]


def test_no_fingerprint_and_no_earlier_bundle_is_an_argument_error(
    tmp_path: Path, releases: Releases
) -> None:
    refused(boot(releases.first.path, root=tmp_path / "root"), "--fingerprint must be", code=2)


def test_statement_of_another_rotation_is_refused(tmp_path: Path, releases: Releases) -> None:
    """The stranger seals a bundle that carries the true statement about somebody else's keys."""
    forged = bundles.make(tmp_path / "f", version="5.0", old_key=releases_key(releases, "old.key"))
    members = bundles.split(releases.rotated.path)
    stolen = bundles.split(forged.path)
    for name in ("rotation.txt", "rotation.sig", "rotation.pem"):
        stolen[bundles.index(stolen, name)] = members[bundles.index(members, name)]
    bundles.join(forged.path, stolen)
    done = boot(forged.path, *named(releases.first), root=tmp_path / "root")
    refused(done, "rotation.txt: the older key did not say that")


def releases_key(releases: Releases, name: str) -> Path:
    return releases.first.path.parents[2] / name


@pytest.mark.parametrize("name", ["rotation.txt", "rotation.sig", "rotation.pem"])
def test_damaged_statement_is_refused(tmp_path: Path, releases: Releases, name: str) -> None:
    file = Path(shutil.copy(releases.rotated.path, tmp_path / "copy.tar"))
    place, size = unseal.members(file)[name]
    data = bytearray(file.read_bytes())
    data[place + size // 2] ^= 4
    file.write_bytes(data)
    refused(boot(file, *named(releases.first), root=tmp_path / "root"))
    refused(boot(file, *named(releases.rotated), root=tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_rollback_to_an_old_key_leaves_the_new_one_trusted(
    tmp_path: Path, releases: Releases
) -> None:
    root = tmp_path / "root"
    assert boot(releases.later.path, *named(releases.later), root=root).returncode == 0
    done = boot(releases.first.path, *named(releases.first), "--accept-rollback", root=root)
    assert done.returncode == 0, done.stderr
    assert "is new to this host" in done.stderr
    assert recorded(root) == [releases.later.fingerprint]


def test_recovery_from_an_old_medium(tmp_path: Path) -> None:
    """A new host, nothing but a medium of years ago and its sheet."""
    root, key = tmp_path / "root", tmp_path / "sign.key"
    old = bundles.make(tmp_path / "o", created=1_500_000_000, expires=1_600_000_000, key=key)
    new = bundles.make(tmp_path / "n", version="2.0", key=key)
    refused(boot(old.path, *named(old), root=root), "expired", "--accept-expired")
    assert boot(old.path, *named(old), "--accept-expired", root=root).returncode == 0
    assert boot(new.path, root=root).returncode == 0
    refused(boot(old.path, root=root), "--accept-expired --accept-rollback")
    both = ("--accept-rollback", "--accept-expired")
    assert boot(old.path, *both, root=root).returncode == 0
    assert os.readlink(root / "current") == "releases/1.0"


# ---- keys under a passphrase ----


def test_key_of_openssl_with_a_passphrase_signs(tmp_path: Path) -> None:
    plain, locked = tmp_path / "plain.pem", tmp_path / "locked.pem"
    subprocess.run([*OPENSSL, str(plain)], check=True, timeout=60, capture_output=True)
    lock = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", str(plain), "-out"]
    (tmp_path / "pass").write_text("맞는 암호\n")
    secret = ["-passout", f"file:{tmp_path / 'pass'}"]
    subprocess.run([*lock, str(locked), *secret], check=True, timeout=60, capture_output=True)
    for key in (plain, locked):
        key.chmod(0o600)
    right = load_key(locked, ask=lambda _: "맞는 암호".encode())
    assert right.fingerprint == load_key(plain).fingerprint
    with pytest.raises(ConfigError, match=r"passphrase of the signing key .* is wrong"):
        load_key(locked, ask=lambda _: b"wrong")
    with pytest.raises(ConfigError, match="has a passphrase, and none was given") as caught:
        load_key(locked)
    assert caught.value.exit_code == 2
    assert "TRACKING_SIGN_PASSPHRASE_FILE" in caught.value.problems[0].hint


# ---- parts ----


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("cut"), form=Form(split=SPLIT))


def shells() -> list[str]:
    return [s for s in ("dash", "bash --posix", "busybox sh") if shutil.which(s.split()[0])]


@pytest.mark.parametrize("shell", shells())
def test_first_part_stands_for_all(tmp_path: Path, cut: bundles.Made, shell: str) -> None:
    done = boot(cut.path, *named(cut), "--check", root=tmp_path / "root", shell=shell)
    assert done.returncode == 0, done.stderr
    assert "sealed and complete: 1.0" in done.stderr
    second = cut.path.with_suffix(".002")
    done = boot(second, *named(cut), root=tmp_path / "root", shell=shell)
    assert done.returncode == 2
    assert "name the first part" in done.stderr


def test_parts_unpack_on_a_full_sized_path(tmp_path: Path, cut: bundles.Made) -> None:
    medium = Path(shutil.copytree(cut.path.parent, tmp_path / "USB 매체: 1"))
    done = boot(medium / cut.path.name, *named(cut), root=tmp_path / "설치")
    assert done.returncode == 0, done.stderr
    assert manifest.release(tmp_path / "설치/releases/1.0").bundle == medium / cut.path.name


def test_damage_of_the_head_names_the_first_part(tmp_path: Path, cut: bundles.Made) -> None:
    medium = Path(shutil.copytree(cut.path.parent, tmp_path / "medium"))
    first = medium / cut.path.name
    for name in ("MANIFEST.json", "MANIFEST.sig", "key.pem", "unseal.py"):
        sound = first.read_bytes()
        data, (place, size) = bytearray(sound), unseal.members(first)[name]
        data[place + size // 2] ^= 4
        first.write_bytes(data)
        done = boot(first, *named(cut), root=tmp_path / "root")
        refused(
            done,
            "signed by another key" if name == "key.pem" and "key," in done.stderr else ".001: ",
        )
        first.write_bytes(sound)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("table", ["ours", "theirs", "none"])
def test_first_part_of_one_bundle_and_the_rest_of_another_are_refused(
    tmp_path: Path, cut: bundles.Made, table: str
) -> None:
    """Signed by the same key, of the same names and sizes."""
    medium, key = tmp_path / "medium", cut.path.parents[1] / "key" / "sign.key"
    later = bundles.CREATED + 1
    other = bundles.make(tmp_path / "other", created=later, key=key, form=Form(split=SPLIT))
    shutil.copytree(other.path.parent, medium)
    shutil.copy(cut.path, medium)
    (place,) = medium.glob("*.parts.json")
    if table == "ours":
        shutil.copy(cut.path.with_name(place.name), place)
    elif table == "none":
        place.unlink()
    request = tmp_path / "again.json"
    done = boot(
        medium / cut.path.name, *named(cut), "--request", str(request), root=tmp_path / "root"
    )
    refused(done)
    rest = [part.name for part in sorted(medium.glob("*.0??"))][1:]
    assert all(f"error: {name}: " in done.stderr for name in rest), done.stderr
    assert f"error: {cut.path.name}: " not in done.stderr
    assert json.loads(request.read_text())["parts"] == rest
    assert not (tmp_path / "root").exists()


@pytest.mark.timeout(600)  # 200 of them at night
def test_flips_over_all_parts_are_refused_by_name(
    tmp_path: Path, cut: bundles.Made, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    medium = Path(shutil.copytree(cut.path.parent, tmp_path / "medium"))
    files = sorted(medium.glob("*.[0-9][0-9][0-9]"))
    for _ in range(200 if request.config.option.nightly else 10):
        file = rng.choice(files)
        sound = file.read_bytes()
        data, place = bytearray(sound), rng.randrange(len(sound))
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        done = boot(medium / cut.path.name, *named(cut), root=tmp_path / "root")
        refused(done)
        first = file.name.endswith(".001")
        assert first or f"error: {file.name}: changed" in done.stderr, (file, place, done.stderr)
        file.write_bytes(sound)
    assert not (tmp_path / "root").exists()


def test_door_serves_blobs_that_lie_across_parts(cut: bundles.Made) -> None:
    import hashlib
    import urllib.request

    with door.serve(cut.path, cut.manifest) as shelf:
        for digest in shelf.blobs:
            address = f"http://{shelf.address}/v2/tracking-bundle/one/blobs/{digest}"
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert "sha256:" + hashlib.sha256(answer.read()).hexdigest() == digest
        offset, size = max(shelf.blobs.values(), key=lambda place: place[1])
        assert offset // SPLIT != (offset + size) // SPLIT, "this blob must lie across two parts"


def test_commands_of_the_sheet_for_parts_print_what_it_says(
    tmp_path: Path, cut: bundles.Made
) -> None:
    medium = Path(shutil.copytree(cut.path.parent, tmp_path / "medium"))
    text = next(medium.glob("*.trust.txt")).read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if b.startswith("= ")]
    assert len(pairs) == 4 + len(list(medium.glob("*.[0-9][0-9][0-9]")))
    opened = [line for line in lines if line.startswith("tar ")][1]
    for command, answer in pairs:
        done = subprocess.run(
            ["sh", "-c", f"{opened} && {command}"],
            cwd=medium,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip().endswith(answer[2:]), command
    last = text.strip().splitlines()[-1].split()
    assert last[:2] == ["sh", "bootstrap.sh"]
    (medium / "bootstrap.sh").write_bytes((bundles.TOP / "scripts/bootstrap.sh").read_bytes())
    checked = [*last, "--check", "--root", str(tmp_path / "root")]
    assert subprocess.run(checked, cwd=medium, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bundles.Made]:
    folder = tmp_path_factory.mktemp("large")
    image = bundles.packed(folder, "large", *(random.Random(n).randbytes(20 << 20) for n in (1, 2)))
    yield bundles.make(folder, extra_images=[image], form=Form(split=8 << 20))
    shutil.rmtree(folder)


def test_killed_copy_is_taken_up_by_the_next(
    tmp_path: Path, large: bundles.Made, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    target, script = tmp_path / "site", bundles.TOP / "scripts/bootstrap.sh"
    command = ["sh", str(script), str(large.path), *named(large), "--copy", str(target)]
    kept = 0
    for _ in range(10 if request.config.option.nightly else 3):
        shutil.rmtree(target, ignore_errors=True)
        child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 0.5))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)
        before = {p: p.stat().st_mtime_ns for p in target.glob("*.0??")} if target.exists() else {}
        done = boot(large.path, *named(large), "--copy", str(target), root=tmp_path / "root")
        assert done.returncode == 0, done.stderr
        assert "copied and complete: 1.0" in done.stderr
        assert not list(target.glob("*.partial"))
        kept += sum(path.stat().st_mtime_ns == when for path, when in before.items())
        assert all(path.stat().st_mtime_ns == when for path, when in before.items())
        for part in large.path.parent.glob("*.0??"):
            assert (target / part.name).read_bytes() == part.read_bytes()
    assert not (tmp_path / "root").exists()


# ---- bombs ----


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A wheel of one megabyte with one file of a thousand."""
    path, info = tmp_path_factory.mktemp("bomb") / "bomb.whl", zipfile.ZipInfo("bomb/data")
    info.compress_type = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(path, "w") as file,
        file.open(info, "w") as inner,
    ):
        for _ in range(1 << 10):
            inner.write(bytes(1 << 20))
    return path.read_bytes()


def bomb(folder: Path, gigabyte: bytes, *, times: int = 1, said: int = 1 << 30) -> Path:
    """The same megabyte named so many times in the wheel's directory, each `said` to unpack to so much."""
    begin, end = gigabyte.rindex(b"PK\x01\x02"), gigabyte.rindex(b"PK\x05\x06")
    entry = gigabyte[begin : begin + 24] + said.to_bytes(4, "little") + gigabyte[begin + 28 : end]
    count = times.to_bytes(2, "little")
    size = (len(entry) * times).to_bytes(4, "little")
    tail = gigabyte[end : end + 8] + count + count + size + gigabyte[end + 16 :]
    path = folder / "bomb-1.0-py3-none-any.whl"
    path.write_bytes(gigabyte[:begin] + entry * times + tail)
    return path


def limited() -> None:
    """No process may ask for more than 200 MB."""
    resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))


def test_bomb_is_not_sealed(tmp_path: Path, gigabyte: bytes) -> None:
    wheel = bomb(tmp_path, gigabyte, times=10)
    assert wheel.stat().st_size < 1_100_000
    with pytest.raises(IntegrityError, match="unpacked"):
        bundles.make(tmp_path, wheels=[wheel])


@pytest.mark.parametrize(("times", "said"), [(10, 1 << 30), (1, 5000)], ids=["10 GB", "5 kB"])
def test_bomb_of_a_key_holder_who_lies_is_stopped_while_unpacking(
    tmp_path: Path, gigabyte: bytes, times: int, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "_unpacked", lambda _: 100_000)
    made = bundles.make(tmp_path / "b", wheels=[bomb(tmp_path, gigabyte, times=times, said=said)])
    root, script = tmp_path / "root", bundles.TOP / "scripts/bootstrap.sh"
    done = subprocess.run(
        ["sh", str(script), str(made.path), *named(made), "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=limited,
        env={"PATH": os.environ["PATH"]},
    )
    refused(done, "wheels/bomb-1.0-py3-none-any.whl: ")
    assert sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) < 20 << 20
    assert not (root / "current").exists()


def test_image_that_claims_to_unpack_to_too_much_is_refused(made_image: manifest.Manifest) -> None:
    image = dataclasses.replace(made_image.images[0], size=10 << 30, sizes=())
    wrong = dataclasses.replace(made_image, images=(image, *made_image.images[1:]))
    with pytest.raises(unseal.SealError, match="size of the image"):
        unseal.parse_manifest(manifest.dump(wrong))


@pytest.fixture
def made_image(tmp_path: Path) -> manifest.Manifest:
    return bundles.make(tmp_path).manifest


def test_manifest_of_300_mb_is_refused_fast_in_little_memory(
    tmp_path: Path,
) -> None:
    made = bundles.make(tmp_path / "m")
    members = bundles.split(made.path)
    header = unseal.header("MANIFEST.json", 300 << 20, 0o644, bundles.CREATED)
    with open(made.path, "wb") as file:
        file.write(b"".join(members[0]) + header)
        file.truncate(file.tell() + (300 << 20))
        file.seek(0, os.SEEK_END)
        file.write(b"".join(head + content for head, content in members[2:]) + bytes(10240))
    script, begin = bundles.TOP / "scripts/bootstrap.sh", time.monotonic()
    done = subprocess.run(
        ["sh", str(script), str(made.path), *named(made), "--root", str(tmp_path / "r")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limited,
    )
    assert time.monotonic() - begin < 20
    refused(done, "MANIFEST.json: its signature is wrong")
