"""The linters are tests: format, lint, types and shell."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import sources

TOP = Path(__file__).parents[1]
PYTHON = [name for name in ("bundle", "tasks.py", "tests") if (TOP / name).exists()]


def lint(*command: str) -> None:
    done = subprocess.run(
        command, cwd=TOP, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"


def tool(name: str) -> list[str]:
    """The linter of this environment, else of PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: requirements/dev.lock has it")
    return [found]


def shell_scripts() -> list[str]:
    """Every file of the tree that starts with a shell's shebang, and the images' entry points."""
    places = (TOP / "scripts", TOP / ".ci", TOP / "images", TOP / "bundle")
    files = (file for place in places if place.is_dir() for file in place.rglob("*"))
    found = []
    for file in sorted(files):
        if file.is_file():
            with file.open("rb") as head:
                first = head.readline(80)
            if first.startswith(b"#!") and b"sh" in first.split(b"/")[-1]:
                found.append(str(file.relative_to(TOP)))
    return found


def test_python_is_formatted() -> None:
    lint(*tool("ruff"), "format", "--check", "--quiet", "--diff", *PYTHON)


def test_python_is_linted() -> None:
    lint(*tool("ruff"), "check", "--quiet", *PYTHON)


@pytest.mark.timeout(300)
def test_python_is_typed() -> None:
    assert importlib.util.find_spec("mypy"), "mypy is missing: requirements/dev.lock has it"
    lint(sys.executable, "-m", "mypy", *PYTHON)


def test_shell_is_checked() -> None:
    scripts = shell_scripts()
    assert "scripts/test" in scripts
    lint(*tool("shellcheck"), "--external-sources", *scripts)


def test_shell_that_is_written_into_the_sources_is_checked(tmp_path: Path) -> None:
    script = tmp_path / "rebuild.sh"
    script.write_text(sources.REBUILD)
    lint(*tool("shellcheck"), str(script))
