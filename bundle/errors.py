"""Every way this product can refuse or fail; each class owns its exit code.

A message says what was attempted and where, in lower case and without a full stop; the hint is a sentence that
says what to do next. Several problems travel in one error, so that an operator sees all of them at once.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from dataclasses import dataclass

BROKEN_ARCHIVE = (
    OSError,
    EOFError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What the standard library raises for an archive that is damaged, cut off or of a form that it does not know."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: what, where (file and key, or service), and what to do next."""

    message: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text


class BundleError(Exception):
    """An unexpected failure of this product; the subclasses are the expected ones."""

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.problems: tuple[Problem, ...] = (Problem(message=message, where=where, hint=hint),)

    @classmethod
    def of(cls, problems: list[Problem]) -> BundleError:
        """One error that carries all of `problems` (at least one)."""
        error = cls(problems[0].message)
        error.problems = tuple(problems)
        return error

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class ConfigError(BundleError):
    """The configuration or an argument is wrong."""

    exit_code = 2


class PreconditionError(BundleError):
    """A tool, a version, a port, a right or some space is missing; nothing has been changed yet."""

    exit_code = 3


class CommandError(BundleError):
    """A command or a service failed."""

    exit_code = 4


class IntegrityError(BundleError):
    """A signature, a digest or a set of members is not what was sealed."""

    exit_code = 5


class CheckFailedError(BundleError):
    """At least one line of the checklist is red."""

    exit_code = 6


class BusyError(BundleError):
    """Another task holds the lock of this installation."""

    exit_code = 7
