"""The scripts at the door: what they refuse, and that they leave alone what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]


def script(*words: str) -> tuple[int, str]:
    """Run a script without a terminal; its exit code and both of its streams."""
    done = subprocess.run(
        [str(TOP / "scripts" / words[0]), *words[1:]],
        cwd="/",
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout


def test_quickstart_lists_and_asks_before_it_changes_anything() -> None:
    code, said = script("quickstart")
    assert code == 2
    for word in ("packages:", "engine", "/var/lib/tracking-bundle", "8443", "--yes"):
        assert word in said


def test_scripts_refuse_what_they_do_not_know() -> None:
    for name in ("quickstart", "engine"):
        code, said = script(name, "--evrything")
        assert code == 2, said


def test_engine_that_answers_is_left_as_it_is() -> None:
    code, said = script("engine", "--yes")
    assert (code, "left as it is" in said) == (0, True), said


def test_packages_that_are_there_are_not_touched() -> None:
    assert script("packages", "debootstrap", "openssl") == (0, "")


def test_environment_is_made_once(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("", "utf-8")
    code, said = script("setup", str(tmp_path / "venv"), str(lock))
    assert code == 0, said
    assert "making" in said
    assert script("setup", str(tmp_path / "venv"), str(lock)) == (0, "")
    lock.write_text("# changed\n", "utf-8")
    assert "making" in script("setup", str(tmp_path / "venv"), str(lock))[1]
