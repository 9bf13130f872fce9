"""The operator's language: texts are written in pairs where they are used, and the task chooses once which is shown."""

from __future__ import annotations

from contextvars import ContextVar

from bundle.config import language

_chosen: ContextVar[str] = ContextVar("language", default="")


def choose(lang: str) -> None:
    """Use `lang` (ko, en; empty: by the locale) from here on."""
    _chosen.set(lang or language())


def say(english: str, korean: str) -> str:
    """The text in the operator's language."""
    return korean if (_chosen.get() or language()) == "ko" else english
