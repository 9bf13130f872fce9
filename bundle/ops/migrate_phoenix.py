"""Bring the tables of Phoenix' database to what this image knows; run alone, inside its image, as their owner."""

from __future__ import annotations

import json
import os
import sys


def main(request: dict[str, dict[str, str]]) -> None:
    """The one database of `request`: its URL and its owner's password."""
    database = request["phoenix"]
    os.environ["PGPASSWORD"] = database["password"]
    from phoenix.db.engines import get_pg_config
    from phoenix.db.migrate import migrate
    from sqlalchemy import NullPool, make_url
    from sqlalchemy.ext.asyncio import create_async_engine

    url, arguments = get_pg_config(make_url(database["url"]))
    migrate(
        create_async_engine(url, connect_args=arguments, poolclass=NullPool), log_migrations=False
    )


if __name__ == "__main__":
    main(json.load(sys.stdin))
