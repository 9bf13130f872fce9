"""The whole stack out of the site's own registry, then the next release as a delta on what that has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import closed, rehearse
from bundle.closed import ClosedHost
from tests.e2e.again import seal_again, with_one_layer_more
from tests.e2e.stack import Sealed
from tests.hub import ADDRESS, Hub, serve

pytestmark = pytest.mark.nightly
IMAGES = "docker ps --format '{{.Image}} {{.Status}}' | sort"


@pytest.fixture(scope="module")
def host(sealed: Sealed, closed_hosts: Path) -> Iterator[ClosedHost]:
    made = closed.create(closed_hosts / "registry", cache=sealed.cache)
    try:
        made.start()
        made.engine_up()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def hub(host: ClosedHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve(host, tmp_path_factory.mktemp("hub")) as made:
        yield made


def cross(host: ClosedHost, sealed: Sealed) -> None:
    """Bring a bundle in, check and unpack it."""
    place = shlex.quote(str(host.put(sealed.path, "/media")))
    line = f"tar -xf {place} --occurrence=1 bootstrap.sh && sh bootstrap.sh {place} --fingerprint {sealed.fingerprint}"
    host.run(["sh", "-c", line], timeout=300)


def invoke(host: ClosedHost, words: str) -> str:
    """Run a task as an operator types it."""
    line = f"cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && invoke {words}"
    return host.run(["sh", "-c", line], timeout=400)


@pytest.mark.timeout(900)
def test_stack_runs_out_of_the_registry_and_a_delta_brings_the_next_release(
    host: ClosedHost, hub: Hub, sealed: Sealed, tmp_path: Path
) -> None:
    cross(host, sealed)
    folder = host.root / "root/registry"
    folder.mkdir()
    for name in ("password", "ca.pem"):
        (folder / name).write_bytes((hub.folder / name).read_bytes())
        (folder / name).chmod(0o600)
    (host.root / "root/site.toml").write_text(
        hub.site(password_file="/root/registry/password", ca="/root/registry/ca.pem")
    )
    invoke(host, "install --yes --site /root/site.toml")
    running = host.run(["sh", "-c", IMAGES], timeout=20).splitlines()
    assert len(running) == 5
    assert all(line.startswith(f"{ADDRESS}/ml/tracking-bundle/") for line in running), running
    invoke(host, "verify --only svc-images --only svc-mlflow")
    again = host.run(["sh", "-c", IMAGES.replace("Image", "ID")], timeout=20).split()[0]
    invoke(host, "install --yes")
    assert again in host.run(["sh", "-c", IMAGES.replace("Image", "ID")], timeout=20)

    invoke(host, "inventory --out /root/inventory.json")
    base = host.root / "root/inventory.json"
    assert '"store": "registry"' in base.read_text("utf-8")
    assert ADDRESS not in base.read_text("utf-8")
    more = with_one_layer_more(sealed, "gateway", tmp_path / "more", "0.1.1")
    thin = seal_again(sealed, tmp_path / "thin", base, version="0.1.1", images=[more])
    assert thin.path.stat().st_size < 0.08 * sealed.path.stat().st_size
    cross(host, thin)
    invoke(host, "install --yes")
    after = host.run(["sh", "-c", IMAGES], timeout=20).splitlines()
    assert all(":0.1.1 " in line for line in after), after
    invoke(host, "verify --only svc-images --only svc-gateway")
