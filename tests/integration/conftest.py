"""The engines and the bundle that tests of the import share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import closed
from bundle.config import cache_folder
from bundle.engine import Engine
from tests import carried, objectstore
from tests.carried import Carried, Layer
from tests.integration.lab import STORES, Lab


@pytest.fixture(scope="session")
def minio_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object store's program out of our image."""
    return objectstore.program(Engine(), tmp_path_factory.mktemp("minio"))


@pytest.fixture(scope="session", params=STORES)
def lab(
    request: pytest.FixtureRequest, closed_hosts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    kind = request.param
    host = closed.create(closed_hosts / f"import-{kind}", cache=cache_folder())
    try:
        setting = {"features": {"containerd-snapshotter": kind == "containerd"}}
        (host.root / "etc/docker").mkdir(parents=True, exist_ok=True)
        (host.root / "etc/docker/daemon.json").write_text(json.dumps(setting))
        host.start()
        host.engine_up()
        yield Lab(host=host, kind=kind, folder=tmp_path_factory.mktemp(kind))
    finally:
        host.remove()


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layer]:
    folder = tmp_path_factory.mktemp("layers")
    sizes = {"base": 3.0, "python": 12.0, "one": 8.0, "two": 8.0, "new": 0.2, "tool": 0.1}
    return {name: carried.layer(folder, name, size, 300) for name, size in sizes.items()}


@pytest.fixture(scope="session")
def full(layers: dict[str, Layer], tmp_path_factory: pytest.TempPathFactory) -> Carried:
    images = {
        "one": [layers["base"], layers["python"], layers["one"]],
        "two": [layers["base"], layers["python"], layers["two"]],
        "three": [layers["base"], layers["tool"]],
    }
    return carried.carry(tmp_path_factory.mktemp("full"), "1.0", images)
