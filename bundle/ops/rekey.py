"""Encrypt anew what a tracker's data key encrypts: all rows in one transaction, each proven by the new key before.

A row that the new key opens already stays; one that neither key opens undoes everything. MLflow wraps one key a row;
Phoenix encrypts the values themselves.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import sys
from typing import Any

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bundle.ops.rows import connect

ROUNDS = 600_000
NONCE = 12
MLFLOW_SALT = b"mlflow-secrets-kek-v1-2025"
PHOENIX_SALT = b"phoenix-database-encryption-a5d354120d50240ac80b74f56d09b363"
PHOENIX_TABLES = (
    ("secrets", "key", "value"),
    ("generative_model_custom_providers", "id", "config"),
)


@functools.cache
def mlflow_key(passphrase: str, version: int) -> AESGCM:
    """The key that wraps the rows of `version`."""
    salt = MLFLOW_SALT + version.to_bytes(4, "big")
    return AESGCM(hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, ROUNDS))


def phoenix_key(secret: str) -> Fernet:
    """The key that encrypts Phoenix' values."""
    key = hashlib.pbkdf2_hmac("sha256", secret.encode(), PHOENIX_SALT, ROUNDS)
    return Fernet(base64.urlsafe_b64encode(key))


def unwrapped(key: AESGCM, row: dict[str, Any]) -> bytes | None:
    """The row's own key, when `key` opens it, and it opens the row's value."""
    try:
        wrapped = row["wrapped_dek"]
        own = key.decrypt(wrapped[:NONCE], wrapped[NONCE:], None)
        label = f"{row['secret_id']}|{row['secret_name']}".encode()
        value = row["encrypted_value"]
        AESGCM(own).decrypt(value[:NONCE], value[NONCE:], label)
    except InvalidTag:
        return None
    return own


def turn_mlflow(connection: psycopg.Connection[Any], old: str, new: str, act: bool) -> list[str]:
    """Which key opened each row of MLflow; with `act` the new one opens all afterwards."""
    columns = "secret_id, secret_name, encrypted_value, wrapped_dek, kek_version"
    found = connection.execute(f"select {columns} from secrets for update").fetchall()
    opened = []
    for values in found:
        row = dict(zip(columns.split(", "), values, strict=True))
        former, later = (mlflow_key(key, row["kek_version"]) for key in (old, new))
        if unwrapped(later, row) is not None:
            opened.append("new")
            continue
        own = unwrapped(former, row)
        opened.append("none" if own is None else "old")
        if own is not None and act:
            nonce = os.urandom(NONCE)
            row["wrapped_dek"] = nonce + later.encrypt(nonce, own, None)
            if unwrapped(later, row) != own:
                raise ValueError("a row does not open with the new key")
            change = "update secrets set wrapped_dek = %s where secret_id = %s"
            connection.execute(change, (row["wrapped_dek"], row["secret_id"]))
    return opened


def opens(key: Fernet, value: bytes) -> bytes | None:
    """What `key` makes of `value`; None when it does not open it."""
    try:
        return key.decrypt(value)
    except InvalidToken:
        return None


def turn_phoenix(connection: psycopg.Connection[Any], old: str, new: str, act: bool) -> list[str]:
    """Which key opened each value of Phoenix; with `act` the new one opens all afterwards."""
    former, later, opened = phoenix_key(old), phoenix_key(new), []
    for table, mark, column in PHOENIX_TABLES:
        found = connection.execute(f"select {mark}, {column} from {table} for update").fetchall()
        for place, value in found:
            if opens(later, value) is not None:
                opened.append("new")
                continue
            plain = opens(former, value)
            opened.append("none" if plain is None else "old")
            if plain is not None and act:
                made = later.encrypt(plain)
                if opens(later, made) != plain:
                    raise ValueError("a value does not open with the new key")
                change = f"update {table} set {column} = %s where {mark} = %s"
                connection.execute(change, (made, place))
    return opened


TURNS = {"mlflow": turn_mlflow, "phoenix": turn_phoenix}


def act(request: dict[str, Any]) -> dict[str, int]:
    """How many rows each key opened; with `act` what only the old one opens is encrypted anew, or nothing at all."""
    with connect(request, request["role"]) as connection, connection.transaction() as transaction:
        turn = TURNS[request["kind"]]
        opened = turn(connection, request["old"], request["new"], bool(request["act"]))
        if "none" in opened or not request["act"]:
            raise psycopg.Rollback(transaction)
    return {key: opened.count(key) for key in ("new", "old", "none")}


if __name__ == "__main__":
    json.dump(act(json.load(sys.stdin)), sys.stdout)
