"""A closed host that can be thrown away: own file system, namespaces and engine, a loopback and no way out.

It is made of Debian packages and namespaces on one Linux machine, by root, without systemd and without an image of
ours. When its first process is killed, everything in it dies at once: that is its power cut.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle import bare
from bundle.engine import Engine
from bundle.errors import CommandError, PreconditionError
from bundle.run import detach, run

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
SOCKET = "run/docker.sock"
UNFIT = ("overlay", "tmpfs", "ramfs", "nfs", "fuse")
BARE_NAMES = (
    ".bashrc",
    ".profile",
    "__pycache__",
    "README.txt",
    "containerd",
)  # Debian's and the engine's own
TOOLS = ("debootstrap", "unshare", "nsenter", "tar", "pivot_root")

_IN_FOLDER = 'cd "$1" && shift && exec "$@"'
_REACH = """
import socket, sys
for host in sys.argv[1:]:
    try:
        socket.create_connection((host, 443), 5).close()
        print(host, "reached")
    except OSError as error:
        print(host, "no:", error)
"""


@dataclass(frozen=True, kw_only=True)
class ClosedHost:
    """One closed host; `folder` holds its file system, the id of its first process and the log of its start."""

    folder: Path

    @property
    def root(self) -> Path:
        """Its file system as this host sees it (what it keeps in memory, like /run, is not there)."""
        return self.folder / "root"

    @property
    def pid(self) -> int | None:
        """Its first process, None when it is off."""
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid, started = (self.folder / "pid").read_text("ascii").split()
            fields = (
                Path("/proc", pid, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            )
            if fields[19] == started and fields[0] not in "ZX":
                return int(pid)
        return None

    @property
    def engine(self) -> Engine:
        """Its engine, reached from here through its socket.

        Raises PreconditionError when the host is off.
        """
        return Engine(host=f"unix:///proc/{self._running()}/root/{SOCKET}")

    def _running(self) -> int:
        pid = self.pid
        if pid is None:
            raise PreconditionError(
                "the closed host is off", where=str(self.folder), hint="Start it."
            )
        return pid

    def start(self, *, timeout: float = 60) -> None:
        """Switch it on: its start script runs, its engine comes up by itself.

        Raises CommandError when it does not start.
        """
        if self.pid is not None:
            return
        (self.folder / "pid").unlink(missing_ok=True)
        log_file = self.folder / "start.log"
        detach(
            [str(SCRIPTS / "closed-host"), "boot", str(self.folder)],
            log_file=log_file,
            env=ENVIRONMENT,
        )
        ready = ["/bin/sh", "-c", "test -e /run/closed/routes-at-boot"]
        _wait(
            lambda: self.pid is not None and self._succeeds(ready),
            timeout,
            f"no start, see {log_file}",
        )

    def engine_up(self, *, timeout: float = 90) -> float:
        """Wait until its engine answers; the seconds that took.

        Raises CommandError when it does not.
        """
        begin = time.monotonic()
        _wait(
            self._engine_answers,
            timeout,
            f"its engine does not answer, see {self.root}/var/log/dockerd.log",
        )
        return time.monotonic() - begin

    def _engine_answers(self) -> bool:
        with contextlib.suppress(PreconditionError):
            return self.engine.answers()
        return False

    def _succeeds(self, command: Sequence[str]) -> bool:
        try:
            self.run(command, timeout=20)
        except CommandError:
            return False
        return True

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        text: str | None = None,
        cwd: str = "/root",
        check: bool = True,
        stream: bool = False,
    ) -> str:
        """Run `command` in it with a bare environment (`env` adds to it) and return its standard output.

        Raises CommandError when it fails or takes longer than `timeout` seconds, which ends it there too.
        """
        return run(
            self.line(command, timeout=timeout, cwd=cwd),
            timeout=timeout + 15,
            env={**ENVIRONMENT, **(env or {})},
            text=text,
            check=check,
            stream=stream,
        )

    def line(self, command: Sequence[str], *, timeout: float, cwd: str = "/root") -> list[str]:
        """The command line that runs `command` in it, from here.

        Raises PreconditionError when the host is off.
        """
        self._running()
        limit = ["/usr/bin/timeout", "--kill-after=5", f"{timeout:.0f}"]
        inner = [*limit, "/bin/sh", "-c", _IN_FOLDER, "sh", cwd, *command]
        return [str(SCRIPTS / "closed-host"), "enter", str(self.folder), "--", *inner]

    def beside(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> str:
        """Run `command` with this host's file system in the closed host's network (a browser, say).

        Raises CommandError when it fails.
        """
        self._running()
        line = [str(SCRIPTS / "closed-host"), "beside", str(self.folder), "--", *command]
        return run(line, timeout=timeout, env=env, text=text)

    def put(self, path: Path, into: str) -> Path:
        """Bring the file `path` into the folder `into` of the closed host, like a medium; returns its place inside."""
        target = self.root / into.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        run(["cp", "--reflink=auto", str(path), str(target)], timeout=1800)
        return Path("/", into.lstrip("/"), path.name)

    def power_cut(self) -> None:
        """End everything in it at once, as if its power were cut (what its kernel has not yet written, survives)."""
        pid = self.pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        # The first process is gone only after every other one of its namespace.
        _wait(lambda: self.pid is None, 60, "its processes do not end")
        (self.folder / "pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Switch it off and leave nothing of it on this host, after a killed run too."""
        self.power_cut()
        run(
            [str(SCRIPTS / "closed-host"), "forget", str(self.folder)],
            timeout=60,
            env=ENVIRONMENT,
            check=False,
        )
        if self.folder.exists():
            run(["rm", "-rf", "--one-file-system", str(self.folder)], timeout=600)

    def way_in(self) -> str:
        """The line that opens a shell in it."""
        return f"{SCRIPTS / 'closed-host'} enter {self.folder} -- /bin/bash -l"

    def openings(self, outside: Sequence[str]) -> list[str]:
        """Every way in which it is not closed and empty; `outside` are names and addresses that it must not reach."""
        found = []
        links = self.run(["cat", "/run/closed/links-at-boot"], timeout=20).splitlines()
        found += [
            f"network interface: {line}" for line in links if line.split(":")[1].strip() != "lo"
        ]
        routes = self.run(["cat", "/run/closed/routes-at-boot"], timeout=20).splitlines()
        found += [f"route: {line}" for line in routes if "dev lo" not in line]
        found += [
            f"way out: {line}"
            for line in self.run(["ip", "route", "show", "default"], timeout=20).splitlines()
        ]
        reached = self.run(["python3", "-c", _REACH, *outside], timeout=60 * max(1, len(outside)))
        found += [f"outside: {line}" for line in reached.splitlines() if line.endswith("reached")]
        found += [f"image in its engine: {name}" for name in self.engine.image_ids()]
        found += [f"on its disk: {path}" for path in self._foreign_files()]
        return found

    def _foreign_files(self) -> list[str]:
        """A checkout, certificates or Python packages that a bare host does not have."""
        places = {
            "etc/ssl/certs": "*",
            "usr/local/share/ca-certificates": "*",
            "usr/local/lib/python3*": "**/*.py",
            "usr/lib/python3/dist-packages": "*",
            "root": "*",
            "srv": "*",
            "opt": "*",
            "var/lib/tracking-bundle": "*",
        }
        return [
            str(path.relative_to(self.root))
            for place, pattern in places.items()
            for folder in self.root.glob(place)
            for path in folder.glob(pattern)
            if path.name not in BARE_NAMES
        ]


def _wait(done: Callable[[], bool], timeout: float, message: str) -> None:
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            raise CommandError(
                f"the closed host: {message}", hint="Run again with --debug to see each command."
            )
        time.sleep(0.25)


def create(folder: Path, *, cache: Path, mirror: str = "", systemd: bool = False) -> ClosedHost:
    """A fresh closed host in `folder`, switched off; what an earlier run left there is removed first.

    With `systemd` that is its first process and starts the engine, as on most hosts; else a script of ours and cron.

    Raises PreconditionError where this machine cannot hold one.
    """
    problems = requirements(folder)
    if problems:
        raise PreconditionError(
            "; ".join(problems), hint="Run as root on Debian or Ubuntu, on a real disk."
        )
    host = ClosedHost(folder=folder.resolve())
    host.remove()
    archive = bare.archive(cache, mirror or bare.MIRROR, systemd=systemd)
    host.root.mkdir(parents=True)
    run(
        ["tar", "-C", str(host.root), "-xpf", str(archive), "--numeric-owner", "--xattrs"],
        timeout=600,
    )
    shutil.copy(SCRIPTS / "closed-boot", host.root / "sbin/closed-boot")
    return host


def requirements(folder: Path) -> list[str]:
    """Why this machine cannot hold a closed host in `folder`; empty when it can."""
    problems = []
    if os.geteuid() != 0:
        problems.append("namespaces need root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        problems.append(f"not found: {', '.join(missing)} (packages debootstrap, util-linux)")
    kind = run(["stat", "--file-system", "--format=%T", str(_existing(folder))], timeout=20).strip()
    if any(word in kind for word in UNFIT):
        problems.append(f"{folder} is on {kind}, its engine needs a real disk")
    return problems


def _existing(folder: Path) -> Path:
    return next(
        place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()
    )
