"""The generated secrets of a site: kept once in `<root>/secrets/store`, handed to each service as files of its own.

`<root>/secrets` is 0700. A service sees only `<root>/secrets/<service>` (0500, its uid) under /run/secrets.
"""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path

from bundle.borrowed import borrow
from bundle.errors import ConfigError
from bundle.host import Host, make_folder, write_file
from bundle.model import Secret, SecretSpec
from bundle.plan import Plan

ALPHABET = string.ascii_letters + string.digits + "-_"


def generate(spec: SecretSpec) -> Secret:
    """A new value: 240 bits for a token, with a digit, a lower and an upper case letter (servers insist on them)."""
    length = {"token": 40, "password": 24, "name": 16}[spec.kind]  # 40: the longest that S3 takes
    alphabet = string.ascii_lowercase + string.digits if spec.kind == "name" else ALPHABET
    while True:
        value = "".join(secrets.choice(alphabet) for _ in range(length))
        classes = (
            (str.isdigit, str.islower)
            if spec.kind == "name"
            else (str.isdigit, str.islower, str.isupper)
        )
        # Phoenix takes no hyphen for a special character.
        special = spec.kind != "password" or "_" in value
        # No leading or trailing sign: some tools would take the value for an option.
        if (
            value[0].isalnum()
            and value[-1].isalnum()
            and special
            and all(any(map(c, value)) for c in classes)
        ):
            return Secret(value)


def open_store(host: Host, plan: Plan) -> dict[str, Secret]:
    """Every stored secret by name; those that are missing are made, those that are there are kept.

    Raises ConfigError when a stored secret cannot be read or is empty.
    """
    folder = host.path("secrets", "store")
    make_folder(host.path("secrets"), 0o700)
    make_folder(folder, 0o700)
    store = {}
    for spec in [spec for service in plan.services for spec in service.secrets]:
        path = folder / spec.name
        if spec.reference:
            _take(path, borrow(spec.reference, f"site.toml: the key of {spec.name}"))
        elif (ours := _ours(path)).exists() or not path.exists():
            kept = ours.read_bytes() if ours.exists() else b""
            write_file(path, kept or generate(spec).reveal().encode(), mode=0o400)
            ours.unlink(missing_ok=True)
        value = path.read_text(encoding="utf-8").strip()
        if not value:
            raise ConfigError(
                "is empty",
                where=str(path),
                hint="Put it back from a backup of the folder secrets/.",
            )
        store[spec.name] = Secret(value)
    return store


def _ours(path: Path) -> Path:
    """Where our own value of a secret lies while the site gives another one."""
    return path.with_name(f".{path.name}.own")


def _take(path: Path, value: Secret) -> None:
    """Keep what the site has given in the place of what it gave before; a value of ours is put aside."""
    data = value.reveal().encode()
    if not _ours(path).exists():
        write_file(_ours(path), path.read_bytes() if path.exists() else b"", mode=0o400)
    if not path.exists() or path.read_bytes() != data:
        write_file(path, data, mode=0o400)


def hand_out(host: Host, plan: Plan, store: dict[str, Secret]) -> None:
    """Make each service's folder of secret files so."""
    for service in plan.services:
        folder = host.path("secrets", service.name)
        make_folder(folder, 0o700)
        own = {spec.name: store[spec.name] for spec in service.secrets if spec.mounted}
        for name, value in {**own, **service.derive(store)}.items():
            path, data = folder / name, value.reveal().encode()
            if path.exists() and path.read_bytes() == data and path.stat().st_uid == service.uid:
                continue
            write_file(path, data, mode=0o400, uid=service.uid, gid=service.uid)


def close(host: Host, plan: Plan) -> None:
    """Give each service's folder its owner and final mode, after the last file has been put in."""
    for service in plan.services:
        folder = host.path("secrets", service.name)
        os.chown(folder, service.uid, service.uid)
        folder.chmod(0o500)
