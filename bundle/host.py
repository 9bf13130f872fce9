"""Where we act: the root folder of an installation, its engine, its files and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bundle.engine import Engine
from bundle.errors import BusyError
from bundle.files import keep_newest as keep_newest
from bundle.files import write_file as write_file
from bundle.model import File


def make_folder(path: Path, mode: int) -> None:
    """Make `path` with exactly `mode`, whatever the umask."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)


@dataclass(frozen=True, kw_only=True)
class Host:
    """One closed host: `root` is the folder that holds releases, site.toml, secrets, pki, rendered, reports."""

    root: Path
    engine: Engine = field(default_factory=Engine)

    @property
    def compose_file(self) -> Path:
        """The rendered compose file."""
        return self.path("rendered", "compose.yaml")

    def path(self, *parts: str) -> Path:
        """A path under the root."""
        return self.root.joinpath(*parts)

    def write(self, file: File) -> bool:
        """Make `file` so; True when that changed anything."""
        path = self.root / file.path
        make_folder(path.parent, 0o700 if file.mode & 0o077 == 0 else 0o755)
        data = file.text.encode()
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            same = (
                path.read_bytes() == data
                and status.st_mode & 0o7777 == file.mode
                and status.st_uid == file.uid
            )
            if same:
                return False
        write_file(path, data, mode=file.mode, uid=file.uid, gid=file.uid)
        return True

    @contextlib.contextmanager
    def lock(self, task: str, kind: str = "") -> Iterator[None]:
        """Hold the one lock of this installation, or the one of a `kind` of tasks that exclude only one another.

        Raises BusyError, naming the holder, when another task has it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.path(f".{kind}{'.' if kind else ''}lock"), "a+", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                handle.seek(0)
                raise BusyError(
                    f"another task is running: {handle.read().strip() or 'unknown'}",
                    where=str(self.root),
                    hint="Wait until it has ended, then run this again.",
                ) from error
            handle.truncate(0)
            handle.write(f"{task}, pid {os.getpid()}")
            handle.flush()
            yield
            handle.truncate(0)
