"""The secrets that site.toml refers to instead of holding them: in a file, in a variable, or what a command says.

What is found is a Secret from its first moment; a refusal says the place and the reason, never any of the content.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from bundle.config import variables
from bundle.errors import CommandError, ConfigError, PreconditionError
from bundle.model import Secret
from bundle.references import parts, reference_problem
from bundle.run import run
from bundle.words import say

LONGEST = 4096
WITHIN_S = 30


def borrow(reference: str, where: str) -> Secret:
    """The secret that `reference` (secret://file/…, secret://env/…, secret://command/…) leads to.

    Raises ConfigError with the reason when it leads to none, or to one that others can read.
    """
    if wrong := reference_problem(reference):
        raise ConfigError(wrong, where=where)
    kind, place = parts(reference)
    find = {"file": _of_file, "env": _of_variable, "command": _of_command}[kind]
    value = find(place, where).strip("\r\n")
    if not value:
        raise _refusal(place, where, "is empty", "비어 있습니다")
    if len(value) > LONGEST or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise _refusal(
            place,
            where,
            f"is not one line of at most {LONGEST} printable characters",
            f"{LONGEST}자 이하의 인쇄 가능한 한 줄이 아닙니다",
        )
    return Secret(value)


def _refusal(place: str, where: str, english: str, korean: str) -> ConfigError:
    hint = say(
        "Put the secret there, for its owner only, then run this again.",
        "그곳에 비밀을 소유자만 읽도록 넣은 뒤 다시 실행하십시오.",
    )
    return ConfigError(f"{place}: {say(english, korean)}", where=where, hint=hint)


def _of_file(place: str, where: str) -> str:
    path = Path(place)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise _refusal(place, where, "is not a file", "파일이 아닙니다")
            _check_owner(status, place, where)
            return file.read(LONGEST + 2).decode("utf-8")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise _refusal(place, where, why, f"읽을 수 없습니다 ({why})") from error
    except UnicodeDecodeError as error:
        raise _refusal(place, where, "is not UTF-8", "UTF-8이 아닙니다") from error


def _check_owner(status: os.stat_result, place: str, where: str) -> None:
    """A secret that everybody reads is none, and one that another user may change is not ours."""
    mode = status.st_mode & 0o7777
    if mode & 0o007:
        message = say(
            f"{place} is open to everybody (mode {mode:04o})",
            f"{place}을(를) 누구나 읽을 수 있습니다 (권한 {mode:04o})",
        )
        raise ConfigError(message, where=where, hint=f"chmod 600 {shlex.quote(place)}")
    if status.st_uid not in (0, os.geteuid()):
        message = say(
            f"{place} belongs to uid {status.st_uid}",
            f"{place}의 소유자가 uid {status.st_uid}입니다",
        )
        raise ConfigError(message, where=where, hint=f"chown root {shlex.quote(place)}")


def _of_variable(name: str, where: str) -> str:
    found = variables([name])
    if name not in found:
        raise _refusal(name, where, "is not in the environment", "환경 변수가 없습니다")
    return found[name]


def _of_command(line: str, where: str) -> str:
    """What a command says; what it says when it fails stays untold, since it may be the secret."""
    words = shlex.split(line)
    program = Path(words[0])
    try:
        status = program.stat()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise _refusal(words[0], where, why, f"실행할 수 없습니다 ({why})") from error
    if status.st_mode & 0o002 or status.st_uid not in (0, os.geteuid()):
        raise _refusal(
            words[0], where, "can be changed by others", "다른 사용자가 바꿀 수 있습니다"
        )
    try:
        return run(words, timeout=WITHIN_S, mute=True)
    except (CommandError, PreconditionError, OSError) as error:
        why = str(error).splitlines()[0].rpartition(": ")[2] or type(error).__name__
        raise _refusal(
            words[0], where, f"the command failed: {why}", f"명령이 실패했습니다: {why}"
        ) from None
