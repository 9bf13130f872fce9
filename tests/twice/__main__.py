"""`python -m tests.twice OUT KEY [PLACE]`: `invoke bundle` of this tree; with PLACE every image is built anew there.

With OTHER_CLOCK (libfaketime's path) this process and all that it starts are 400 days ahead.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from pathlib import Path

from bundle import crew, images
from bundle.run import popen
from bundle.workflows import connected

DAYS = 400


def set_clock(library: str) -> None:
    """Another time for this process, and by `library` for its children.

    Python itself cannot bear that library: its waits end with an error.
    """
    os.environ |= {"LD_PRELOAD": library, "FAKETIME": f"+{DAYS}d"}
    os.environ["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    real = time.time
    time.time = lambda: real() + DAYS * 86400
    bare = ["env", "-u", "LD_PRELOAD"]
    crew.popen = lambda command, **more: popen([*bare, *command], **more)  # type: ignore[attr-defined]


if __name__ == "__main__":
    out, key, *place = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if place:
        images.build_all = functools.partial(images.build_all, fresh=place[0])
    if "OTHER_CLOCK" in os.environ:
        set_clock(os.environ["OTHER_CLOCK"])
    here = Path(__file__).parents[2]
    order = connected.Order(out=Path(out), sign_key=key)
    sys.stdout.write(connected.make_bundle(here, order) + "\n")
