"""What a data key encrypts, by the trackers' own code: turned once, twice, in part, and not at all where it is lost."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.utils.crypto import KEKManager, _decrypt_secret, _encrypt_secret

from bundle.ops import rekey

OLD, NEW = "the-old-passphrase-of-a-test-0001", "the-new-passphrase-of-a-test-0002"
COLUMNS = ("secret_id", "secret_name", "encrypted_value", "wrapped_dek", "kek_version")


class Rows:
    """A connection that holds the rows of one table, and knows the two statements."""

    def __init__(self, rows: list[list[Any]]) -> None:
        self.rows = rows
        self.found: list[Any] = []

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> Rows:
        """Read all, or change one by its mark."""
        if statement.startswith("select"):
            own = "secrets" in statement or "wrapped_dek" in statement
            self.found = [tuple(row) for row in self.rows] if own else []
        else:
            mark, column = (0, 3) if "wrapped_dek" in statement else (0, 1)
            for row in self.rows:
                if row[mark] == values[1]:
                    row[column] = values[0]
        return self

    def fetchall(self) -> list[Any]:
        """What was read."""
        return self.found


def mlflow_row(name: str, passphrase: str) -> list[Any]:
    key = KEKManager(passphrase=passphrase, kek_version=1)
    made = _encrypt_secret({"api_key": f"value of {name}"}, key, name, name)
    return [name, name, made.encrypted_value, made.wrapped_dek, made.kek_version]


def test_mlflow_opens_every_row_by_the_new_passphrase() -> None:
    table = Rows([mlflow_row("a", OLD), mlflow_row("나", OLD), mlflow_row("c", NEW)])
    assert rekey.turn_mlflow(table, OLD, NEW, True) == ["old", "old", "new"]
    assert rekey.turn_mlflow(table, OLD, NEW, True) == ["new"] * 3
    key = KEKManager(passphrase=NEW, kek_version=1)
    for name, _, value, wrapped, _ in table.rows:
        found = _decrypt_secret(value, wrapped, key, name, name)
        assert found == {"api_key": f"value of {name}"}


def test_only_looking_changes_nothing() -> None:
    table = Rows([mlflow_row("a", OLD)])
    before = [list(row) for row in table.rows]
    assert rekey.turn_mlflow(table, OLD, NEW, False) == ["old"]
    assert table.rows == before


@pytest.mark.parametrize("column", [2, 3])
def test_row_that_is_damaged_opens_by_none(column: int) -> None:
    row = mlflow_row("a", OLD)
    row[column] = row[column][:-1] + bytes([row[column][-1] ^ 1])
    assert rekey.turn_mlflow(Rows([row]), OLD, NEW, True) == ["none"]


def test_phoenix_opens_every_value_by_the_new_secret() -> None:
    old, new = rekey.phoenix_key(OLD), rekey.phoenix_key(NEW)
    table = Rows([["A", old.encrypt(b"one")], ["B", new.encrypt(b"two")], ["C", b"lost"]])
    assert rekey.turn_phoenix(table, OLD, NEW, True) == ["old", "new", "none"]
    assert new.decrypt(table.rows[0][1]) == b"one"
