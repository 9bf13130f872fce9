"""Ask Postgres over TLS, as each role, whether it owns its database and is kept out of every other."""

from __future__ import annotations

import json
import sys
from typing import Any

import psycopg


def can_connect(request: dict[str, Any], role: dict[str, str], database: str) -> bool:
    """Whether `role` gets into `database`; only a refusal by the server counts as no."""
    try:
        psycopg.connect(
            host=request["host"],
            port=5432,
            user=role["role"],
            password=role["password"],
            dbname=database,
            sslmode="verify-full",
            sslrootcert=request["root_ca"],
            connect_timeout=10,
        ).close()
    except psycopg.OperationalError as error:
        if "pg_hba.conf" in str(error) or "permission denied" in str(error):
            return False
        raise
    return True


def matrix(request: dict[str, Any]) -> dict[str, list[str]]:
    """For each role, the databases that it gets into."""
    databases = list(dict.fromkeys(role["name"] for role in request["roles"]))
    return {
        role["role"]: [name for name in databases if can_connect(request, role, name)]
        for role in request["roles"]
    }


if __name__ == "__main__":
    json.dump(matrix(json.load(sys.stdin)), sys.stdout)
