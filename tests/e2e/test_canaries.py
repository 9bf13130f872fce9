"""The installation's own secrets are found nowhere but in their own places, while everything is at work."""

from __future__ import annotations

import pytest

from bundle import rehearse
from tests.e2e import canaries
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(600)
TASKS = (
    ("status", "--debug"),
    ("secrets.status", "--debug"),
    ("pki.status", "--debug"),
    ("logs", "--since", "24h", "--debug"),
    (
        "verify",
        "--debug",
        "--only",
        "run-mlflow",
        "--only",
        "store-separate",
        "--only",
        "access-defaults",
    ),
)


def test_no_secret_is_found_where_it_does_not_belong(stack: Stack) -> None:
    wanted = canaries.needles(stack)
    assert len(wanted) > 20
    line = f'cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && exec invoke "$@" 2>&1'
    with canaries.watching(stack, wanted) as found:
        said = [
            stack.host.run(["sh", "-c", line, "sh", *words], timeout=300, check=False)
            for words in TASKS
        ]
    assert found["rounds"] > 20
    assert found["processes"] > 30
    told = [f"{name} in what invoke says" for name in canaries.seen("\n".join(said), wanted)]
    wrong = found["found"] + told + canaries.in_engine(stack, wanted)
    assert wrong + canaries.on_disk(stack, wanted) == []


def test_planted_secret_is_found_in_every_place(stack: Stack) -> None:
    wanted = canaries.needles(stack)
    store = stack.root / "secrets/store"
    one, two = ((store / name).read_text("utf-8") for name in ("DB_MLFLOW", "DB_PHOENIX"))
    image = stack.containers()["gateway"].image.replace("/gateway:", "/ops:")
    run = ["docker", "run", "--detach", "--rm", "--name", "planted", "--network", "none"]
    code = f"import sys,time; print('{two}', flush=True); time.sleep(60)"
    stack.host.run([*run, "--env", f"LEAK={one}", image, "-c", code], timeout=60)
    planted = stack.root / "reports/leak.txt"
    planted.parent.mkdir(exist_ok=True)
    planted.write_text((store / "PHOENIX_SECRET").read_text("utf-8"))
    try:
        with canaries.watching(stack, wanted) as found:
            engine = canaries.in_engine(stack, wanted)
            places = ("var/lib/docker/containers", canaries.PRODUCT)  # the other test looks at all
            disk = canaries.on_disk(stack, wanted, places)
    finally:
        planted.unlink()
        stack.host.run(["docker", "rm", "--force", "planted"], timeout=60)
    assert "DB_MLFLOW in the engine's answers" in engine
    assert any(place.startswith("DB_MLFLOW in environ of ") for place in found["found"])
    assert any(place.startswith("DB_PHOENIX in cmdline of ") for place in found["found"])
    assert f"PHOENIX_SECRET in {canaries.PRODUCT}/reports/leak.txt" in disk
    assert any(p.startswith("DB_PHOENIX in var/lib/docker/containers/") for p in disk)
    assert all(one not in place and two not in place for place in [*engine, *disk, *found["found"]])
