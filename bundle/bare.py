"""The file system of a bare Debian host with an engine, as an archive that is made once and kept.

Nothing of this product is in it: no checkout, no certificate, no address of the outside world.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from bundle.engine import CLOSED_HOST_PACKAGES
from bundle.host import keep_newest, write_file
from bundle.run import run, step

ARCHIVES = 3  # that are kept: half a gigabyte each
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "python3",
    "openssl",
    "cron",
    "tini",
    "iproute2",
    "nftables",
    "procps",
)
WITHOUT_SYSTEMD = ("systemd-standalone-sysusers",)
WITH_SYSTEMD = ("systemd", "systemd-sysv", "dbus")
SYSTEMD_MARK = "etc/closed-with-systemd"


def archive(cache: Path, mirror: str, *, systemd: bool = False) -> Path:
    """The archive of the bare file system, made on first use and kept in `cache`; with `systemd` it boots by that."""
    packages = (*PACKAGES, *CLOSED_HOST_PACKAGES, *(WITH_SYSTEMD if systemd else WITHOUT_SYSTEMD))
    key = hashlib.sha256("\n".join((SUITE, mirror, *packages)).encode()).hexdigest()[:12]
    kept = cache / f"closed-root-{key}.tar"
    if kept.exists():
        os.utime(kept)
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    work = cache / f".closed-root-{os.getpid()}"
    try:
        with step("making a bare file system for the closed host"):
            _bootstrap(work, mirror, packages)
            part = kept.with_suffix(".part")
            run(
                ["tar", "-C", str(work), "-cf", str(part), "--numeric-owner", "--xattrs", "."],
                timeout=600,
            )
            part.replace(kept)
        keep_newest(cache.glob("closed-root-*.tar"), ARCHIVES)
    finally:
        run(["rm", "-rf", "--one-file-system", str(work)], timeout=600)
    return kept


def _bootstrap(work: Path, mirror: str, packages: Sequence[str]) -> None:
    """Make a minimal system in `work`, with `packages` and nothing that names the outside world."""
    run(["debootstrap", "--variant=minbase", SUITE, str(work), mirror], timeout=900, stream=True)
    write_file(work / "usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n", mode=0o755)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    run(
        ["chroot", str(work), "env", "DEBIAN_FRONTEND=noninteractive", *install],
        timeout=900,
        stream=True,
    )
    run(["chroot", str(work), "apt-get", "clean"], timeout=60)
    (work / "usr/sbin/policy-rc.d").unlink()
    for name in ("etc/resolv.conf", "etc/apt/sources.list"):
        (work / name).unlink(missing_ok=True)
    for lists in (work / "var/lib/apt/lists").glob("*_*"):
        lists.unlink()
    (work / "etc/resolv.conf").touch()
    if "systemd" in packages:
        (work / SYSTEMD_MARK).touch()
    (work / "etc/hostname").write_text("closed\n", "ascii")
    (work / "etc/hosts").write_text(
        "127.0.0.1 localhost\n127.0.1.1 closed\n::1 localhost\n", "ascii"
    )
