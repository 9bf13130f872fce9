"""Bring every version of every object, up to a time, into restic, straight from the stream; and what opens the site.

What the rows of the databases name is read before the objects are listed: what a row names was written before it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_plus
from xml.etree import ElementTree

import psycopg
from minio import Minio
from minio.commonconfig import ENABLED

from bundle.claims import QUERIES, Claim, claims_of, unmet
from bundle.ops import packs
from bundle.ops.packs import CHUNK, Entry
from bundle.ops.restic import PackError, Restic, Stream, serve
from bundle.ops.s3 import client

AHEAD = 8
SMALL = 4 << 20
"""Objects up to this size are fetched ahead, some at once; bigger ones pass as they come."""
ROOM = 256 << 20
KEPT_HEADERS = ("content-type", "content-encoding", "content-disposition", "cache-control")


def listed(store: Minio, bucket: str, until: datetime.datetime) -> Iterator[Entry]:
    """Every version in a bucket up to a time, each key's oldest first.

    One that bears a time still to come was written before the clock was set back, and counts as before.
    """
    same: list[Entry] = []
    for entry, at in versions(store, bucket):
        if same and same[0].key != entry.key:
            yield from reversed(same)
            same = []
        if entry in same:  # some servers give one twice over their pages
            continue
        if at <= until or at > datetime.datetime.now(datetime.timezone.utc):
            same.append(entry)
    yield from reversed(same)


def versions(store: Minio, bucket: str) -> Iterator[tuple[Entry, datetime.datetime]]:
    """Every version with its time, key by key, newest first, in the very order in which the server gives them.

    The client's own listing tells of versions first, then of deletions: which was the later one is lost by that.
    """
    query = {"versions": "", "encoding-type": "url", "max-keys": "1000"}
    while True:
        answer = store._execute("GET", bucket_name=bucket, query_params=cast(Any, dict(query)))
        page = ElementTree.fromstring(answer.data)
        for node in page:
            if (kind := node.tag.rpartition("}")[2]) in ("Version", "DeleteMarker"):
                yield _entry(node, bucket, gone=kind == "DeleteMarker")
        if _text(page, "IsTruncated") != "true":
            return
        query["key-marker"] = unquote_plus(_text(page, "NextKeyMarker"))
        query["version-id-marker"] = _text(page, "NextVersionIdMarker")


def _entry(
    node: ElementTree.Element, bucket: str, *, gone: bool
) -> tuple[Entry, datetime.datetime]:
    at = datetime.datetime.fromisoformat(_text(node, "LastModified").replace("Z", "+00:00"))
    entry = Entry(
        bucket=bucket,
        key=unquote_plus(_text(node, "Key")),
        version=_text(node, "VersionId") or "null",
        at=at.isoformat(timespec="milliseconds"),
        size=int(_text(node, "Size") or 0),
        gone=gone,
    )
    return entry, at


def _text(node: ElementTree.Element, name: str) -> str:
    return node.findtext(f"{{*}}{name}") or ""


class Reader:
    """Gets versions out of buckets, each with the key of its bucket."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.buckets = {
            b["name"]: client(request["store"], b["key"], b["secret"], retries=3)
            for b in request["buckets"]
        }

    def open(self, entry: Entry) -> tuple[Entry, Any]:
        """A version with its headers, and the answer that gives its bytes."""
        store = self.buckets[entry.bucket]
        answer = store.get_object(entry.bucket, entry.key, version_id=entry.version)
        given = {name.lower(): str(value) for name, value in answer.headers.items()}
        headers = {
            k: v for k, v in given.items() if k in KEPT_HEADERS or k.startswith("x-amz-meta-")
        }
        return replace(entry, headers=headers), answer

    def whole(self, entry: Entry) -> tuple[Entry, bytes]:
        """A small version at once."""
        full, answer = self.open(entry)
        try:
            return full, answer.read()
        finally:
            answer.close()
            answer.release_conn()


def fetched(reader: Reader, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """Each version with its bytes, in the given order; small ones are fetched ahead."""
    with closing(_Ahead(reader, entries)) as ahead:
        for entry, future in ahead:
            if future is not None:
                full, data = future.result()
                yield full, (data,)
            elif entry.gone:
                yield entry, ()
            else:
                full, answer = reader.open(entry)
                try:
                    yield full, answer.stream(CHUNK)
                finally:
                    answer.close()
                    answer.release_conn()


class _Ahead:
    """Entries in their order, with what is on its way of the next ones."""

    def __init__(self, reader: Reader, entries: Iterable[Entry]) -> None:
        self.reader, self.rest = reader, iter(entries)
        self.pool = ThreadPoolExecutor(max_workers=4)
        self.queue: deque[tuple[Entry, Future[tuple[Entry, bytes]] | None]] = deque()

    def __iter__(self) -> Iterator[tuple[Entry, Future[tuple[Entry, bytes]] | None]]:
        while True:
            while len(self.queue) < AHEAD and (entry := next(self.rest, None)):
                small = not entry.gone and entry.size <= SMALL
                future = self.pool.submit(self.reader.whole, entry) if small else None
                self.queue.append((entry, future))
            if not self.queue:
                return
            yield self.queue.popleft()

    def close(self) -> None:
        """Let go of what nobody wants any more."""
        self.pool.shutdown(cancel_futures=True)


def write(stream: Stream, reader: Reader, entries: Iterable[Entry]) -> list[Entry]:
    """Put each version's bytes into the stream; the index.

    Raises PackError when a version gives other bytes than were listed.
    """
    stream.file.write(packs.HEAD)
    place, index = len(packs.HEAD), []
    for entry, chunks in fetched(reader, entries):
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            stream.file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        if size != entry.size:
            raise PackError(f"{entry.bucket}/{entry.key}: {size} bytes of {entry.size}")
        sha256 = "" if entry.gone else digest.hexdigest()
        index.append(replace(entry, offset=place, sha256=sha256))
        place += size
    return index


def room_for(repository: str, entries: Iterable[Entry]) -> None:
    """See that the new versions have room, as if nothing could be compressed.

    Raises OSError when they have none.
    """
    need, free = sum(entry.size for entry in entries) + ROOM, _free(repository)
    if free < need:
        raise OSError(28, f"{free >> 20:,} MiB free for backups, {need >> 20:,} MiB needed")


def _free(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def chain_of(restic: Restic, folder: Path, rows: list[list[Any]]) -> list[list[Entry]]:
    """The entries of each pack of a chain, from the copies of their indexes here, or out of restic."""
    found = []
    for _, snapshot, digest, *_ in rows:
        copy = folder / f"{snapshot}.ndjson"
        try:
            found.append(packs.parse(copy.read_bytes(), digest))
        except (OSError, ValueError, TypeError, PackError):
            data = restic.load(snapshot, "index.ndjson")
            found.append(packs.parse(data, digest))
            keep(copy, data)
    return found


def keep(copy: Path, data: bytes) -> None:
    """Keep an index beside the repository: the next run need not ask restic."""
    copy.parent.mkdir(exist_ok=True)
    new = copy.with_suffix(".new")
    new.write_bytes(data)
    new.rename(copy)


def save_pack(
    restic: Restic, folder: Path, point: str, reader: Reader, fresh: list[Entry]
) -> tuple[list[Any], list[Entry], int]:
    """One more pack: its row for the ledger, its entries, the bytes that the repository grew by."""
    with restic.saving("pack", f"pack,{point}") as stream:
        index = write(stream, reader, fresh)
    data = packs.dump(index)
    snapshot = restic.save("index.ndjson", f"index,{point}", data)
    keep(folder / f"{snapshot}.ndjson", data)
    assert stream.found is not None
    size = sum(entry.size for entry in index)
    row = [stream.snapshot, snapshot, hashlib.sha256(data).hexdigest(), len(index), size]
    return row, index, int(stream.found.get("data_added_packed", 0)) + len(data)


def told(claims: list[Claim], there: Iterable[Entry]) -> dict[str, Any]:
    """What the rows claim, and which claims have no object."""
    names = [f"{entry.bucket}/{entry.key}" for entry in there]
    return {"claims": len(claims), "missing": [str(claim) for claim in unmet(claims, names)]}


def read_claims(database: dict[str, Any]) -> list[Claim]:
    """Every claim of the database that a request describes; none when it describes none."""
    if not database:
        return []
    with psycopg.connect(**database["login"]) as connection:
        rows = [
            (kind, str(row), str(location or ""))
            for kind, query in QUERIES.items()
            for row, location in connection.execute(query).fetchall()
        ]
    return claims_of(rows, database["bucket"])


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Bring what no pack of the chain has into one more; what the point then consists of."""
    repository = request["repository"]
    restic = Restic(repository=repository, passphrase=request["passphrase"])
    restic.ensure()
    claims = read_claims(request["database"])
    reader = Reader(request)
    for name, store in reader.buckets.items():
        if store.get_bucket_versioning(name).status != ENABLED:
            raise PackError(f"bucket {name} is not versioned: run invoke install")
    until = datetime.datetime.fromisoformat(request["until"])
    rows: list[list[Any]] = [] if request["full"] else request["packs"]
    folder = Path(repository, "..", "index").resolve()
    chain = chain_of(restic, folder, rows)
    known = {(e.bucket, e.key, e.version) for entries in chain for e in entries}
    every = [e for name, store in reader.buckets.items() for e in listed(store, name, until)]
    fresh = [entry for entry in every if (entry.bucket, entry.key, entry.version) not in known]
    room_for(repository, fresh)
    stored = 0
    if fresh:
        row, index, stored = save_pack(restic, folder, request["point"], reader, fresh)
        rows, chain = [*rows, row], [*chain, index]
    config = request["config"]  # the same as for the point before, when nothing of it has changed
    if not config:
        opener = base64.b64decode(request["opener"])
        config = restic.save("site.tar", f"site,{request['point']}", opener)
    there = [entry for _, entry in packs.current(chain).values()]
    return {
        "packs": rows,
        "config": config,
        "fresh": len(fresh),
        "objects": len(there),
        "size": sum(entry.size for entry in there),
        "stored": stored,
        "state": packs.state(there),
        **told(claims, there),
    }


if __name__ == "__main__":
    serve(act)
