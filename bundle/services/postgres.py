"""PostgreSQL: the databases of both trackers, reached over TLS only."""

from __future__ import annotations

from collections.abc import Mapping

from bundle.config import SiteConfig
from bundle.model import Database, Folder, Mount, Secret, SecretSpec, Service, Volume
from bundle.services.names import ROOT_CA, internal

STANZA = "site"
REPOSITORY = "/var/lib/pgbackrest"
DATA = "/var/lib/postgresql/data"
CLUSTER = f"{DATA}/pgdata"
PGBACKREST = f"pgbackrest --config=/run/secrets/pgbackrest.conf --stanza={STANZA}"
DATABASE_PASSPHRASE = "BACKUP_DATABASE_PASSPHRASE"
OBJECTS_PASSPHRASE = "BACKUP_OBJECTS_PASSPHRASE"
BACKUPS = "backups"
"""Under the root, unless the site names another folder: what points are made of."""
CONFIGURATION = f"""[global]
repo1-path={REPOSITORY}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={{passphrase}}
repo1-bundle=y
repo1-block=y
repo1-retention-full-type=time
repo1-retention-full={{keep_days}}
expire-auto=n
compress-type=zst
compress-level=3
process-max=2
start-fast=y
archive-timeout=120
lock-path=/tmp/pgbackrest
log-level-console=warn
log-level-stderr=off
log-level-file=off

[{STANZA}]
pg1-path={CLUSTER}
pg1-socket-path=/tmp
"""
"""Of the archiver and of every command about the repository; nothing is let go but by our own retention."""


def backups(site: SiteConfig, part: str) -> str:
    """The folder of a part of the backups, absolute or under the root."""
    return f"{site.backup_folder or BACKUPS}/{part}"


def service(site: SiteConfig) -> Service:
    """The database server as `site` wants it."""
    name = internal(site, "postgres")

    def derive(store: Mapping[str, Secret]) -> dict[str, Secret]:
        archive = CONFIGURATION.format(
            passphrase=store[DATABASE_PASSPHRASE].reveal(), keep_days=site.backup_keep_days
        )
        return {
            "pgpass": Secret(f"{name}:5432:postgres:health:{store['DB_HEALTH'].reveal()}\n"),
            "pgbackrest.conf": Secret(archive),
        }

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
            SecretSpec(name=DATABASE_PASSPHRASE, mounted=False, rotation="backup"),
            SecretSpec(name=OBJECTS_PASSPHRASE, mounted=False, rotation="backup"),
        ),
        folders=(Folder(place=backups(site, "pgbackrest"), target=REPOSITORY),),
        init=True,
        derive=derive,
        volumes=(Volume(name="postgres", path="/var/lib/postgresql/data"),),
        tmpfs=("/tmp",),
        shm_mb=128,
    )
