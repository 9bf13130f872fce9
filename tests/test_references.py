"""References to secrets: what leads to one, and each way in which one does not, told without any of the content."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bundle.borrowed import borrow
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.references import reference_problem
from bundle.settings import SITE

CANARY = "Ca-nary_of_this_test-81"
REFERENCES = [setting for setting in SITE if setting.secret]


def test_file_and_variable_lead_to_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "파일 with spaces"
    path.write_text(f"{CANARY}\r\n")
    path.chmod(0o400)
    assert borrow(f"secret://file{path}", "here").reveal() == CANARY
    monkeypatch.setenv("SITE_PASSWORD", CANARY)
    assert borrow("secret://env/SITE_PASSWORD", "here").reveal() == CANARY


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "No such file"),
        (b"", 0o600, "is empty"),
        (b"\n\n", 0o600, "is empty"),
        (CANARY.encode(), 0o604, r"open to everybody \(mode 0604\)"),
        (CANARY.encode(), 0o602, r"open to everybody \(mode 0602\)"),
        (f"{CANARY}\nx".encode(), 0o600, "not one line"),
        (f"{CANARY}\0".encode(), 0o600, "not one line"),
        (CANARY.encode() * 300, 0o600, "not one line"),
        (b"\xff" + CANARY.encode(), 0o600, "not UTF-8"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_its_reason(
    tmp_path: Path, content: bytes | None, mode: int, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(ConfigError, match=reason) as refused:
        borrow(f"secret://file{path}", "site.toml: key")
    assert refused.value.problems[0].where == "site.toml: key"
    assert CANARY not in str(refused.value)


def test_folder_pipe_and_foreign_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "."):
        with pytest.raises(ConfigError, match=r"not a file|Is a directory"):
            borrow(f"secret://file{tmp_path / name}", "here")
    path = tmp_path / "secret"
    path.write_text(CANARY)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 4711, 4711)
        with pytest.raises(ConfigError, match="belongs to uid 4711"):
            borrow(f"secret://file{path}", "here")


def test_variable_that_is_missing_or_empty_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigError, match="not in the environment"):
        borrow("secret://env/NOT_THERE", "here")
    monkeypatch.setenv("NOT_THERE", "")
    with pytest.raises(ConfigError, match="is empty"):
        borrow("secret://env/NOT_THERE", "here")


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"secret://vault/{CANARY}",
        "secret://file/",
        "secret://filename",
        "secret://env/A B",
        "secret://env/",
        "secret://command/x 'y",
        "secret://file/a\nb",
        "SECRET://file/x",
    ],
)
def test_form_is_refused_and_the_value_never_told(text: str) -> None:
    assert reference_problem(text)
    for setting in REFERENCES:
        head, _, key = setting.key.rpartition(".")
        with pytest.raises(ConfigError) as refused:
            parse_site(f"[{head}]\n{key} = {json.dumps(text)}")
        assert CANARY not in str(refused.value)


def test_number_in_the_place_of_a_reference_is_not_told() -> None:
    with pytest.raises(ConfigError, match="the value is not a text") as refused:
        parse_site("[registry]\npassword = 8112345678")
    assert "8112345678" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["secret://file/a", "secret://env/A_1", "secret://command/usr/bin/pass show 'a b'"]
)
def test_good_form_is_taken(text: str) -> None:
    assert not reference_problem(text)


def test_settings_that_take_references_are_these() -> None:
    keys = [setting.key for setting in REFERENCES]
    assert keys == ["registry.password", "oidc.secret", "s3.key", "s3.secret"]
