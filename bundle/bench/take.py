"""`python -m bundle.bench.take FILE`, inside a closed host: import the images of a bundle as install does, no more."""

from __future__ import annotations

import sys
from pathlib import Path

from bundle import intake, manifest
from bundle.engine import Engine


def take(bundle: Path) -> str:
    """Import every image of `bundle` into this host's engine; one line an image: how, seconds, reference.

    Raises IntegrityError when an image is not what was sealed, CommandError when the engine cannot take it.
    """
    rows = intake.import_images(bundle, manifest.read(bundle), Engine())
    return "\n".join(f"{row.how} {row.seconds:.2f} {row.reference}" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(take(Path(sys.argv[1])) + "\n")
