"""PostgreSQL: the databases of both trackers, reached over TLS only."""

from __future__ import annotations

from collections.abc import Mapping

from bundle.config import SiteConfig
from bundle.model import Database, Mount, Secret, SecretSpec, Service, Volume
from bundle.services.names import ROOT_CA, internal


def service(site: SiteConfig) -> Service:
    """The database server as `site` wants it."""
    name = internal(site, "postgres")

    def derive(store: Mapping[str, Secret]) -> dict[str, Secret]:
        return {"pgpass": Secret(f"{name}:5432:postgres:health:{store['DB_HEALTH'].reveal()}\n")}

    probe = (
        f"host={name} hostaddr=127.0.0.1 user=health dbname=postgres sslmode=verify-full"
        f" sslrootcert={ROOT_CA} passfile=/run/secrets/pgpass connect_timeout=3"
    )
    return Service(
        name="postgres",
        uid=10001,
        reloads=True,
        port=5432,
        memory_mb=site.memory_postgres_mb,
        names=(name,),
        networks=("data",),
        health=("psql", "--no-psqlrc", "--tuples-only", probe, "--command", "select 1"),
        mounts=(
            Mount(template="postgres/postgresql.conf", target="/etc/postgresql/postgresql.conf"),
            Mount(template="postgres/pg_hba.conf", target="/etc/postgresql/pg_hba.conf"),
        ),
        databases=(Database(name="postgres", role="health"),),
        secrets=(
            SecretSpec(name="SUPERUSER_PASSWORD"),
            SecretSpec(name="DB_HEALTH", mounted=False),
        ),
        derive=derive,
        volumes=(Volume(name="postgres", path="/var/lib/postgresql/data"),),
        tmpfs=("/tmp",),
        shm_mb=128,
    )
