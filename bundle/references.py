"""The form of a reference to a secret, as site.toml may have it in the place of the secret; nothing is read here."""

from __future__ import annotations

import re
import shlex

REFERENCE = re.compile(r"secret://(file|env|command)(/.+)\Z", re.DOTALL)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


def parts(reference: str) -> tuple[str, str]:
    """Kind and place of a reference of the right form: a path, the name of a variable, a command line."""
    found = REFERENCE.match(reference)
    assert found, "its form has been checked"
    return found[1], found[2][1:] if found[1] == "env" else found[2]


def reference_problem(value: str) -> str:
    """Why `value` does not refer to a secret; empty when it does, or is empty; the value is never told."""
    if not value:
        return ""
    if not REFERENCE.match(value):
        return (
            "it must refer to the secret, not be it: secret://file/PATH, secret://env/NAME or"
            " secret://command/PATH ARGUMENTS"
        )
    kind, place = parts(value)
    if any(ord(char) < 32 for char in place):
        return f"secret://{kind}/ has a control character in it"
    if kind == "env":
        return "" if VARIABLE.match(place) else "secret://env/ needs the name of a variable"
    try:
        words = shlex.split(place) if kind == "command" else [place]
    except ValueError:
        return "secret://command/ has a quotation mark too many"
    return "" if len(words[0]) > 1 else f"secret://{kind}/ needs an absolute path"
