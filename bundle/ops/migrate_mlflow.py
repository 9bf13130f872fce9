"""Bring the tables of MLflow's two databases to what this image knows; run alone, inside its image, as their owners."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def tracking(engine: Any) -> None:
    """Make or upgrade the tables of the tracking store."""
    from mlflow.store.db import utils

    if utils._all_tables_exist(engine):
        utils._upgrade_db(engine)
    else:
        utils._initialize_tables(engine)


def accounts(engine: Any) -> None:
    """Make or upgrade the tables of users and rights."""
    from mlflow.server.auth.db.utils import migrate_if_needed

    migrate_if_needed(engine, "head")


STEPS: dict[str, Callable[[Any], None]] = {"mlflow": tracking, "mlflow_auth": accounts}


def main(request: dict[str, dict[str, str]]) -> None:
    """For each database of `request`: its URL and its owner's password."""
    import sqlalchemy

    for name, database in request.items():
        os.environ["PGPASSWORD"] = database["password"]
        url = sqlalchemy.make_url(database["url"]).set(drivername="postgresql+psycopg2")
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        STEPS[name](engine)
        engine.dispose()


if __name__ == "__main__":
    main(json.load(sys.stdin))
