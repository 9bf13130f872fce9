"""A command of the site's own as the source of a secret: what it says, and how its failure is told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bundle.borrowed import borrow
from bundle.errors import ConfigError

CANARY = "Ca-nary_of_this_test-82"


def quoted(path: Path) -> str:
    """A path as a command line has it."""
    return str(path).replace(" ", "\\ ")


def script(folder: Path, text: str, mode: int = 0o700) -> Path:
    """A program that does `text`."""
    path = folder / "say it"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def test_command_says_the_secret_and_no_log_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = script(tmp_path, f'printf "%s\\n" "{CANARY[:9]}$1"')
    with caplog.at_level(logging.DEBUG):
        found = borrow(f"secret://command{quoted(path)} {CANARY[9:]}", "here")
    assert found.reveal() == CANARY
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (f"echo {CANARY}; exit 3", 0o700, "failed with exit code 3"),
        (f"echo {CANARY} >&2; exit 3", 0o700, "failed with exit code 3"),
        ("kill -9 $$", 0o700, "was ended by SIGKILL"),
        ("true", 0o700, "is empty"),
        (f"echo {CANARY}; echo more", 0o700, "not one line"),
        (f"echo {CANARY}", 0o722, "can be changed by others"),
        (f"echo {CANARY}", 0o600, r"Permission denied|failed"),
    ],
)
def test_command_that_fails_is_told_without_its_words(
    tmp_path: Path, text: str, mode: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = script(tmp_path, text, mode)
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigError, match=reason) as refused:
        borrow(f"secret://command{quoted(path)}", "site.toml: key")
    assert CANARY not in str(refused.value) + caplog.text


def test_command_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        borrow("secret://command/nowhere/at/all x", "here")
