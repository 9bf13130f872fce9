"""Images cross into a real engine of each kind of store: whole, as a delta, killed, without room, on a wrong base."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from bundle import delta, intake, manifest, place, stock, store
from bundle.host import Host
from bundle.manifest import Added, SealedExtras
from tests import carried
from tests.carried import Carried, Layer
from tests.integration.lab import Lab

SMALL_MB = 60


@pytest.fixture(autouse=True)
def _empty(lab: Lab) -> None:
    lab.empty()


def bumped(layers: dict[str, Layer]) -> dict[str, list[Layer]]:
    """The next release: one image has a new top layer."""
    return {
        "one": [layers["base"], layers["python"], layers["one"], layers["new"]],
        "two": [layers["base"], layers["python"], layers["two"]],
        "three": [layers["base"], layers["tool"]],
    }


def test_kind_of_store_is_told(lab: Lab, full: Carried) -> None:
    wanted = {"overlay2": "graphdriver", "containerd": "containerd"}[lab.kind]
    assert lab.look(full.manifest).store == wanted
    assert lab.look(full.manifest).images == ()


def test_images_cross_and_a_second_time_nothing_is_asked(lab: Lab, full: Carried) -> None:
    first = lab.take(full.path)
    assert first["how"] == dict.fromkeys(("one", "two", "three"), "pulled")
    assert first["peak_mb"] < 150
    assert (
        len(first["blobs"]) == len(set(first["blobs"])) == 5 + 3
    )  # each layer and configuration once
    assert lab.right(full.manifest)
    again = lab.take(full.path)
    assert set(again["how"].values()) == {"present"}
    assert again["blobs"] == []
    assert len(lab.look(full.manifest).blobs) == 5


def test_layer_that_images_share_is_unpacked_once(lab: Lab, full: Carried) -> None:
    """The containerd store would do it again for each image; a graph driver has nothing to tell here."""
    with lab.unpacking() as found:
        assert lab.take(full.path)["code"] == 0
    chains = {chain for image in full.manifest.images for chain in image.chains}
    assert len(chains) == 5
    assert len(found) == len(set(found)) == (len(chains) if lab.kind == "containerd" else 0)
    assert lab.right(full.manifest)


def test_delta_brings_the_images_of_the_full_bundle(
    lab: Lab, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    lab.take(full.path)
    base = lab.look(full.manifest)
    thin = carried.carry(tmp_path / "thin", "1.1", bumped(layers), base)
    whole = carried.carry(tmp_path / "whole", "1.1", bumped(layers))
    assert thin.manifest.images == whole.manifest.images
    assert thin.path.stat().st_size < 0.1 * whole.path.stat().st_size
    assert [need.path for need in thin.manifest.needs] == sorted(
        manifest.blob_path(layers[name].blob.digest)
        for name in ("base", "python", "one", "two", "tool")
    )
    found = lab.take(thin.path, [full.manifest])
    assert found["how"] == dict.fromkeys(("one", "two", "three"), "pulled")
    one = next(image for image in thin.manifest.images if image.name == "one")
    assert set(found["blobs"]) == {one.layers[3], one.config}  # the others are the same images
    assert lab.right(thin.manifest)
    assert lab.right(full.manifest)
    assert len(lab.look(full.manifest, thin.manifest).blobs) == 6


def extras_of(folder: Path, **changed: bytes) -> Added:
    """A model of two files and two wheels of a site; `changed` gives other content to some of them."""
    names = {"kept.bin": "files/model/kept.bin", "model.bin": "files/model/model.bin"}
    names |= {
        "helper": "wheels/helper-1-py3-none-any.whl",
        "demo": "wheels/demo-1-py3-none-any.whl",
    }
    folder.mkdir(parents=True)
    members = {}
    for name, where in names.items():
        path = folder / name
        path.write_bytes(changed.get(name.partition(".")[0], name.encode() * 50_000))
        members[f"extras/{where}"] = path
    wheels = tuple(sorted(path[14:] for path in members if path.startswith("extras/wheels/")))
    return Added(
        sealed=SealedExtras(images=("judge",), files=("model",), wheels=wheels), members=members
    )


def test_delta_with_extras_sends_only_what_changed(
    lab: Lab, layers: dict[str, Layer], tmp_path: Path
) -> None:
    """Image, file and wheel of a site: inventory of this host, delta on it, and both are brought in here."""
    ours = [layers["base"], layers["python"]]
    images = {"ops": ours, "extra/judge": [*ours, layers["one"]]}
    before = carried.carry(tmp_path / "1", "1.0", images, added=extras_of(tmp_path / "old"))
    host = Host(root=lab.host.root / "srv/extras")
    shutil.rmtree(host.root, ignore_errors=True)
    host.path("releases", "1.0").mkdir(parents=True)
    host.path("releases", "1.0", "MANIFEST.json").write_bytes(manifest.dump(before.manifest))
    assert lab.take(before.path)["code"] == 0
    assert place.put(host, before.path, before.manifest).written == 4
    base = lab.written(stock.look(lab.host.engine, host.root, before.manifest))
    later = extras_of(tmp_path / "new", model=b"another" * 50_000, demo=b"newer" * 50_000)
    images["extra/judge"] = [*ours, layers["new"]]
    thin = carried.carry(tmp_path / "2", "1.1", images, base, added=later)
    carries = {part.path for part in thin.manifest.members}
    documents = {digest for one in thin.manifest.images for digest in (one.manifest, one.config)}
    blobs = {manifest.blob_path(digest) for digest in (*documents, layers["new"].blob.digest)}
    assert {path for path in carries if path.startswith("blobs/")} == blobs
    assert {path for path in carries if path.startswith("extras/")} == {
        "extras/files/model/model.bin",
        "extras/wheels/demo-1-py3-none-any.whl",
    }
    found = lab.take(thin.path, [before.manifest])
    assert found["how"] == dict.fromkeys(images, "pulled")
    assert lab.right(thin.manifest)
    done = place.put(host, thin.path, thin.manifest)
    assert (done.written, done.kept) == (2, 2)
    for path, source in later.members.items():
        assert host.path(path).read_bytes() == source.read_bytes()
    whole = carried.carry(tmp_path / "3", "1.1", images, added=later)
    assert thin.manifest.images == whole.manifest.images
    here = lab.written(stock.look(lab.host.engine, host.root, thin.manifest))
    assert delta.gone_files(thin.manifest, here) == []
    host.path("extras/files/model/kept.bin").write_bytes(b"changed here")
    here = lab.written(stock.look(lab.host.engine, host.root, thin.manifest))
    assert delta.gone_files(thin.manifest, here) == ["extras/files/model/kept.bin"]


def test_delta_onto_layers_that_were_loaded_is_sent_as_a_thin_archive(
    lab: Lab, layers: dict[str, Layer], tmp_path: Path
) -> None:
    """A graph driver knows the compressed digest of what it pulled only."""
    never = [carried.layer(tmp_path, f"never pulled {number}", 1.0) for number in range(2)]
    whole = carried.carry(tmp_path / "whole", "1.0", {"one": never})
    ticks: list[int] = []
    images = whole.manifest.images
    store.load(lab.host.engine, intake.archive(whole.path, whole.manifest, images, ticks.append))
    assert lab.right(whole.manifest)
    base = lab.look(whole.manifest)
    thin = carried.carry(tmp_path / "thin", "1.1", {"one": [*never, layers["new"]]}, base)
    assert len(thin.manifest.needs) == 2
    found = lab.take(thin.path, [whole.manifest])
    assert found["how"] == {"one": "pulled" if lab.kind == "containerd" else "loaded"}
    assert lab.right(thin.manifest)


def test_thin_archive_is_taken_by_both_stores(
    lab: Lab, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    lab.take(full.path)
    thin = carried.carry(tmp_path, "1.1", bumped(layers), lab.look(full.manifest))
    here = delta.present(lab.look(full.manifest), thin.manifest.images)
    ticks: list[int] = []
    archive = intake.archive(thin.path, thin.manifest, thin.manifest.images, ticks.append, here)
    store.load(lab.host.engine, archive)
    assert sum(ticks) < 300_000
    assert lab.right(thin.manifest)


def test_changed_base_is_carried_again_where_the_store_cannot_use_it(
    lab: Lab, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    lab.take(full.path)
    images = {"one": [layers["new"], layers["python"], layers["one"]]}
    thin = carried.carry(tmp_path, "1.1", images, lab.look(full.manifest))
    assert len(thin.manifest.needs) == (2 if lab.kind == "containerd" else 0)
    lab.take(thin.path, [full.manifest])
    assert lab.right(thin.manifest)


def test_delta_onto_the_wrong_base_is_told_by_what_is_here(
    lab: Lab, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    lab.take(full.path)
    base = lab.look(full.manifest)
    thin = carried.carry(tmp_path / "thin", "1.1", bumped(layers), base)
    lab.empty()
    other = carried.carry(tmp_path / "other", "1.0", {"three": [layers["base"], layers["tool"]]})
    lab.take(other.path)
    here = lab.look(full.manifest, other.manifest, thin.manifest)
    missing = delta.gone(thin.manifest, here, thin.manifest.images)
    assert missing == sorted(
        manifest.blob_path(layers[name].blob.digest) for name in ("python", "one", "two")
    )
    before = set(store.references(lab.host.engine))
    refused = lab.take(thin.path, [full.manifest, other.manifest])
    assert refused["code"] == 3
    assert all(path in refused["error"] for path in missing)
    assert refused["blobs"] == []
    assert lab.right(other.manifest)
    assert not lab.right(thin.manifest)
    assert set(store.references(lab.host.engine)) == before
    again = carried.carry(tmp_path / "again", "1.1", bumped(layers), here)
    lab.take(again.path, [other.manifest])
    assert lab.right(again.manifest)
    assert again.manifest.images == thin.manifest.images


@pytest.mark.timeout(600)
def test_import_killed_anywhere_is_finished_by_the_next(
    lab: Lab,
    full: Carried,
    layers: dict[str, Layer],
    tmp_path: Path,
    rng: random.Random,
    request: pytest.FixtureRequest,
) -> None:
    """What was there stays, and what is there under its name is whole."""
    seconds = lab.take(full.path)["seconds"]
    lab.empty()
    before = carried.carry(tmp_path, "0.9", {"old": [layers["base"], layers["new"]]})
    lab.take(before.path)
    names = set(store.references(lab.host.engine))
    for _ in range(10 if request.config.option.nightly else 1):
        moment = rng.uniform(0, seconds)
        lab.take(full.path, kill_after=moment)
        for one in full.manifest.images:
            facts = store.inspect(lab.host.engine, one.reference)
            assert facts is None or intake.is_right(lab.host.engine, one), moment
        assert lab.right(before.manifest), moment
        found = lab.take(full.path)
        assert found["code"] == 0, (moment, found)
        assert lab.right(full.manifest), moment
        ours = {one.reference for one in full.manifest.images}
        left = set(store.references(lab.host.engine)) - names - ours
        assert not [name for name in left if intake.LEFT_OVER.fullmatch(name)], moment
        for one in full.manifest.images:
            lab.host.engine.api.api.remove_image(one.reference, force=True)


@pytest.mark.timeout(300)
def test_full_disk_is_told_and_room_is_enough_to_finish(
    lab: Lab, full: Carried, layers: dict[str, Layer], tmp_path: Path
) -> None:
    small = carried.carry(tmp_path, "0.9", {"three": [layers["base"], layers["tool"]]})
    lab.host.run(
        ["sh", "-c", f"mkdir -p /small && mount -t tmpfs -o size={SMALL_MB}m tmpfs /small"],
        timeout=20,
    )
    try:
        lab.restart_engine("--data-root", "/small")
        assert lab.take(small.path)["code"] == 0
        ballast = (
            "fallocate -l $(($(df -B1 --output=avail /small | tail -1) - 16000000)) /small/ballast"
        )
        lab.host.run(["sh", "-c", ballast], timeout=20)
        refused = lab.take(full.path)
        assert refused["code"] == 4, refused
        assert "no space left" in refused["error"]
        assert "make room" in refused["hint"]
        assert lab.right(small.manifest)
        lab.host.run(["rm", "/small/ballast"], timeout=20)
        lab.host.run(["mount", "-o", "remount,size=300m", "/small"], timeout=20)
        found = lab.take(full.path)
        assert found["code"] == 0, found
        assert lab.right(full.manifest)
        assert lab.right(small.manifest)
    finally:
        lab.restart_engine()
        lab.host.run(["umount", "/small"], timeout=20, check=False)
