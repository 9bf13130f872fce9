"""What a task shares with its operator: log lines on standard error, one form of error, the exit code, tables."""

from __future__ import annotations

import getpass
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn
from unicodedata import east_asian_width

from bundle.errors import BundleError, ConfigError, Problem
from bundle.run import log
from bundle.words import choose, say

INTERRUPTED = 130


@contextmanager
def operator(*, quiet: bool = False, debug: bool = False, lang: str = "") -> Iterator[None]:
    """Run a task's body: errors become one message and their exit code, a traceback only with `debug`.

    Raises SystemExit with the exit codes of the interface.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if lang not in ("", "ko", "en"):
            hint = "Give --lang ko or --lang en."
            raise ConfigError(f"{lang!r} is not ko or en", where="--lang", hint=hint)
        choose(lang)
        yield
    except KeyboardInterrupt as stop:
        _end(stop, debug)
    except Exception as error:  # noqa: BLE001  (the last door)
        _end(error, debug)


def _interrupt(*_: object) -> NoReturn:
    """End as after Ctrl-C; not by its signal, which a run in the background has ignored."""
    raise KeyboardInterrupt


def _end(error: BaseException, debug: bool) -> NoReturn:
    """Say what happened and end with its exit code."""
    if debug:
        traceback.print_exc()
    for problem in problems_of(error):
        place = f"{problem.where}: " if problem.where else ""
        sys.stderr.write(f"{say('error', '오류')}: {place}{problem.message}\n")
        if problem.hint:
            sys.stderr.write(f"  {say('hint', '조치')}: {problem.hint}\n")
    sys.exit(exit_code(error))


def exit_code(error: BaseException) -> int:
    """The exit code of the interface for `error`."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, BundleError) else 1


def problems_of(error: BaseException) -> tuple[Problem, ...]:
    """What to tell the operator of `error`."""
    if isinstance(error, BundleError):
        return error.problems
    if isinstance(error, KeyboardInterrupt):
        message = say("interrupted", "중단되었습니다")
        hint = say("Run it again: it takes up where it was.", "다시 실행하면 이어서 진행합니다.")
        return (Problem(message=message, hint=hint),)
    if isinstance(error, OSError):
        return (Problem(message=str(error), hint=_os_hint(error)),)
    message = say("unexpected", "예상하지 못한 오류") + f": {type(error).__name__}: {error}"
    return (
        Problem(
            message=message, hint=say("Run it again with --debug.", "--debug로 다시 실행하십시오.")
        ),
    )


def _os_hint(error: OSError) -> str:
    if error.errno == 28:
        return say(
            "The disk is full: free some room, then run it again.",
            "디스크가 가득 찼습니다. 공간을 확보한 뒤 다시 실행하십시오.",
        )
    return say(
        "Mend that, then run it again; --debug shows more.",
        "문제를 해결한 뒤 다시 실행하십시오. --debug로 자세히 볼 수 있습니다.",
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table with aligned columns; wide characters (Korean) count twice."""
    cells = [list(head), *[list(row) for row in rows]]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(row)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def ask_secret(what: str) -> bytes | None:
    """What the operator types without its being shown; nothing when nobody is there to type."""
    if not sys.stdin.isatty():
        return None
    try:
        return getpass.getpass(f"{what}: ").encode()
    except EOFError:
        return None


def confirm(question: str, *, yes: bool, ask: Callable[[str], str] = input) -> None:
    """Go on only when the operator agrees; `yes` agrees beforehand.

    Raises ConfigError when there is nobody to ask, or the answer is no.
    """
    if yes:
        return
    hint = say("Run it again with --yes to agree.", "동의하면 --yes를 붙여 다시 실행하십시오.")
    if not sys.stdin.isatty():
        raise ConfigError(
            say("there is no terminal to ask on", "질문할 터미널이 없습니다") + f": {question}",
            hint=hint,
        )
    if ask(f"{question} [y/N] ").strip().lower() not in ("y", "yes", "예", "네"):
        raise ConfigError(
            say("not confirmed; nothing was changed", "확인하지 않아 아무것도 바꾸지 않았습니다"),
            hint=hint,
        )
