"""Python wheels: the locks, the set that several images share, and the store of fetched files.

Fetching goes through the host's own pip, so that index, proxies and certificates are the host's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.debs import file_digest
from bundle.errors import BundleError, IntegrityError
from bundle.run import run

PYTHON = "3.13"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
OLDEST_GLIBC, NEWEST_GLIBC = 5, 41


@dataclass(frozen=True, kw_only=True, order=True)
class Pin:
    """One locked requirement with the digests of the files that may satisfy it."""

    name: str
    version: str
    digests: tuple[str, ...]

    @property
    def text(self) -> str:
        """The requirement in pip's form."""
        lines = [
            f"{self.name}=={self.version}",
            *(f"    --hash=sha256:{digest}" for digest in self.digests),
        ]
        return " \\\n".join(lines) + "\n"


def parse_lock(text: str, where: str = "") -> tuple[Pin, ...]:
    """The pins of a lock in pip's hash form.

    Raises BundleError when a requirement has no exact version or no digest.
    """
    pins = []
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not entry.strip():
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", entry)
        digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
        if match is None or not digests:
            raise BundleError(
                f"not a locked requirement: {entry.strip()[:80]}",
                where=where,
                hint="Run invoke lock.",
            )
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        pins.append(Pin(name=name, version=match[2], digests=tuple(sorted(digests))))
    return tuple(sorted(pins))


def common(locks: Sequence[Iterable[Pin]], others: Sequence[Iterable[Pin]] = ()) -> tuple[Pin, ...]:
    """The pins that are the same in all of `locks` and that none of `others` has in another version."""
    shared = set.intersection(*(set(lock) for lock in locks))
    known = {pin.name: pin for pin in shared}
    for pin in (pin for lock in others for pin in lock):
        if pin.name in known and known[pin.name] != pin:
            shared.discard(known[pin.name])
    return tuple(sorted(shared))


def tags(arch: str) -> list[str]:
    """pip's options that name the images' platform: every manylinux level that their C library serves."""
    machine = MACHINES[arch]
    levels = [
        f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)
    ]
    legacy = [
        f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")
    ]
    abis = (f"cp{PYTHON.replace('.', '')}", "abi3", "none")
    return [
        *("--python-version", PYTHON, "--implementation", "cp"),
        *(option for abi in abis for option in ("--abi", abi)),
        *(option for level in (*levels, *legacy) for option in ("--platform", level)),
    ]


def stored(store: Path) -> Mapping[str, Path]:
    """The wheels of the store by digest."""
    return {file_digest(path): path for path in sorted(store.glob("*.whl"))}


def fetch(pins: Sequence[Pin], store: Path, arch: str) -> dict[Pin, Path]:
    """The wheel of every pin, out of `store` or fetched into it; each is one of the locked files.

    Raises CommandError when the index cannot give one, IntegrityError when the store is not what was locked.
    """
    store.mkdir(parents=True, exist_ok=True)
    known = stored(store)
    missing = [pin for pin in pins if not any(digest in known for digest in pin.digests)]
    if missing:
        wanted = store / ".wanted.txt"
        wanted.write_text("".join(pin.text for pin in missing), encoding="utf-8")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--quiet",
            "--no-deps",
        ]
        options = [
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--dest",
            str(store),
            "--requirement",
            str(wanted),
        ]
        run(
            [*pip, *options, *tags(arch)],
            timeout=1200,
            hint="Check pip's index and certificates with pip config list.",
        )
        wanted.unlink()
        known = stored(store)
    files = {pin: known[digest] for pin in pins for digest in pin.digests if digest in known}
    lost = [pin.name for pin in pins if pin not in files]
    if lost:
        raise IntegrityError(
            f"no locked wheel of {', '.join(lost)}", where=str(store), hint="Run this again."
        )
    return files
