"""What rows of MLflow's database say is in the bucket: models that are ready, versions in the registry, kept traces.

A run has no list of its files in the database, so it claims nothing; a location that is not in our bucket is the
client's own affair (a prompt, a model elsewhere), and claims nothing either.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

PROXIED = "mlflow-artifacts"
DATABASE = "mlflow"
QUERIES = {
    "model": "select model_id, artifact_location from logged_models where status = 2 and lifecycle_stage = 'active'",
    "version": (
        "select name || '/' || version, coalesce(storage_location, source) from model_versions"
        " where current_stage is distinct from 'Deleted_Internal' and status = 'READY'"
    ),
    "trace": (
        "select l.request_id, l.value from trace_tags l join trace_tags w"
        " on w.request_id = l.request_id and w.key = 'mlflow.trace.spansLocation' and w.value = 'ARTIFACT_REPO'"
        " where l.key = 'mlflow.artifactLocation'"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A row that names a folder in a bucket which must not be empty."""

    kind: str
    row: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.kind} {self.row}: {self.prefix}"


def prefix_of(location: str, bucket: str) -> str:
    """The folder `bucket/…/` that a location means; empty when it is not in the bucket."""
    parts = urlsplit(location)
    path = parts.path.strip("/")
    if parts.scheme == PROXIED and path:
        return f"{bucket}/{path}/"
    if parts.scheme == "s3" and parts.netloc == bucket and path:
        return f"{bucket}/{path}/"
    return ""


def claims_of(rows: Iterable[tuple[str, str, str]], bucket: str) -> list[Claim]:
    """The claims of rows (kind, row, location)."""
    return [
        Claim(kind=kind, row=row, prefix=prefix)
        for kind, row, location in rows
        if (prefix := prefix_of(location or "", bucket))
    ]


def unmet(claims: Iterable[Claim], names: Iterable[str]) -> list[Claim]:
    """The claims that no object (`bucket/key`) lies under."""
    there = sorted(names)

    def met(claim: Claim) -> bool:
        place = bisect_left(there, claim.prefix)
        return place < len(there) and there[place].startswith(claim.prefix)

    return [claim for claim in claims if not met(claim)]


def statement(kind: str) -> str:
    """The query of a kind of claims whose every row is a JSON object (kind, row, location)."""
    shape = "json_build_object('kind', kind, 'row', mark, 'location', place)"
    return f"select {shape} from (select '{kind}', q.* from ({QUERIES[kind]}) as q) as c(kind, mark, place)"
