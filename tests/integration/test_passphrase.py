"""A sealing key under a passphrase: asked for on a real terminal, or taken from the environment or a file."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundle.errors import ConfigError
from bundle.keys import load_key
from bundle.workflows.connected import signing_key
from tests import bundles

RIGHT = "맞는 암호 $1"
NO_SIZE = "is not a size"
"""The task opens its key first; this is what it says next, of an option that ends it there."""
VARIABLE, FILE = "TRACKING_SIGN_PASSPHRASE", "TRACKING_SIGN_PASSPHRASE_FILE"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key that openssl made and locked with RIGHT; the plain one lies beside it."""
    folder = tmp_path_factory.mktemp("keys")
    plain, key = folder / "plain.key", folder / "locked.key"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(plain)]
    subprocess.run(make, check=True, timeout=60, capture_output=True)
    lock = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", str(plain), "-out", str(key)]
    lock += ["-passout", "env:WORD"]
    subprocess.run(lock, check=True, timeout=60, capture_output=True, env={"WORD": RIGHT})
    for path in (plain, key):
        path.chmod(0o600)
    return key


@pytest.fixture(autouse=True)
def _no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, FILE):
        monkeypatch.delenv(name, raising=False)


# ---- asked for ----


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a terminal showed, and the exit code."""

    code: int
    text: str


def _own_terminal() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a run in the background has it ignored
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _own_terminal_in_the_background() -> None:
    _own_terminal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def on_terminal(
    key: Path,
    *typed: bytes | signal.Signals,
    options: tuple[str, ...] = (),
    start: Callable[[], None] = _own_terminal,
) -> Seen:
    """Start the task on a terminal of its own and type (or send) one of `typed` each time when it asks."""
    command = [sys.executable, "-m", "invoke", "bundle", "--sign-key", str(key), "--split", "x"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*command, *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=bundles.TOP,
        start_new_session=True,
        preexec_fn=start,
    ) as child:
        os.close(theirs)
        shown, left, deadline = b"", list(typed), time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if left and shown.endswith(b": "):
                given = left.pop(0)
                if isinstance(given, bytes):
                    os.write(ours, given)
                else:
                    child.send_signal(given)
        if time.monotonic() >= deadline:
            child.kill()
        code = child.wait(20)
    os.close(ours)
    return Seen(code=code, text=shown.decode())


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (RIGHT.encode() + b"\n", 2, NO_SIZE),
        (b"wrong\n", 2, "the passphrase of the signing key"),
        (b"\n", 2, "has a passphrase, and none was given"),
        (b"\x04", 2, "has a passphrase, and none was given"),
        (b"\x03", 130, "interrupted"),
    ],
    ids=["right", "wrong", "nothing", "end of input", "interrupt"],
)
def test_passphrase_is_asked_for_on_a_terminal(
    locked: Path, typed: bytes, code: int, said: str
) -> None:
    seen = on_terminal(locked, typed)
    assert seen.code == code, seen.text
    assert f"passphrase of {locked}: " in seen.text
    assert said in seen.text
    assert "Traceback" not in seen.text
    assert RIGHT not in seen.text  # what is typed is not shown


def test_task_in_the_background_ends_at_sigterm(locked: Path) -> None:
    seen = on_terminal(locked, signal.SIGTERM, start=_own_terminal_in_the_background)
    assert seen.code == 130, seen.text
    assert "interrupted" in seen.text
    assert "Traceback" not in seen.text
    assert "hint: " in seen.text


def test_it_is_asked_for_in_korean(locked: Path) -> None:
    seen = on_terminal(locked, RIGHT.encode() + b"\n", options=("--lang", "ko"))
    assert f"{locked}의 암호: " in seen.text
    assert "크기가 아닙니다" in seen.text


def test_each_key_of_a_rotation_is_asked_for(locked: Path, tmp_path: Path) -> None:
    new = load_key(tmp_path / "new.key", make=True, ask=lambda _: b"another word").path
    seen = on_terminal(
        new, b"another word\n", RIGHT.encode() + b"\n", options=("--old-key", str(locked))
    )
    asked = [seen.text.index(f"passphrase of {key}: ") for key in (new, locked)]
    assert asked == sorted(asked)
    assert NO_SIZE in seen.text


def test_plain_key_is_not_asked_for(locked: Path) -> None:
    seen = on_terminal(locked.with_name("plain.key"))
    assert "passphrase" not in seen.text
    assert NO_SIZE in seen.text


# ---- left by the operator ----


def opened(key: Path, old: str = "") -> str:
    """The fingerprint of the key as the task opens it."""
    return signing_key(str(key), old).fingerprint


def test_variable_opens_the_key_and_a_file_goes_before_it(
    locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = load_key(locked.with_name("plain.key")).fingerprint
    monkeypatch.setenv(VARIABLE, RIGHT)
    assert opened(locked) == same
    assert opened(locked.with_name("plain.key")) == same  # one that needs none
    word = tmp_path / "word"
    for content in (RIGHT, f"{RIGHT}\n", f"{RIGHT}\r\nanother line\n"):
        word.write_bytes(content.encode())
        monkeypatch.setenv(VARIABLE, "wrong")
        monkeypatch.setenv(FILE, str(word))
        assert opened(locked) == same


def test_passphrase_may_be_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = b"not UTF-8: \xff\xfe"
    monkeypatch.setitem(os.environb, VARIABLE.encode(), word)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = signing_key("", "")
    assert load_key(made.path, ask=lambda _: word).fingerprint == made.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (VARIABLE, None, "is wrong"),
        (FILE, b"wrong\n", "is wrong"),
        (FILE, b"", "the passphrase is empty"),
        (FILE, b"\n" + RIGHT.encode(), "the passphrase is empty"),
        (FILE, None, "reading the passphrase: No such file"),
        ("", None, "has a passphrase, and none was given"),
    ],
)
def test_what_does_not_open_it_is_told(
    locked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes | None,
    said: str,
) -> None:
    place = tmp_path / "word"
    if content is not None:
        place.write_bytes(content)
    if name:
        monkeypatch.setenv(name, str(place))
    with pytest.raises(ConfigError) as caught:
        opened(locked)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].hint


def test_first_key_is_made_under_the_passphrase_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, RIGHT)
    made = signing_key("", "")
    assert made.path.stat().st_mode & 0o777 == 0o600
    check = ["openssl", "pkey", "-in", str(made.path), "-passin", "env:WORD", "-pubout"]
    done = subprocess.run(
        check, env={"WORD": RIGHT}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.encode() == made.pem
    assert signing_key("", "").fingerprint == made.fingerprint
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match="none was given"):
        signing_key("", "")


def test_both_keys_of_a_rotation_are_opened_with_it(
    locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, RIGHT)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    new = signing_key("", "").path
    follows = signing_key(str(new), str(locked)).follows
    assert follows is not None
    assert follows.fingerprint == opened(locked)
