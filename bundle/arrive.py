"""What follows when every byte of a bundle was found right: is it too old, who signed it, then unpack it.

Standard library only. unseal.py loads this file out of the checked bundle, and lends itself as `bundle.unseal`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bundle.unseal import INTEGRITY, SealError, say, tell


def arrive(options: argparse.Namespace, manifest: dict[str, Any], load: Callable[..., Any]) -> None:
    """Judge the age of the checked bundle, and unless `options.check`: unpack it and print the next line to type.

    Raises SealError.
    """
    accept = {"expired": options.accept_expired, "rollback": options.accept_rollback}
    warnings = check_age(manifest, options.root, time.time(), **accept)
    warnings += check_key(options.root, options.fingerprint, options.old)
    for warning in warnings:
        tell(f"{say('warning', '경고')}: {warning}")
    count, version = len(manifest["members"]), manifest["version"]
    tell(
        say(
            f"sealed and complete: {version}, {count} members",
            f"봉인 확인: {version}, {count}개 항목이 온전함",
        )
    )
    if options.check:
        return
    record = {
        "bundle": str(options.bundle),
        "sha256_manifest": options.manifest,
        "version": version,
        "fingerprint": options.fingerprint,
        "counter": manifest["counter"],
    }
    load(options.bundle, manifest, "kept")  # unpack needs it
    record |= known_digest(options.root, version, options.manifest)
    unpack = load(options.bundle, manifest, "unpack").unpack
    newest = manifest["counter"] >= last_installed(options.root)["counter"]
    home = unpack(options.bundle, manifest, options.root, record)
    if newest and options.fingerprint:
        record_keys(options.root, [options.fingerprint, *filter(None, [options.old])])
    tell(say(f"unpacked to {home}; next:", f"{home}에 풀었습니다. 다음 명령:"))
    current = shlex.quote(str(options.root / "current"))
    sys.stdout.write(f"cd {current} && . .venv/bin/activate && invoke install\n")


def check_age(
    manifest: dict[str, Any], root: Path, now: float, *, expired: bool, rollback: bool
) -> list[str]:
    """Warnings about the age of the bundle; `expired` and `rollback` say that the operator accepts it.

    Raises SealError when it has expired, or is older than the last one under `root`, and that is not accepted.
    """
    warnings: list[str] = []
    problems: list[str] = []
    options: list[str] = []
    stamp = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    if stamp > manifest["expires"]:
        text = say(
            f"the bundle expired at {manifest['expires']} (this host's clock: {stamp})",
            f"번들의 유효 기간이 {manifest['expires']}에 끝났습니다 (이 호스트의 시각: {stamp})",
        )
        (warnings if expired else problems).append(text)
        options += [] if expired else ["--accept-expired"]
    last = last_installed(root)
    if manifest["counter"] < last["counter"]:
        text = say(
            f"the bundle {manifest['version']} is older than {last['version']}, which was installed last",
            f"번들 {manifest['version']}은(는) 마지막으로 설치한 {last['version']}보다 오래되었습니다",
        )
        (warnings if rollback else problems).append(text)
        options += [] if rollback else ["--accept-rollback"]
    if problems:
        wanted = " ".join(options)
        hint = say(
            f"Use a newer bundle, or accept this one on purpose with {wanted}.",
            f"더 새로운 번들을 쓰거나, 의도한 것이라면 {wanted} 옵션을 붙이세요.",
        )
        raise SealError(INTEGRITY, problems, hint)
    return warnings


def known_digest(root: Path, version: str, manifest: str) -> dict[str, str]:
    """The digest of the whole file, which install noted when this very bundle was here before."""
    try:
        record = json.loads((root / "releases" / version / "release.json").read_bytes())
        return {"sha256": record["sha256"]} if record["sha256_manifest"] == manifest else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def last_installed(root: Path) -> dict[str, Any]:
    """Counter and version of the bundle that was unpacked last under `root`."""
    try:
        last = json.loads((root / "releases" / "installed.json").read_bytes())
        return {"counter": int(last["counter"]), "version": str(last["version"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"counter": 0, "version": ""}


def trusted_keys(root: Path) -> list[str]:
    """Fingerprints of the keys that the installation under `root` trusts; at most two, while a key is changed."""
    try:
        return [str(key) for key in json.loads(_record(root).read_bytes())["keys"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _record(root: Path) -> Path:
    return root / "releases" / "trusted.json"


def check_key(root: Path, fingerprint: str, old: str) -> list[str]:
    """A warning when this host does not know the key, nor an older key that named it: only the operator did."""
    known = trusted_keys(root)
    if not known or fingerprint in known or old in known:
        return []
    text = say(
        f"the key {fingerprint} is new to this host, and no key that it trusts named it; you did, with --fingerprint",
        f"키 {fingerprint}는 이 호스트가 모르는 키이고 기존 키의 보증도 없습니다. --fingerprint로 직접 지정하셨습니다",
    )
    return [text]


def record_keys(root: Path, keys: list[str]) -> None:
    """Trust exactly `keys` from here on: the one that signed this bundle, and the one that it follows."""
    staging = root / "releases" / ".trusted.json.new"
    with open(staging, "w", encoding="utf-8") as file:
        file.write(json.dumps({"keys": keys}, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    staging.replace(_record(root))
