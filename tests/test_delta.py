"""A delta: what an inventory says, what may be left out for it, what is refused; and the file that comes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bundle import delta, manifest, seal, unpack, unseal
from bundle.cutting import Form
from bundle.delta import Inventory, Layer, Store, Wheel
from bundle.errors import ConfigError
from bundle.manifest import Manifest, Member, SealedImage, blob_path
from bundle.workflows.connected import newest_bundle, read_inventory
from tests import bundles


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")


def image(name: str, *layers: str) -> SealedImage:
    """An image whose layers are named by a letter: blob `b…`, diffID `d…`."""
    return SealedImage(
        name=name,
        reference=f"tracking-bundle/{name}:1",
        manifest=digest("m" + name),
        config=digest("c" + name),
        layers=tuple(digest("b" + layer) for layer in layers),
        diff_ids=tuple(digest("d" + layer) for layer in layers),
        size=1,
    )


def stocked(store: Store, *images: str) -> Inventory:
    """An inventory of images whose layers are the letters of a word."""
    lists = tuple(
        tuple(Layer(diff_id=digest("d" + one), digest=digest("b" + one)) for one in word)
        for word in images
    )
    return Inventory(version="1.0", arch="amd64", store=store, images=lists)


def left(inventory: Inventory, *images: SealedImage) -> set[str]:
    return {bytes.fromhex(one[7:]).decode()[1] for one in delta.present(inventory, images)}


def release(*images: SealedImage) -> Manifest:
    """A release of `images` whose layer `x` travels as 10 bytes."""
    blobs = sorted({blob for one in images for blob in one.layers})
    members = (Member(path=blob_path(blob), size=10, sha256=blob[7:]) for blob in blobs)
    rest: dict[str, Any] = dict.fromkeys(
        ("version", "arch", "created", "expires", "checker_sha256"), ""
    )
    return Manifest(**rest, counter=1, mtime=1, images=images, wheels={}, members=tuple(members))


@pytest.mark.parametrize(
    ("inventory", "needed"),
    [
        (("graphdriver",), 4 * 10 + 100 + 200 + 400 + 800),  # a and b are in both images, once
        (("containerd",), 4 * 10 + 100 + 200 + 400 + 800),
        (("graphdriver", "ab"), 2 * 10 + 400 + 800),
        (("containerd", "abc"), 10 + 800),
        (("graphdriver", "abc", "abd"), 0),
        (("graphdriver", "nbc"), 4 * 10 + 100 + 200 + 400 + 800),  # another base: nothing is there
        (("containerd", "nbc"), 2 * 10 + 100 + 200 + 400 + 800),  # b and c are, but not unpacked so
    ],
)
def test_room_counts_each_layer_once_and_none_that_is_there(
    inventory: tuple[Any, ...], needed: int
) -> None:
    one = dataclasses.replace(image("x", *"abc"), size=700, sizes=(100, 200, 400))
    two = dataclasses.replace(image("y", *"abd"), size=1100, sizes=(100, 200, 800))
    assert delta.room(release(one, two), stocked(*inventory), (one, two)) == needed


def test_room_of_a_layer_on_two_bases_is_counted_twice_unpacked() -> None:
    one = dataclasses.replace(image("x", *"ac"), size=500, sizes=(100, 400))
    two = dataclasses.replace(image("y", *"bc"), size=600, sizes=(200, 400))
    here = stocked("containerd")
    assert delta.room(release(one, two), here, (one, two)) == 3 * 10 + 100 + 200 + 2 * 400
    assert delta.room(release(one, two), here, (one,)) == 2 * 10 + 100 + 400


@pytest.mark.parametrize("store", ["graphdriver", "containerd", "registry"])
def test_nothing_of_what_is_there_is_sent(store: Store) -> None:
    assert left(stocked(store, "abc", "abd"), image("x", *"abc"), image("y", *"abd")) == set("abcd")


@pytest.mark.parametrize("store", ["graphdriver", "containerd"])
def test_new_top_layer_is_sent_alone(store: Store) -> None:
    assert left(stocked(store, "abc"), image("x", *"abn")) == {"a", "b"}


def test_layer_on_a_new_base_is_another_one_for_a_graph_driver_only() -> None:
    new = image("x", *"nbc")
    assert left(stocked("graphdriver", "abc"), new) == set()
    assert left(stocked("containerd", "abc"), new) == {"b", "c"}


def test_layer_that_one_image_has_on_a_new_base_is_sent_for_it() -> None:
    images = image("x", *"ab"), image("y", *"nb")
    assert left(stocked("graphdriver", "ab"), *images) == {"a"}


def test_unknown_digest_is_no_blob() -> None:
    known = dataclasses.replace(
        stocked("containerd", "a"), images=((Layer(diff_id=digest("da")),),)
    )
    assert left(known, image("x", "a")) == set()
    assert left(dataclasses.replace(known, store="graphdriver"), image("x", "a")) == {"a"}


def test_inventory_survives_being_written_and_read() -> None:
    wheel = Wheel(name="x-1-py3-none-any.whl", sha256="1" * 64, size=7)
    known = dataclasses.replace(
        stocked("containerd", "abc", "d"), wheels=(wheel,), files=("2" * 64,)
    )
    for gone in ((), ("wheels/y",)):
        again = delta.parse(delta.dump(known, gone), "x")
        assert dataclasses.replace(again, sha256="") == known
        assert len(again.sha256) == 64


GOOD: dict[str, Any] = json.loads(delta.dump(stocked("graphdriver", "ab")))


def test_inventory_of_an_older_release_has_no_files() -> None:
    older = json.dumps({key: value for key, value in GOOD.items() if key != "files"}).encode()
    assert delta.parse(older, "x").files == ()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (16 << 20) + b"{}", "is not an inventory of tracking-bundle"),
        (b"[]", "is not an inventory of tracking-bundle"),
        (b'"text"', "is not an inventory of tracking-bundle"),
        (json.dumps({**GOOD, "product": "other"}).encode(), "is not an inventory"),
        (json.dumps({**GOOD, "kind": "bundle"}).encode(), "is not an inventory"),
        (json.dumps({**GOOD, "format": 2}).encode(), "format 2, this tool reads up to 1"),
        (json.dumps({**GOOD, "format": "1"}).encode(), "has no format"),
        (json.dumps({**GOOD, "format": True}).encode(), "has no format"),
        (json.dumps({**GOOD, "store": "shelf"}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "version": "../1"}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "arch": 1}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "images": 1}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "images": [[{"diff_id": "x"}]]}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "images": [[{"diff_id": 1, "digest": 1}]]}).encode(), "no sound"),
        (json.dumps({**GOOD, "wheels": [{"name": "x"}]}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "files": ["../x"]}).encode(), "no sound inventory"),
        (json.dumps({**GOOD, "files": 1}).encode(), "no sound inventory"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "wheels"}).encode(), "no sound"),
    ],
)
def test_what_is_no_inventory_is_refused(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "inventory.json"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=words) as refused:
        read_inventory(path, "amd64")
    assert refused.value.problems[0].hint


def test_inventory_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    path.write_bytes(json.dumps(GOOD).encode())
    assert read_inventory(path, "amd64").version == "1.0"
    with pytest.raises(ConfigError, match="of a amd64 host, this bundle is for arm64"):
        read_inventory(path, "arm64")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_inventory(tmp_path / "none", "amd64")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("full"))


def inventory_of(made: bundles.Made, folder: Path, *, wheels: bool = True) -> Inventory:
    """The inventory of a host on which `made` is installed."""
    sealed = made.manifest
    images = tuple(
        tuple(
            Layer(diff_id=one, digest=blob)
            for one, blob in zip(img.diff_ids, img.layers, strict=True)
        )
        for img in sealed.images
    )
    there = tuple(
        Wheel(name=part.path[7:], sha256=part.sha256, size=part.size)
        for part in sealed.members
        if part.path.startswith("wheels/") and wheels
    )
    known = Inventory(
        version="1.0",
        arch=sealed.arch,
        store="graphdriver",
        images=images,
        wheels=there,
        small=tuple(
            manifest.Need(path=part.path, size=part.size, sha256=part.sha256)
            for part in sealed.members
            if part.path.startswith("small/")
        ),
    )
    path = folder / "inventory.json"
    path.write_bytes(delta.dump(known))
    return read_inventory(path, sealed.arch)


def test_delta_carries_all_but_layers_and_wheels(full: bundles.Made, tmp_path: Path) -> None:
    base = inventory_of(full, tmp_path)
    made = bundles.make(tmp_path / "made", base=base)
    assert made.path.name.endswith("-delta-from-1.0.tar")
    sealed = manifest.read(made.path)
    assert sealed.base == manifest.Base(version="1.0", store="graphdriver", inventory=base.sha256)
    assert sealed.images == full.manifest.images
    needed = {need.path for need in sealed.needs}
    layers = {manifest.blob_path(d) for img in sealed.images for d in img.layers}
    wheels = {f"wheels/{name}" for group in sealed.wheels.values() for name in group}
    small = {"small/README.md", "small/tasks.py", "small/scripts/bootstrap.sh"}
    assert needed == layers | wheels | small  # and not what may be run: a need has no mode
    always = {f"small/bundle/{name}.py" for name in ("arrive", "kept", "unpack", "unseal")}
    assert always <= {member.path for member in sealed.members}
    assert {part.path for part in sealed.parts} == {part.path for part in full.manifest.members}
    unseal.check(made.path, made.digest)
    assert newest_bundle_is(full.path, made.path)


def newest_bundle_is(full: Path, made: Path) -> bool:
    (full.parent / made.name).write_bytes(b"")
    return newest_bundle(full.parent) == full


def test_what_is_gone_is_named(full: bundles.Made, tmp_path: Path) -> None:
    base = inventory_of(full, tmp_path)
    sealed = bundles.make(tmp_path / "made", base=base).manifest
    assert delta.gone(sealed, base, sealed.images) == []
    less = dataclasses.replace(base, images=base.images[:1])
    second = sealed.images[1]
    assert delta.gone(sealed, less, sealed.images) == [manifest.blob_path(second.layers[1])]
    assert delta.gone(sealed, less, sealed.images[:1]) == []
    nothing = dataclasses.replace(base, images=())
    assert len(delta.gone(sealed, nothing, sealed.images)) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base", None),
        ("base", {"version": "../1", "store": "x", "inventory": "0" * 64}),
        ("base", {"version": "1", "store": "x", "inventory": "0"}),
        ("needs", [{"path": "other/x", "size": 1, "sha256": "0" * 64}]),
        ("needs", [{"path": "small/bundle/unpack.py", "size": 1, "sha256": "0" * 64}]),
        ("needs", [{"path": "wheels/../x", "size": 1, "sha256": "0" * 64}]),
        ("needs", [{"path": "wheels/x", "size": -1, "sha256": "0" * 64}]),
        ("needs", [{"path": "wheels/x", "size": 1, "sha256": "x"}]),
        ("needs", [{"path": "unseal.py", "size": 1, "sha256": "0" * 64}]),
        ("needs", [{"path": "wheels/x", "size": 1, "sha256": "0" * 64}] * 2),
    ],
)
def test_delta_of_a_wrong_form_is_refused(
    full: bundles.Made, tmp_path: Path, key: str, value: Any
) -> None:
    made = bundles.make(tmp_path / "made", base=inventory_of(full, tmp_path))
    data = json.loads(manifest.dump(made.manifest))
    unseal.parse_manifest(json.dumps(data).encode())
    data[key] = value if value is None or key == "base" else [*data["needs"], *value]
    with pytest.raises(unseal.SealError, match="wrong form"):
        unseal.parse_manifest(json.dumps(data).encode())


@pytest.mark.parametrize("split", [0, 60_000], ids=["file", "parts"])
def test_wheels_outlive_the_bundle_and_serve_the_delta(
    full: bundles.Made, tmp_path: Path, split: int
) -> None:
    root = tmp_path / "root"
    data = unseal.read_manifest(full.path)
    unpack.unpack(full.path, data, root, {"sha256_manifest": "1"})
    stored = [path.name for path in (root / "wheels").iterdir()]
    assert stored == [part["sha256"] for part in data["members"] if part["path"][:7] == "wheels/"]
    base, form = inventory_of(full, tmp_path), Form(split=split)
    made = bundles.make(tmp_path / "made", base=base, version="1.1", form=form)
    assert (len(unseal.parts_of(made.path)) > 1) == bool(split)
    home = unpack.unpack(made.path, unseal.read_manifest(made.path), root, {"sha256_manifest": "2"})
    assert (home / ".venv/bin/demo").exists()
    assert [path.name for path in (root / "wheels").iterdir()] == stored


def test_delta_without_its_wheels_is_refused_with_a_request(
    full: bundles.Made, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    unpack.unpack(full.path, unseal.read_manifest(full.path), root, {"sha256_manifest": "1"})
    before = sorted(root.rglob("*"))
    made = bundles.make(tmp_path / "made", base=inventory_of(full, tmp_path), version="1.1")
    data = unseal.read_manifest(made.path)
    wheel = next((root / "wheels").iterdir())
    wheel.write_bytes(b"damaged")
    with pytest.raises(unseal.SealError, match="1 wheels and files of that are not in") as refused:
        unpack.unpack(made.path, data, root, {"sha256_manifest": "2"})
    assert refused.value.code == 3
    assert "request.json" in refused.value.hint
    assert sorted(root.rglob("*")) == sorted([*before, root / "request.json"])
    asked = read_inventory(root / "request.json", full.manifest.arch)
    again = bundles.make(tmp_path / "again", base=asked, version="1.1")
    assert {part.path for part in again.manifest.needs} == {
        part.path for part in made.manifest.needs if not part.path.startswith("wheels/")
    }
    unpack.unpack(again.path, unseal.read_manifest(again.path), root, {"sha256_manifest": "3"})


def test_delta_stands_on_a_release_that_a_killed_run_had_put_aside(
    full: bundles.Made, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    unpack.unpack(full.path, unseal.read_manifest(full.path), root, {"sha256_manifest": "1"})
    made = bundles.make(tmp_path / "made", base=inventory_of(full, tmp_path))
    home = root / "releases/1.0"
    home.rename(root / "releases/1.0.old-4711")
    data = unseal.read_manifest(made.path)
    assert unpack.unpack(made.path, data, root, {"sha256_manifest": "2"}) == home
    assert (home / "tasks.py").read_text() == "# a task\n"
    assert [path.name for path in (root / "releases").iterdir() if path.is_dir()] == ["1.0"]


def test_file_of_an_earlier_release_that_was_changed_is_asked_for(
    full: bundles.Made, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    home = unpack.unpack(full.path, unseal.read_manifest(full.path), root, {"sha256_manifest": "1"})
    made = bundles.make(tmp_path / "made", base=inventory_of(full, tmp_path))
    (home / "tasks.py").write_text("# another\n")
    with pytest.raises(unseal.SealError, match=r"small/tasks\.py: needed"):
        unpack.unpack(made.path, unseal.read_manifest(made.path), root, {"sha256_manifest": "2"})
    asked = read_inventory(root / "request.json", full.manifest.arch)
    assert {file.path for file in asked.small} == {"small/README.md", "small/scripts/bootstrap.sh"}


def test_delta_on_a_host_without_an_installation_writes_nothing(
    full: bundles.Made, tmp_path: Path
) -> None:
    made = bundles.make(tmp_path / "made", base=inventory_of(full, tmp_path), version="1.1")
    with pytest.raises(unseal.SealError, match="is a delta on") as refused:
        unpack.unpack(made.path, unseal.read_manifest(made.path), tmp_path / "none", {})
    assert "--root" in refused.value.hint
    assert not (tmp_path / "none").exists()


def test_refusal_names_what_is_gone_and_where_the_request_lies() -> None:
    problem = delta.refusal("1.0", ["blobs/sha256/aa"], Path("/r/request.json"))
    assert "blobs/sha256/aa" in problem.message
    assert "invoke bundle --base /r/request.json" in problem.hint


def test_size_table_of_a_delta_counts_what_is_carried(full: bundles.Made, tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "made", base=inventory_of(full, tmp_path))
    table = seal.size_table(made.manifest)
    assert table["shared layers"] == table["wheels"] == 0
