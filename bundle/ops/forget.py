"""Let snapshots go that no point is made of any more, and the room that only they took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bundle.ops.restic import Restic, serve


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Forget the snapshots that a request names and that are there."""
    repository = request["repository"]
    restic = Restic(repository=repository, passphrase=request["passphrase"])
    restic.ensure()
    there = {entry["id"] for entry in json.loads(restic.run("snapshots", "--json"))}
    gone = [name for name in request["snapshots"] if name in there]
    for start in range(0, len(gone), 200):
        restic.run("forget", *gone[start : start + 200])
    if gone:
        restic.run("prune")
    for name in gone:
        Path(repository, "..", "index", f"{name}.ndjson").resolve().unlink(missing_ok=True)
    return {"gone": len(gone)}


if __name__ == "__main__":
    serve(act)
