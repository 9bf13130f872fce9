"""Find the sample run where it should have come to lie: rows in Postgres, bytes in the object store.

Asked of the stores themselves, not of the trackers. Each part is tried by itself.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any
from urllib.parse import urlsplit

import psycopg

from bundle.ops.s3 import client
from bundle.ops.stores import attempt

RUN = """
select e.name, r.status,
  (select count(*) from params p where p.run_uuid = r.run_uuid),
  (select count(*) from latest_metrics m where m.run_uuid = r.run_uuid)
from runs r join experiments e using (experiment_id) where r.run_uuid = %s
"""
PLACE = "select artifact_uri from runs where run_uuid = %s"
SPANS = """
select t.trace_id, count(s.id) from traces t join spans s on s.trace_rowid = t.id
where t.trace_id = any(%s) group by t.trace_id
"""


def connect(request: dict[str, Any], role: dict[str, str]) -> psycopg.Connection[Any]:
    """A verified connection as `role`."""
    return psycopg.connect(
        host=request["database"],
        user=role["role"],
        password=role["password"],
        dbname=role["name"],
        sslmode="verify-full",
        sslrootcert=request["root_ca"],
        connect_timeout=10,
    )


def run_rows(request: dict[str, Any]) -> dict[str, Any]:
    """The run's row in MLflow's database, and how much hangs on it."""
    with connect(request, request["mlflow"]) as connection:
        row = connection.execute(RUN, (request["run"],)).fetchone()
        server = connection.info.parameter_status("server_version")
    if row is None:
        return {"server": server}
    return {"server": server} | dict(
        zip(("experiment", "status", "params", "metrics"), row, strict=True)
    )


def span_rows(request: dict[str, Any]) -> dict[str, int]:
    """How many spans of each trace lie in Phoenix' database."""
    with connect(request, request["phoenix"]) as connection:
        return dict(connection.execute(SPANS, (request["traces"],)).fetchall())


def prefix(request: dict[str, Any]) -> str:
    """Where the run's artifacts lie in the bucket, as its row says: a workspace has a folder of its own."""
    with connect(request, request["mlflow"]) as connection:
        row = connection.execute(PLACE, (request["run"],)).fetchone()
    if row is None:
        raise LookupError("the run has no row")
    return urlsplit(str(row[0])).path.strip("/") + "/"


def objects(request: dict[str, Any]) -> dict[str, str]:
    """The digest of each object under the run's prefix, read by the tracker's own key."""
    store = client(request["store"], request["key"], request["secret"])
    found = {}
    place = prefix(request)
    listed = store.list_objects(request["bucket"], prefix=place, recursive=True)
    for entry in listed:
        answer = store.get_object(request["bucket"], entry.object_name)
        try:
            name = str(entry.object_name).removeprefix(place)
            found[name] = hashlib.sha256(answer.read()).hexdigest()
        finally:
            answer.close()
            answer.release_conn()
    return found


def act(request: dict[str, Any]) -> dict[str, Any]:
    """Look for the run in all three places."""
    return {
        "run": attempt(lambda: run_rows(request)),
        "spans": attempt(lambda: span_rows(request)),
        "objects": attempt(lambda: objects(request)),
    }


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
