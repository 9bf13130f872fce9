"""The only door to other processes, and the operator's view of long work.

Commands are lists. A child gets no standard input unless text is given, always has a time limit, and its failure is
reported once: the command, how it ended, its last lines.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bundle.errors import CommandError, PreconditionError

log = logging.getLogger("bundle")

TAIL_LINES = 20


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last `lines` lines of `text`, indented for a message."""
    return "\n".join(f"  | {line}" for line in text.strip().splitlines()[-lines:])


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return "was not found" if code == 127 else f"failed with exit code {code}"


def run(
    command: Sequence[str],
    *,
    timeout: float,
    text: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    stdin: IO[bytes] | None = None,
    stream: bool = False,
    mute: bool = False,
    hint: str = "",
) -> str:
    """Run `command` and return its standard output (its error output too, when `stream` shows both to the operator).

    `timeout` is in seconds; `text` goes to standard input; `env` replaces the environment; `mute`: a failure tells
    nothing of what was said.

    Raises CommandError when it fails or takes too long, PreconditionError when the program is not there.
    """
    line = shlex.join(command)
    log.debug("+ %s", line)
    if stream:
        return _run_streamed(command, line, timeout, env, cwd, hint)
    done = _run_quiet(command, line, timeout, env, cwd, text, stdin, hint)
    if check and done.returncode != 0:
        said = "" if mute else f"\n{tail(done.stderr or done.stdout)}"
        raise CommandError(f"{line}: {describe_exit(done.returncode)}{said}", hint=hint)
    return done.stdout


def _run_quiet(
    command: Sequence[str],
    line: str,
    timeout: float,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    text: str | None,
    stdin: IO[bytes] | None,
    hint: str,
) -> subprocess.CompletedProcess[str]:
    given: dict[str, Any] = (
        {"stdin": stdin or subprocess.DEVNULL} if text is None else {"input": text}
    )
    try:
        return subprocess.run(
            list(command),
            **given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env=None if env is None else dict(env),
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise _not_found(command, error) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"{line}: no answer after {timeout:.0f} s",
            hint=hint or "Run again with --debug to see each command.",
        ) from error


def _not_found(command: Sequence[str], error: OSError) -> PreconditionError:
    return PreconditionError(
        f"{command[0]} not found", hint=f"Install {command[0]}, or put it on PATH ({error})."
    )


def _run_streamed(
    command: Sequence[str],
    line: str,
    timeout: float,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    hint: str,
) -> str:
    """Run `command`, showing its lines as they come; the same contract as `run`."""
    deadline = time.monotonic() + timeout
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=None if env is None else dict(env),
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise _not_found(command, error) from error
    lines = _follow(child, timeout)
    shown = tail("\n".join(lines))
    if child.returncode == -signal.SIGKILL and time.monotonic() >= deadline:
        raise CommandError(f"{line}: no answer after {timeout:.0f} s\n{shown}", hint=hint)
    if child.returncode != 0:
        raise CommandError(f"{line}: {describe_exit(child.returncode)}\n{shown}", hint=hint)
    return "\n".join(lines)


def _follow(child: subprocess.Popen[str], timeout: float) -> list[str]:
    """Show the lines of `child` until it ends; one that hangs without a word is ended too."""
    assert child.stdout is not None
    lines: list[str] = []
    watchdog = threading.Timer(timeout, child.kill)
    watchdog.start()
    try:
        for text in child.stdout:
            lines.append(text.rstrip("\n"))
            log.debug("  | %s", lines[-1])
        child.wait()
    finally:
        watchdog.cancel()
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stdout.close()
    return lines


def run_into(
    command: Sequence[str],
    out: IO[bytes],
    *,
    timeout: float,
    stdin: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run `command` with its standard output into the file `out`, perhaps one as its input; `timeout` in seconds.

    Raises CommandError when it fails or takes too long, PreconditionError when the program is not there.
    """
    line = shlex.join(command)
    log.debug("+ %s >", line)
    try:
        done = subprocess.run(
            list(command),
            stdin=stdin or subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=timeout,
            env=None if env is None else dict(env),
            check=False,
        )
    except FileNotFoundError as error:
        raise _not_found(command, error) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{line}: not done after {timeout:.0f} s") from error
    if done.returncode != 0:
        said = tail(done.stderr.decode("utf-8", "replace"))
        raise CommandError(f"{line}: {describe_exit(done.returncode)}\n{said}")


def popen(command: Sequence[str], *, stdin: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """A child whose standard output is streamed by the caller, who also ends it."""
    log.debug("+ %s", shlex.join(command))
    try:
        return subprocess.Popen(
            list(command), stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise _not_found(command, error) from error


def measure(
    command: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    watch: Callable[[int, threading.Event], None] | None = None,
) -> tuple[float, str]:
    """Run `command` for its time's sake: the seconds it took and all that it printed.

    `watch` runs beside it, with its pid and the event of its end. It and its children are one session, ended together.

    Raises CommandError when it fails or takes longer than `timeout` seconds, PreconditionError when it is not there.
    """
    line = shlex.join(command)
    log.debug("+ %s", line)
    with tempfile.TemporaryFile() as out:
        begin = time.monotonic()
        child = _start_session(command, out, env, cwd)
        _await(child, timeout, watch or _watch_nothing)
        seconds = time.monotonic() - begin
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    if child.returncode != 0:
        how = "no answer" if seconds >= timeout else describe_exit(child.returncode)
        raise CommandError(f"{line}: {how} after {seconds:.0f} s\n{tail(text)}")
    return seconds, text


def _start_session(
    command: Sequence[str], out: IO[bytes], env: Mapping[str, str] | None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own; both of its streams go to `out`."""
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise _not_found(command, error) from error


def _await(
    child: subprocess.Popen[bytes], timeout: float, watch: Callable[[int, threading.Event], None]
) -> None:
    """Wait for the end of `child` without a limit of its own, which would look for it only every 50 ms."""
    ended = threading.Event()
    watchdog = threading.Timer(timeout, os.killpg, (child.pid, signal.SIGKILL))
    watcher = threading.Thread(target=watch, args=(child.pid, ended), daemon=True)
    watcher.start()
    watchdog.start()
    try:
        child.wait()
    finally:
        watchdog.cancel()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        ended.set()


def _watch_nothing(_: int, ended: threading.Event) -> None:
    ended.wait()


def detach(command: Sequence[str], *, log_file: Path, env: Mapping[str, str] | None = None) -> int:
    """Start `command` in a session of its own, which outlives this tool; its words go to `log_file`. Returns its pid.

    Raises PreconditionError when the program is not there.
    """
    log.debug("+ %s &", shlex.join(command))
    with log_file.open("ab") as out:
        child = _start_session(command, out, env)
    threading.Thread(target=child.wait, daemon=True).start()  # or it stays as a zombie when it ends
    return child.pid


@contextmanager
def step(title: str) -> Iterator[None]:
    """Tell the operator that `title` has begun, and how long it took."""
    log.info("· %s …", title)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        log.info("✗ %s (%.1f s)", title, time.monotonic() - start)
        raise
    log.info("✓ %s (%.1f s)", title, time.monotonic() - start)


class Progress:
    """Bytes done of a known total: a moving line on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._start = self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        self.done += count
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._live else 10.0):
            self._shown = now
            self._show("\r" if self._live else "\n")

    def _show(self, end: str) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        rate = self.done / max(time.monotonic() - self._start, 0.001)
        share = 100 * self.done / max(self.total, 1)
        done = f"{self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB"
        sys.stderr.write(f"  {self.title}: {done} ({share:.0f} %, {rate / 1e6:,.0f} MB/s){end}")
        sys.stderr.flush()

    def close(self) -> None:
        """End the moving line."""
        if self._live:
            self._show("\n")
