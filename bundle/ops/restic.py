"""restic on a repository that is mounted here; its passphrase is in the child's environment only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from minio.error import MinioException
from urllib3.exceptions import HTTPError

HOST = "tracking"
SEARCH = "/usr/local/bin:/usr/bin:/bin"


class ResticError(Exception):
    """restic ended with something else than 0."""


class PackError(Exception):
    """A pack is not what its index says, or could not be made."""


EXPECTED = (ResticError, PackError, OSError, MinioException, HTTPError, psycopg.Error)
"""What a repository, a bucket, a database or a disk that is not as it should be raises."""


@dataclass(frozen=True, kw_only=True)
class Restic:
    """One repository."""

    repository: str
    passphrase: str

    @property
    def environment(self) -> dict[str, str]:
        """What the child needs."""
        return {
            "PATH": SEARCH,
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "RESTIC_PASSWORD": self.passphrase,
            "RESTIC_REPOSITORY": self.repository,
        }

    def run(self, *words: str, data: bytes | None = None) -> bytes:
        """Run a command; its standard output.

        Raises ResticError when it fails.
        """
        done = subprocess.run(
            ["restic", "--no-cache", *words],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env=self.environment,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
            raise ResticError(f"restic {words[0]}: {done.returncode}: {said[-600:]}")
        return done.stdout

    def ensure(self) -> None:
        """Make the repository when there is none, and take old locks away: the host's own lock says who is alone."""
        if not Path(self.repository, "config").exists():
            self.run("init")
        if any(Path(self.repository, "locks").glob("*")):
            self.run("unlock", "--remove-all")

    def save(self, name: str, tag: str, data: bytes) -> str:
        """Keep `data` as the one file `name` of a snapshot; the snapshot's id."""
        words = ("backup", "--json", "--stdin", "--stdin-filename", name)
        done = summary(self.run(*words, "--host", HOST, "--tag", tag, data=data))
        return str(done["snapshot_id"])

    @contextmanager
    def saving(self, name: str, tag: str) -> Iterator[Stream]:
        """A stream that becomes the one file `name` of a snapshot; nothing is kept when the block fails."""
        words = ["restic", "--no-cache", "backup", "--json", "--stdin", "--stdin-filename", name]
        words += ["--host", HOST, "--tag", tag]
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        ) as child:
            assert child.stdin is not None
            stream = Stream(file=child.stdin)
            try:
                yield stream
            except BaseException:
                child.kill()
                raise
            out, errors = child.communicate()
            if child.returncode:
                said = errors.decode("utf-8", "replace").strip()
                raise ResticError(f"restic backup: {child.returncode}: {said[-600:]}")
            stream.found = summary(out)

    def load(self, snapshot: str, name: str) -> bytes:
        """The file `name` of a snapshot."""
        return self.run("dump", snapshot, f"/{name}")

    @contextmanager
    def loading(self, snapshot: str, name: str) -> Iterator[IO[bytes]]:
        """The file `name` of a snapshot as a stream; who reads it to its end learns whether it was whole."""
        words = ["restic", "--no-cache", "dump", snapshot, f"/{name}"]
        with subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            try:
                yield child.stdout
            except BaseException:
                child.kill()
                raise
            rest = child.stdout.read(1)
            if rest:  # the rest is not wanted
                child.kill()
                return
            said = child.stderr.read().decode("utf-8", "replace").strip()
            if child.wait():
                raise ResticError(f"restic dump: {child.returncode}: {said[-600:]}")


@dataclass(kw_only=True)
class Stream:
    """What is on its way into a snapshot; `found` is restic's summary after its end."""

    file: IO[bytes]
    found: dict[str, Any] | None = None

    @property
    def snapshot(self) -> str:
        """The id of the snapshot that it became."""
        assert self.found is not None
        return str(self.found["snapshot_id"])


def summary(out: bytes) -> dict[str, Any]:
    """The last message of a backup."""
    lines = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
    found = [line for line in lines if line.get("message_type") == "summary"]
    if not found:
        raise ResticError("restic backup gave no summary")
    return dict(found[-1])


def serve(act: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer the request on standard input; what can be expected to fail is said in one line."""
    try:
        answer = act(json.load(sys.stdin))
    except EXPECTED as error:
        sys.exit(f"{error}".strip() or type(error).__name__)
    json.dump(answer, sys.stdout)
