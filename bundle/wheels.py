"""Python wheels: out of the package index into a store.

Fetching goes through the host's own pip, so that index, proxies and certificates are the host's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bundle.errors import IntegrityError
from bundle.recipes import Pin, file_digest
from bundle.run import run

PYTHON = "3.13"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = range(41, 4, -1)  # the minor versions whose wheels the images' C library serves


def platform_options(arch: str) -> list[str]:
    """pip's options that name the images' platform, the most wanted first."""
    machine = MACHINES[arch]
    levels = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC]
    older = [
        f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")
    ]
    abis = (f"cp{PYTHON.replace('.', '')}", "abi3", "none")
    return [
        *("--python-version", PYTHON, "--implementation", "cp"),
        *(option for abi in abis for option in ("--abi", abi)),
        *(option for level in (*levels, *older) for option in ("--platform", level)),
    ]


def stored(store: Path) -> dict[str, Path]:
    """The wheels of the store by digest."""
    return {file_digest(path): path for path in sorted(store.glob("*.whl"))}


def fetch(pins: Sequence[Pin], store: Path, arch: str) -> dict[Pin, Path]:
    """The wheel of every pin, out of `store` or fetched into it; each is one of the locked files.

    Raises CommandError when the index cannot give one, IntegrityError when the store is not what was locked.
    """
    if not pins:
        return {}
    store.mkdir(parents=True, exist_ok=True)
    known = stored(store)
    missing = [pin for pin in pins if not any(digest in known for digest in pin.digests)]
    if missing:
        _download(missing, store, arch)
        known = stored(store)
    files = {pin: known[digest] for pin in pins for digest in pin.digests if digest in known}
    lost = [pin.name for pin in pins if pin not in files]
    if lost:
        message = f"no locked wheel of {', '.join(lost)}"
        raise IntegrityError(
            message, where=str(store), hint="Remove that folder, then run this again."
        )
    return files


def _download(pins: Sequence[Pin], store: Path, arch: str) -> None:
    wanted = store / ".wanted.txt"
    wanted.write_text("".join(pin.text for pin in pins), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(store)]
    run(
        [*pip, *options, "--requirement", str(wanted), *platform_options(arch)],
        timeout=1200,
        hint="pip config list shows the index and the certificates that were used.",
    )
    wanted.unlink()
