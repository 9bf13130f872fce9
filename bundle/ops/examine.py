"""Look whether the repository of objects is whole: its structure, or every byte of all or of a part of it."""

from __future__ import annotations

import json
from typing import Any

from bundle.ops.restic import Restic, ResticError, serve


def act(request: dict[str, Any]) -> dict[str, Any]:
    """What is wrong; `read` is empty, or how much of the data is read (`100%`); `snapshots` must all be there."""
    restic = Restic(repository=request["repository"], passphrase=request["passphrase"])
    restic.ensure()
    words = ["check"]
    if request["read"]:
        words += ["--read-data"] if request["read"] == "100%" else []
        words += [] if request["read"] == "100%" else [f"--read-data-subset={request['read']}"]
    wrong = []
    try:
        restic.run(*words)
        there = {entry["id"] for entry in json.loads(restic.run("snapshots", "--json"))}
        wrong += [f"snapshot {n[:12]} is not there" for n in request["snapshots"] if n not in there]
    except ResticError as error:
        wrong.append(str(error))
    return {"wrong": wrong}


if __name__ == "__main__":
    serve(act)
