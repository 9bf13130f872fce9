"""The site's own registry: Debian's program with TLS and a login, beside engines of both kinds on closed hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import certificates, delta, store, unseal
from bundle.cutting import Form
from bundle.delta import Inventory
from bundle.door import places
from bundle.manifest import PRODUCT, Manifest
from tests.carried import Carried, Layer, carry
from tests.hub import ADDRESS, Hub, serve
from tests.integration.lab import Lab


@pytest.fixture(scope="module")
def hub(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve(lab.host, tmp_path_factory.mktemp("hub")) as made:
        yield made


def stocked(lab: Lab, hub: Hub, bundle: Carried) -> Inventory:
    """Put `bundle` into the registry; what is there then, as an inventory."""
    found = lab.take(bundle.path, site=hub.site())
    return delta.parse(found["inventory"].encode(), "inventory")


@pytest.fixture(autouse=True)
def _empty(lab: Lab, hub: Hub) -> None:
    lab.empty()
    hub.trust()


def named(sealed: Manifest, prefix: str = "ml") -> Manifest:
    """The manifest with the names that its images have in the site's registry."""
    top = f"{ADDRESS}/{prefix}"
    images = tuple(replace(one, reference=f"{top}/{one.reference}") for one in sealed.images)
    return replace(sealed, images=images)


def test_images_are_pushed_and_run_from_there(lab: Lab, hub: Hub, full: Carried) -> None:
    found = lab.take(full.path, site=hub.site())
    assert found["code"] == 0, found
    assert set(found["how"].values()) == {"pulled"}
    assert found["peak_mb"] < 150
    assert lab.right(named(full.manifest))
    assert hub.names() == [f"ml/{PRODUCT}/{name}:1.0" for name in ("one", "three", "two")]
    assert all(name.startswith(ADDRESS) for name in store.references(lab.host.engine))
    again = lab.take(full.path, site=hub.site())
    assert set(again["how"].values()) == {"present"}


def test_what_the_registry_has_is_not_sent_again(
    lab: Lab, hub: Hub, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    """A layer that another image has there is taken from that one; a delta stands on what is there."""
    images = {"one": [layers["base"], layers["python"], layers["two"], layers["new"]]}
    base = stocked(lab, hub, full)
    assert base.store == "registry"
    thin = carry(tmp_path, "1.1", images, base)
    assert len(thin.manifest.needs) == 3
    lab.empty()
    found = lab.take(thin.path, [full.manifest], site=hub.site())
    assert found["code"] == 0, found
    assert lab.right(named(thin.manifest))
    new, config = layers["new"].blob.digest, thin.manifest.images[0].config
    size = thin.manifest.size_of(new) + thin.manifest.size_of(config)
    assert found["sent_mb"] == [f"{size / 1e6:.1f}"]


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
def test_delta_onto_a_registry_without_its_base_changes_nothing(
    lab: Lab, hub: Hub, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    base = stocked(lab, hub, full)
    images = {"one": [layers["base"], layers["python"], layers["two"], layers["new"]]}
    thin = carry(tmp_path, "1.1", images, base)
    elsewhere = hub.site(address=f"{ADDRESS}/other")
    lab.empty()
    before = hub.names()
    found = lab.take(thin.path, [full.manifest], site=elsewhere)
    assert found["code"] == 3, found
    assert all(need.path in found["error"] for need in thin.manifest.needs)
    assert hub.names() == before


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
def test_damaged_layer_is_refused_by_the_registry(
    lab: Lab, hub: Hub, full: Carried, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(full.path.read_bytes())
    with open(damaged, "r+b") as file:
        file.seek(places(full.path)[full.manifest.images[0].layers[2]][0] + 1000)
        file.write(b"damage")
    found = lab.take(damaged, site=hub.site(address=f"{ADDRESS}/fresh"))
    assert found["code"] == 4, found
    assert "digest" in found["error"].lower()
    assert not [name for name in hub.names() if name.startswith("fresh/tracking-bundle/one")]


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"address": "registry.nowhere.internal:5443"}, ("the name is not known", "/etc/hosts")),
        ({"address": "10.99.0.1:9"}, ("does not answer", "registry.address")),
        ({"password_file": "wrong"}, ("login as carrier was refused", "registry.password_file")),
        ({"user": "", "password_file": ""}, ("login as nobody was refused", "registry.user")),
        ({"ca": ""}, ("its certificate is not trusted", "registry.ca")),
        ({"ca": "other"}, ("its certificate is not trusted", "registry.ca")),
    ],
)
def test_what_is_wrong_with_the_registry_is_told(
    lab: Lab, hub: Hub, full: Carried, changed: dict[str, str], words: tuple[str, ...]
) -> None:
    (hub.folder / "wrong").write_text("not it\n")
    (hub.folder / "wrong").chmod(0o600)
    (hub.folder / "other").write_bytes(
        certificates.pem(certificates.make_root("11111111").certificate)
    )
    files = {"wrong": str(hub.folder / "wrong"), "other": str(hub.folder / "other")}
    site = hub.site(**{key: files.get(value, value) for key, value in changed.items()})
    found = lab.take(full.path, site=site)
    assert found["code"] == 3, found
    assert words[0] in found["error"]
    assert words[1] in found["hint"]
    assert not store.ids(lab.host.engine)


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
def test_engine_that_does_not_trust_the_registry_is_told(lab: Lab, hub: Hub, full: Carried) -> None:
    hub.trust(trusted=False)
    found = lab.take(full.path, site=hub.site())
    assert found["code"] == 3, found
    assert "certificate" in found["error"]
    assert f"/etc/docker/certs.d/{ADDRESS}/ca.crt" in found["hint"]
    assert not store.ids(lab.host.engine)


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
def test_registry_that_goes_away_while_it_is_filled_is_told_and_filled_by_the_next(
    lab: Lab, hub: Hub, full: Carried
) -> None:
    site = hub.site(address=f"{ADDRESS}/away")
    place = hub.folder / "data/docker/registry/v2/repositories/away"

    def cut_off() -> None:
        deadline = time.monotonic() + 60
        while not any(place.rglob("_layers/sha256/*")) and time.monotonic() < deadline:
            time.sleep(0.002)
        hub.stop()

    cutter = threading.Thread(target=cut_off)
    cutter.start()
    found = lab.take(full.path, site=site)
    cutter.join()
    assert found["code"] == 3, found
    assert "does not answer" in found["error"]
    assert found["hint"]
    assert not store.ids(lab.host.engine)
    assert lab.take(full.path, site=site)["code"] == 3  # before anything is begun
    hub.start()
    again = lab.take(full.path, site=site)
    assert again["code"] == 0, again
    assert lab.right(named(full.manifest, "away"))
    sizes = {full.manifest.size_of(d) for one in full.manifest.images for d in one.layers}
    assert float(again["sent_mb"][0]) < sum(sizes) / 1e6  # what had arrived was not sent again


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
def test_registry_that_cannot_write_is_told(lab: Lab, hub: Hub, full: Carried) -> None:
    place = hub.folder / "data/docker/registry/v2/repositories/broken"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("where a folder must be")
    found = lab.take(full.path, site=hub.site(address=f"{ADDRESS}/broken"))
    assert found["code"] == 4, found
    assert "500" in found["error"]
    assert "log of the registry" in found["hint"]
    assert not store.ids(lab.host.engine)


@pytest.mark.parametrize("lab", ["overlay2"], indirect=True)
def test_extras_are_pushed_out_of_parts(
    lab: Lab, hub: Hub, layers: dict[str, Layer], tmp_path: Path
) -> None:
    """A site's own image, its blobs across several parts, as the next release of what is there."""
    images = {
        "one": [layers["base"], layers["one"]],
        "extra/judge": [layers["base"], layers["new"]],
    }
    bundle = carry(tmp_path, "1.0", images, form=Form(split=1_000_000))
    assert len(unseal.parts_of(bundle.path)) > 10
    found = lab.take(bundle.path, site=hub.site(address=f"{ADDRESS}/cut"))
    assert found["code"] == 0, found
    assert set(found["how"].values()) == {"pulled"}
    assert f"cut/{PRODUCT}/extra/judge:1.0" in hub.names()
