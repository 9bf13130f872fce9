"""Give out what opened the site when a point was made, for the host that restores it."""

from __future__ import annotations

import base64
from typing import Any

from bundle.ops.restic import Restic, serve


def act(request: dict[str, Any]) -> dict[str, Any]:
    """The archive of a snapshot."""
    restic = Restic(repository=request["repository"], passphrase=request["passphrase"])
    restic.ensure()
    data = restic.load(request["snapshot"], "site.tar")
    return {"data": base64.b64encode(data).decode()}


if __name__ == "__main__":
    serve(act)
