"""Where the images come from: an in-toto statement with SLSA v1 provenance. Pure; it claims build level 1 and no more.

Nothing of the host that built is in it: no name, user, path, mirror or proxy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bundle.components import Inventory
from bundle.sbom import moment

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:tracking-bundle:build:1"  # described in docs/supply-chain.md, which travels along
BUILDER = "urn:tracking-bundle:connected-host"


def statement(
    inventory: Inventory,
    *,
    parameters: Mapping[str, Any],
    locks: Mapping[str, str],
    documents: Mapping[str, str],
) -> dict[str, Any]:
    """The statement over the images.

    `parameters`: what the operator chose; `locks`: sha256 by path in the source tree; `documents`: sha256 of what was
    made beside the images.
    """
    return {
        "_type": STATEMENT,
        "subject": [
            {
                "name": f"tracking-bundle/{name}",
                "digest": {"sha256": digest.removeprefix("sha256:")},
            }
            for name, digest in sorted(inventory.images.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(sorted(parameters.items())),
                "internalParameters": {"arch": inventory.arch, "suite": inventory.suite},
                "resolvedDependencies": [
                    {"name": path, "digest": {"sha256": digest}}
                    for path, digest in sorted(locks.items())
                ],
            },
            "runDetails": _run(inventory, documents),
        },
    }


def _run(inventory: Inventory, documents: Mapping[str, str]) -> dict[str, Any]:
    """Who built and when, as far as the same inputs say the same."""
    name = f"urn:tracking-bundle:{inventory.version}:{inventory.arch}:{inventory.created}"
    at = moment(inventory.created)
    return {
        "builder": {"id": BUILDER, "version": {"tracking-bundle": inventory.version}},
        "metadata": {"invocationId": name, "startedOn": at, "finishedOn": at},
        "byproducts": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(documents.items())
        ],
    }


def dump(document: Mapping[str, Any]) -> bytes:
    """The statement's bytes."""
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"
