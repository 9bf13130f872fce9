"""The note of a restore that is under way: until it is done nothing else may start the databases."""

from __future__ import annotations

import contextlib
import json

from bundle.errors import CommandError
from bundle.host import Host
from bundle.words import say

NOTE = "restoring.json"


def refuse(host: Host) -> None:
    """See that no restore was cut short.

    Raises CommandError: a server that starts on an empty folder would make new databases there.
    """
    path, point = host.path(NOTE), ""
    if not path.exists():
        return
    with contextlib.suppress(OSError, ValueError, KeyError):
        point = json.loads(path.read_bytes())["point"]
    hint = say(
        f"Run it again: invoke restore --point {point} --yes.",
        f"다시 실행하십시오: invoke restore --point {point} --yes.",
    )
    message = say("a restore was cut short", "복구가 중단된 상태입니다")
    raise CommandError(message, where=str(path), hint=hint)
