"""The stack's own account in MLflow: what somebody did to it is seen, and what mends it is a hash that MLflow takes."""

from __future__ import annotations

import pytest

from bundle import mlflow_account
from bundle.model import Secret

PASSWORD = Secret("Hu4n_비밀 word")
OF_MLFLOW = (
    "scrypt:32768:8:1$qajeGwYTZjLoxXx8$e8808135d591446828a1b8cf7a2bf711509f79e06b6dcfe27a46dba7a7493979"
    "526907844985677c5124d3e759162725fcb897e78c6922d37a31f7440bbf3ebc"
)
"""What werkzeug in MLflow's image made of PASSWORD."""


def test_hash_of_mlflow_is_known_by_its_password_only() -> None:
    assert mlflow_account.matches(OF_MLFLOW, PASSWORD)
    assert not mlflow_account.matches(OF_MLFLOW, Secret("another"))
    assert mlflow_account.matches(mlflow_account.hashed(PASSWORD), PASSWORD)
    assert mlflow_account.hashed(PASSWORD) != mlflow_account.hashed(PASSWORD), "salted"


@pytest.mark.parametrize("kept", ["", "$", "plain", "pbkdf2:sha256:1$a$b", "scrypt:1:2$a$b", "a$b"])
def test_hash_of_another_form_is_not_ours(kept: str) -> None:
    assert not mlflow_account.matches(kept, PASSWORD)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("", ""),
        (f"somebody\nown\t{OF_MLFLOW}\ttrue\n", ""),
        (f"somebody\nown\t{OF_MLFLOW}\tfalse\n", "no administrator"),
        (f"somebody\nown\t{OF_MLFLOW[:-1]}0\ttrue\n", "password of tracking-bundle was changed"),
        ("somebody\nown\t\tfalse\n", "password of tracking-bundle was changed"),
        ("somebody\n", "was deleted"),
    ],
    ids=["none yet", "right", "demoted", "changed", "emptied", "deleted"],
)
def test_what_became_of_it(answer: str, wrong: str) -> None:
    found = mlflow_account.judge(answer, PASSWORD)
    assert wrong in found
    assert bool(wrong) == bool(found)


def test_no_password_is_in_the_statement() -> None:
    statement = mlflow_account.mending_sql(PASSWORD)
    assert PASSWORD.reveal() not in statement
    assert "'tracking-bundle', 'scrypt:32768:8:1$" in statement
