"""The wheels of this tool that travel: for every Python from 3.10 to 3.14, fetched once by the locked digests.

Fetching goes through the host's own pip, so that index, proxies and certificates are the host's.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from bundle.errors import BundleError
from bundle.run import run, step

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# The oldest closed hosts that are met have glibc 2.28; a wheel for a newer one would not start there.
GLIBC = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17")


def collect(lock: Path, cache: Path, arch: str) -> dict[str, tuple[Path, ...]]:
    """The wheels for each version of Python, taken from `cache` where they are there.

    Raises BundleError when the lock cannot be read, CommandError when a wheel cannot be fetched.
    """
    text = lock.read_text("utf-8")
    key = hashlib.sha256(f"{text}{arch}{PYTHONS}{GLIBC}1".encode()).hexdigest()[:16]
    home = cache / "wheels" / f"tool-{key}"
    index = home / "index.json"
    if not index.is_file() or not _are_locked(home.glob("*.whl"), text):
        with step("fetching this tool's wheels"):
            names = {python: _fetch(text, lock, home, python, arch) for python in PYTHONS}
        index.write_text(json.dumps(names), "utf-8")
    found: dict[str, list[str]] = json.loads(index.read_text("utf-8"))
    return {python: tuple(home / name for name in names) for python, names in found.items()}


def _are_locked(wheels: Iterable[Path], text: str) -> bool:
    return all(hashlib.sha256(wheel.read_bytes()).hexdigest() in text for wheel in wheels)


def _fetch(text: str, lock: Path, home: Path, python: str, arch: str) -> list[str]:
    folder = home / f"python-{python}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(choose(text, python, arch, str(lock)), "utf-8")
    digits = python.replace(".", "")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    command += ["--implementation", "cp", "--python-version", python]
    for abi in (f"cp{digits}", "abi3", "none"):
        command += ["--abi", abi]
    for glibc in (*GLIBC, "manylinux2014"):
        command += ["--platform", f"{glibc}_{MACHINES[arch]}"]
    hint = "Look at the host's pip configuration (index, proxy, certificates), then run this again."
    run([*command, "--dest", str(folder), "--requirement", str(wanted)], timeout=900, hint=hint)
    wheels = {wheel: short_name(wheel.name) for wheel in sorted(folder.glob("*.whl"))}
    for wheel, name in wheels.items():
        wheel.replace(home / name)
    shutil.rmtree(folder)
    return list(wheels.values())


def short_name(name: str) -> str:
    """The wheel's name with one platform only, the least that it asks for: ustar holds 100 characters."""
    front, _, platforms = name.removesuffix(".whl").rpartition("-")
    modern = [tag.replace("manylinux2014", "manylinux_2_17") for tag in platforms.split(".")]
    glibc = {
        tag: int(found[1]) for tag in modern if (found := re.match(r"manylinux_2_(\d+)_", tag))
    }
    return f"{front}-{min(glibc, key=glibc.__getitem__) if glibc else platforms}.whl"


def choose(text: str, python: str, arch: str, where: str = "") -> str:
    """The lines of the lock `text` that count for `python`: pip would ask the running one's markers.

    Raises BundleError when a line is not a locked requirement.
    """
    full = f"{python}.0"
    here = {
        "implementation_name": "cpython",
        "platform_machine": MACHINES[arch],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": full,
        "python_version": python,
        "sys_platform": "linux",
        "os_name": "posix",
    }
    chosen = []
    for line in text.replace("\\\n", " ").splitlines():
        entry, _, hashes = line.partition("--hash=")
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        try:
            requirement = Requirement(entry.strip())
        except InvalidRequirement as error:
            hint = "Make the lock again: the command is in its .in file."
            raise BundleError(f"not a requirement: {entry[:80]}", where=where, hint=hint) from error
        if not hashes:
            hint = "Make the lock again with --generate-hashes."
            raise BundleError(f"{requirement.name} has no digest", where=where, hint=hint)
        if requirement.marker is None or requirement.marker.evaluate(here):
            pins = [part.strip() for part in hashes.split("--hash=")]
            chosen.append(
                f"{requirement.name}{requirement.specifier} --hash=" + " --hash=".join(pins)
            )
    return "\n".join(chosen) + "\n"
