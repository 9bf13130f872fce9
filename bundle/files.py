"""Files of ours: whole or not there. It needs nothing, so that worker processes stay small."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_file(path: Path, data: bytes, *, mode: int = 0o644, uid: int = -1, gid: int = -1) -> None:
    """Write `data` beside `path` with its final owner and mode, then rename: never half a file, never too open."""
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if uid >= 0 or gid >= 0:
            os.chown(staging, uid, gid)
        os.chmod(staging, mode)
        os.replace(staging, path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def keep_newest(paths: Iterable[Path], count: int) -> None:
    """Leave those `count` of `paths` that bear the latest time: whoever uses one touches it."""
    aged = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            aged.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(aged, reverse=True)[count:]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
