"""A real bundle in parts, under a locked key: one part is lost, one is damaged, only these come again; then it is
copied, with a kill on the way, and the stack is installed out of the copy.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundle import keys, manifest, rehearse, unseal
from bundle.closed import ClosedHost
from tests.e2e.conftest import make_bundle, sealed_of
from tests.e2e.stack import Sealed, Stack

pytestmark = [pytest.mark.timeout(1800), pytest.mark.nightly]
MB = 1_000_000
LOST, BAD = ".003", ".005"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A bundle in parts, and the locked key that signed it."""

    sealed: Sealed
    key: Path

    @property
    def parts(self) -> list[Path]:
        """Its parts, on this side."""
        return unseal.parts_of(self.sealed.path)

    @property
    def options(self) -> tuple[str, str]:
        """What names the key to the task."""
        return "--sign-key", str(self.key)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    folder = tmp_path_factory.mktemp("cut")
    key, word = folder / "sign.key", folder / "word"
    word.write_bytes(b"a word of the night\n")
    keys.load_key(key, make=True, ask=lambda _: word.read_bytes().strip())
    assert b"ENCRYPTED" in key.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKING_SIGN_PASSPHRASE_FILE", str(word))
        first = make_bundle(folder / "dist", "--split", "64M", "--sign-key", str(key))
        yield Cut(sealed=sealed_of(first), key=key)


@pytest.fixture(scope="module")
def host(cut: Cut, closed_hosts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = rehearse.make_host(
        rehearse.Rehearsal(
            bundle=cut.sealed.path,
            fingerprint=cut.sealed.fingerprint,
            folder=closed_hosts / "parts",
            cache=cut.sealed.cache,
            reports=tmp_path_factory.mktemp("reports"),
        )
    )
    try:
        yield Stack(host=made, sealed=cut.sealed, record={})
    finally:
        made.remove()


def sheet(sealed: Sealed, place: str, *options: str) -> list[str]:
    """The line of the trust sheet, for the first part in the folder `place`."""
    first = f"{place}/{sealed.path.name}"
    line = f"tar -xf {shlex.quote(first)} --occurrence=1 bootstrap.sh && exec sh bootstrap.sh"
    words = [first, "--fingerprint", sealed.fingerprint, *options]
    return ["sh", "-c", f"{line} {shlex.join(words)}"]


def boot(host: ClosedHost, sealed: Sealed, place: str, *options: str) -> tuple[int, str]:
    """Do what the trust sheet says; its exit code and all that it said."""
    inner = shlex.join(sheet(sealed, place, *options))
    said = host.run(["sh", "-c", f"{inner} 2>&1; echo exit=$?"], timeout=300)
    text, _, code = said.rstrip().rpartition("exit=")
    return int(code), text


def test_parts_are_the_bundle_and_the_sheet_names_each(cut: Cut) -> None:
    parts = cut.parts
    assert len(parts) > 5
    assert {part.stat().st_size for part in parts[:-1]} == {64 << 20}
    text = next(cut.sealed.path.parent.glob("*.trust.txt")).read_text("utf-8")
    assert all(hashlib.sha256(part.read_bytes()).hexdigest() in text for part in parts)
    assert unseal.check(parts[0], digest_of_manifest(parts[0]))["version"]


def digest_of_manifest(first: Path) -> str:
    return hashlib.sha256(unseal.manifest_bytes(first)).hexdigest()


def test_lost_and_damaged_parts_are_asked_for_and_only_these_come_again(
    cut: Cut, host: Stack, tmp_path: Path
) -> None:
    medium = host.host.root / "media"
    for file in (*cut.parts, *cut.sealed.path.parent.glob("*.parts.json")):
        if file.suffix != LOST:
            host.host.put(file, "/media")
    bad = medium / cut.sealed.path.with_suffix(BAD).name
    with open(bad, "r+b") as open_part:
        open_part.seek(30 * MB)
        byte = open_part.read(1)[0]
        open_part.seek(30 * MB)
        open_part.write(bytes([byte ^ 8]))
    code, text = boot(host.host, cut.sealed, "/media", "--request", "/media/again.json")
    assert code == 5, text
    assert "Traceback" not in text
    stem = re.escape(cut.sealed.path.stem)
    assert set(re.findall(rf"error: {stem}(\.\d+): ", text)) == {LOST, BAD}
    assert not host.root.exists()

    request = medium / "again.json"
    epoch = manifest.read(cut.sealed.path).mtime
    fresh = tmp_path / "again"
    make_bundle(fresh, "--parts", str(request), *cut.options, epoch=epoch)
    made = sorted(path for path in fresh.iterdir() if path.suffix in (LOST, BAD))
    assert [path.suffix for path in made] == [LOST, BAD]
    assert not [path for path in fresh.glob("*.tar.*") if path not in made]
    for path in made:
        assert path.read_bytes() == (cut.sealed.path.parent / path.name).read_bytes()
        host.host.put(path, "/media")
    code, text = boot(host.host, cut.sealed, "/media", "--check")
    assert code == 0, text
    shutil.rmtree(fresh)


def test_copy_that_was_killed_is_taken_up(cut: Cut, host: Stack) -> None:
    target = host.host.root / "srv/copy"
    killed_at(host.host, sheet(cut.sealed, "/media", "--copy", "/srv/copy"), target, 150 * MB)
    before = {path: path.stat().st_mtime_ns for path in target.glob("*.0??")}
    assert 2 <= len(before) < len(cut.parts)
    code, text = boot(host.host, cut.sealed, "/media", "--copy", "/srv/copy")
    assert code == 0, text
    assert "copied and complete" in text
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert sorted(p.name for p in target.glob("*.0??")) == [part.name for part in cut.parts]
    assert not list(target.glob("*.partial"))


def test_copy_of_one_large_file_is_taken_up_in_its_middle(sealed: Sealed, host: Stack) -> None:
    host.host.put(sealed.path, "/mnt")
    target = host.host.root / "srv/whole"
    killed_at(host.host, sheet(sealed, "/mnt", "--copy", "/srv/whole"), target, 200 * MB)
    (partial,) = target.glob("*.partial")
    inode, there = partial.stat().st_ino, partial.stat().st_size
    assert 200 * MB <= there < sealed.path.stat().st_size
    code, text = boot(host.host, sealed, "/mnt", "--copy", "/srv/whole")
    assert code == 0, text
    (copy,) = target.glob("*.tar")
    assert copy.stat().st_ino == inode
    assert not list(target.glob("*.partial"))
    for place in (target, host.host.root / "mnt"):
        for file in place.glob("*.tar"):
            file.unlink()


def killed_at(host: ClosedHost, command: list[str], target: Path, size: int) -> None:
    """Run `command` and kill it, and all that it started, when `target` holds so many bytes."""
    noted = ["setsid", "--wait", "sh", "-c", f"echo $$ >/root/copy.pid; exec {shlex.join(command)}"]
    line = host.line(noted, timeout=300)
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        while sum(f.stat().st_size for f in target.glob("*.tar*")) < size:
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        host.run(["bash", "-c", "kill -KILL -- -$(cat /root/copy.pid)"], timeout=20)
        assert child.wait(60) != 0


def test_stack_is_installed_out_of_the_copy_and_green(cut: Cut, host: Stack) -> None:
    code, text = boot(host.host, cut.sealed, "/srv/copy")
    assert code == 0, text
    for file in (host.host.root / "media").iterdir():
        file.unlink()  # the medium has gone home
    host.invoke("install", "--yes", timeout=600)
    host.invoke("verify", timeout=300)
    found = json.loads((host.root / "reports/verify.json").read_text("utf-8"))
    assert found["complete"]
    assert found["summary"]["failed"] == 0
    whole = hashlib.sha256()
    for part in cut.parts:
        whole.update(part.read_bytes())
    assert found["bundle"]["sha256"] == whole.hexdigest()
    running = host.containers()
    shutil.rmtree(host.host.root / "srv/copy")
    host.invoke("install", "--yes", timeout=300)  # all that it carried is here
    assert host.containers() == running
