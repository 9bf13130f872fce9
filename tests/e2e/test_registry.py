"""The whole stack out of the site's own registry, then the next release as a delta on what that has."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import certificates, closed, manifest, rehearse, unseal
from bundle.closed import ClosedHost
from tests.e2e.again import seal_again, with_one_layer_more
from tests.e2e.stack import Sealed
from tests.hub import ADDRESS, Hub, serve

pytestmark = pytest.mark.nightly
UNTIL_GREEN = (
    "for i in $(seq 120); do [ $(docker ps | grep -c '(healthy)') = 6 ] && exit; sleep 1; done;"
    " docker ps -a; false"
)
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


def cross(host: ClosedHost, sealed: Sealed, *options: str) -> None:
    """Bring a bundle in, file or parts, check and unpack it."""
    places = [host.put(part, "/media") for part in unseal.parts_of(sealed.path)]
    first, more = shlex.quote(str(places[0])), shlex.join(options)
    line = f"tar -xf {first} --occurrence=1 bootstrap.sh && sh bootstrap.sh {first} --fingerprint"
    host.run(["sh", "-c", f"{line} {sealed.fingerprint} {more}"], timeout=300)


def invoke(host: ClosedHost, words: str) -> str:
    """Run a task as an operator types it."""
    line = f"cd {rehearse.PRODUCT_ROOT}/current && . .venv/bin/activate && invoke {words}"
    return host.run(["sh", "-c", line], timeout=400)


def refused(host: ClosedHost, words: str, code: int) -> str:
    """What a task says that ends with `code`; nothing of ours is in the engine then."""
    told = invoke(host, f"{words} 2>&1; echo exit=$?")
    assert told.rstrip().endswith(f"exit={code}"), told
    assert "hint: " in told
    assert "Traceback" not in told
    assert host.run(["docker", "ps", "-aq"], timeout=20) == ""
    assert not host.engine.image_ids()
    return told


def in_site(host: ClosedHost, hub: Hub) -> None:
    """Leave what a site has of its registry: the password, its CA, and one that is not its."""
    folder = host.root / "root/registry"
    folder.mkdir()
    other = certificates.pem(certificates.make_root("11111111").certificate)
    files = {name: (hub.folder / name).read_bytes() for name in ("password", "ca.pem")}
    for name, content in {**files, "wrong": b"not it\n", "other.pem": other}.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)


def site(host: ClosedHost, hub: Hub, password: str = "password", ca: str = "ca.pem") -> None:
    """Write /root/site.toml."""
    files = {"password_file": f"/root/registry/{password}", "ca": f"/root/registry/{ca}"}
    (host.root / "root/site.toml").write_text(hub.site(**files))


@pytest.mark.timeout(600)
def test_what_is_wrong_with_the_registry_is_told_before_anything_is_changed(
    host: ClosedHost, hub: Hub, sealed: Sealed
) -> None:
    cross(host, sealed)
    in_site(host, hub)
    task = "install --yes --site /root/site.toml"
    site(host, hub, password="wrong")
    assert "login as carrier was refused" in refused(host, task, 3)
    site(host, hub, ca="other.pem")
    assert "its certificate is not trusted" in refused(host, task, 3)
    site(host, hub, ca="absent.pem")
    assert "registry.ca" in refused(host, task, 2)
    site(host, hub)
    hub.trust(trusted=False)
    assert f"/etc/docker/certs.d/{ADDRESS}/ca.crt" in refused(host, task, 3)
    hub.trust()
    hub.stop()
    assert "does not answer" in refused(host, task, 3)
    hub.start()
    assert hub.names() == []


@pytest.mark.timeout(900)
def test_stack_runs_out_of_the_registry_and_a_delta_brings_the_next_release(
    host: ClosedHost, hub: Hub, sealed: Sealed, tmp_path: Path
) -> None:
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


@pytest.mark.timeout(600)
def test_stack_comes_back_without_its_registry(host: ClosedHost, hub: Hub) -> None:
    before = host.run(["sh", "-c", IMAGES], timeout=20)
    hub.stop()
    host.power_cut()
    host.start()
    host.engine_up()
    host.run(["sh", "-c", UNTIL_GREEN], timeout=150)
    invoke(host, "install --yes")  # everything is in the engine
    told = invoke(host, "inventory --out /root/none.json 2>&1; echo exit=$?")
    assert told.rstrip().endswith("exit=3"), told
    assert "does not answer" in told
    assert not (host.root / "root/none.json").exists()
    names = [line.split()[0] for line in before.splitlines()]
    after = host.run(["sh", "-c", IMAGES], timeout=20).splitlines()
    assert [line.split()[0] for line in after] == names
    hub.join()
    hub.start()


@pytest.mark.timeout(900)
def test_extras_in_parts_run_out_of_the_registry(
    host: ClosedHost, hub: Hub, judged: Sealed
) -> None:
    cross(host, judged, "--accept-rollback")
    invoke(host, "install --yes")
    running = host.run(["sh", "-c", IMAGES], timeout=20)
    assert f"{ADDRESS}/ml/tracking-bundle/extra/judge:" in running
    assert f"ml/tracking-bundle/extra/judge:{manifest.read(judged.path).version}" in hub.names()
    invoke(host, "verify")
