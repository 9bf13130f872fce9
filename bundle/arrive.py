"""What follows when every byte of a bundle was found right: is it too old, who signed it, then unpack it.

Standard library only. unseal.py loads this file out of the checked bundle, and lends itself as `bundle.unseal`.
"""

from __future__ import annotations

import argparse
import datetime
import json
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
    unpack = load(options.bundle, manifest, "unpack").unpack
    home = unpack(options.bundle, manifest, options.root, record)
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
    try:
        last = json.loads((root / "releases" / "installed.json").read_bytes())
    except (OSError, ValueError):
        last = {"counter": 0, "version": ""}
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
