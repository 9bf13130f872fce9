"""Give out what opened the site when a point was made, for the host that restores it."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from bundle.ops.restic import Restic


def act(request: dict[str, Any]) -> dict[str, Any]:
    """The archive of a snapshot."""
    restic = Restic(repository=request["repository"], passphrase=request["passphrase"])
    restic.ensure()
    data = restic.load(request["snapshot"], "site.tar")
    return {"data": base64.b64encode(data).decode()}


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
