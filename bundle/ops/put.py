"""Bring the objects of a point back out of restic into the buckets, or only read every byte and compare.

What is there already is left alone; what came after the point gets the mark of a deletion: buckets are versioned, and
all of it stays as older versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from minio import Minio

from bundle.claims import claims_of, unmet
from bundle.ops import packs
from bundle.ops.packs import Entry, Part
from bundle.ops.restic import PackError, Restic, serve
from bundle.ops.s3 import client
from bundle.ops.save import chain_of, read_claims, versions

SHOWN = 20
PART = 16 << 20


def here(store: Minio, bucket: str) -> dict[str, str]:
    """The version of each object that a reader gets now."""
    found: dict[str, Entry] = {}
    for entry, _ in versions(store, bucket):
        found.setdefault(entry.key, entry)
    return {key: entry.version for key, entry in found.items() if not entry.gone}


def put(store: Minio, entry: Entry, part: Part) -> None:
    """Write one object as it was."""
    headers = dict(entry.headers or {})
    kind = headers.pop("content-type", "application/octet-stream")
    store.put_object(
        entry.bucket,
        entry.key,
        cast(Any, part),
        entry.size,
        content_type=kind,
        metadata=cast(Any, headers),
        part_size=PART if entry.size > PART else 0,
    )


def bring(
    stores: dict[str, Minio], there: dict[tuple[str, str], tuple[int, Entry]]
) -> tuple[dict[tuple[str, str], tuple[int, Entry]], int]:
    """What must be written, after everything that came later was marked as deleted; how many those were."""
    now = {(bucket, key): v for bucket in stores for key, v in here(stores[bucket], bucket).items()}
    later = [name for name in now if name not in there]
    for bucket, key in later:
        stores[bucket].remove_object(bucket, key)
    lacking = {name: found for name, found in there.items() if now.get(name) != found[1].version}
    return lacking, len(later)


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Read (and, with `write`, bring back) what the packs hold as of the point, and compare all of it."""
    repository = request["repository"]
    restic = Restic(repository=repository, passphrase=request["passphrase"])
    rows = request["packs"]
    chain = chain_of(restic, Path(repository, "..", "index").resolve(), rows)
    there = packs.current(chain)
    entries = [entry for _, entry in there.values()]
    if packs.state(entries) != request["state"]:
        raise PackError("the packs do not add up to the point's objects")
    stores = {
        b["name"]: client(request["store"], b["key"], b["secret"], retries=3)
        for b in request["buckets"]
    }
    wanted, gone = bring(stores, there) if request["write"] else (there, 0)
    size = 0
    for number, own in packs.wanted(wanted).items():
        with restic.loading(rows[number][0], "pack") as stream:
            for entry, part in packs.parts(stream, own):
                if request["write"]:
                    put(stores[entry.bucket], entry, part)
                size += entry.size
    claims = claims_of(
        ((c["kind"], c["row"], c["location"]) for c in request.get("claims", [])),
        request.get("bucket", ""),
    )
    claims += read_claims(request.get("database", {}))
    missing = [str(claim) for claim in unmet(claims, [f"{e.bucket}/{e.key}" for e in entries])]
    return {
        "objects": len(entries),
        "read": len(wanted),
        "bytes": size,
        "gone": gone,
        "claims": len(claims),
        "missing": missing[:SHOWN],
        "unmet": len(missing),
    }


if __name__ == "__main__":
    serve(act)
