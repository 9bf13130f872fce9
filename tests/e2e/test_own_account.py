"""Somebody who administers MLflow spoils the stack's own account there: told in red, mended by the next start."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from bundle.errors import CommandError
from bundle.services.names import STACK
from tests.e2e.stack import Stack, healthy
from tests.e2e.test_access import calls, mlflow

pytestmark = pytest.mark.timeout(600)
DEEDS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "changed": ("PATCH", "update-password", {"password": "Anoth3r_of_mine"}, "password of"),
    "deleted": ("DELETE", "delete", {}, f"{STACK} was deleted"),
    "demoted": ("PATCH", "update-admin", {"is_admin": False}, "no administrator"),
}


def spoil(stack: Stack, deed: str) -> None:
    """Do it as the first administrator would, through the door."""
    method, path, body, _ = DEEDS[deed]
    password = (stack.root / "secrets/store/MLFLOW_AUTH_ADMIN_PASSWORD").read_text().strip()
    admin = {"admin": {"name": "admin", "password": password}}
    one = mlflow("admin", method, f"users/{path}", json={"username": STACK, **body})
    (row,) = calls(stack, "call", people=admin, calls=[one])
    assert row["status"] == 200, row


@pytest.mark.parametrize(
    "deed",
    [
        "changed",
        pytest.param("deleted", marks=pytest.mark.nightly),
        pytest.param("demoted", marks=pytest.mark.nightly),
    ],
)
def test_it_is_told_in_red_and_start_mends_it(
    stack: Stack, deed: str, request: pytest.FixtureRequest
) -> None:
    words, nightly = DEEDS[deed][3], request.config.option.nightly
    spoil(stack, deed)
    if nightly and deed != "demoted":
        until = time.monotonic() + 240  # MLflow remembers the former password for 30 s
        while stack.containers()["mlflow"].health != "unhealthy":
            assert time.monotonic() < until
            time.sleep(2)
    said = next(line for line in stack.invoke("status").splitlines() if "MLflow account" in line)
    assert "✗ changed" in said
    assert words in said
    assert "invoke start" in said
    with pytest.raises(CommandError, match="exit code 6"):
        stack.invoke("verify", "--only", "svc-mlflow", timeout=200)
    report = json.loads((stack.root / "reports/part/verify.json").read_text("utf-8"))
    (evidence,) = [r["evidence"] for r in report["results"] if r["id"] == "svc-mlflow"]
    assert any(words in line and "invoke start" in line for line in evidence)
    if nightly:
        with pytest.raises(CommandError, match=r"refuses tracking-bundle(?s:.*)invoke start"):
            stack.invoke("users.list")
    stack.invoke("start", timeout=300)
    assert healthy(stack.containers())
    listed = [line.split()[:2] for line in stack.invoke("users.list").splitlines()]
    assert [STACK, "admin"] in listed
    if nightly:
        assert "MLflow account" not in stack.invoke("status")
        stack.invoke("verify", "--only", "svc-mlflow", timeout=200)
