"""`python -m tests.twice PLACE OUT KEY`: `invoke bundle` of this tree with every image built anew under PLACE."""

from __future__ import annotations

import functools
import logging
import sys
from pathlib import Path

from bundle import images
from bundle.workflows import connected

if __name__ == "__main__":
    place, out, key = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    images.build_all = functools.partial(images.build_all, fresh=place)
    here = Path(__file__).parents[2]
    order = connected.Order(out=Path(out), sign_key=key)
    sys.stdout.write(connected.make_bundle(here, order) + "\n")
