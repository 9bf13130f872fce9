"""What is in the built images is what the bills say, both ways; the sources are whole; a secret stops the seal."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import __version__, carry, images, sbom, seal, supply, versions
from bundle.components import TOOL, Inventory, parse_go_sum
from bundle.config import BundleConfig, parse_bundle
from bundle.engine import Engine
from bundle.errors import IntegrityError
from bundle.manifest import PRODUCT, Member
from bundle.model import Image
from bundle.modules import escape
from bundle.packing import PackedImage
from bundle.recipes import file_digest
from bundle.workflows import documents
from bundle.workflows.connected import pack
from tests import bundles
from tests.integration.test_images import inside
from tests.supplies import INVENTORY
from tests.test_advisories import database, record
from tests.test_components import validate_cyclonedx, validate_spdx

TOP = Path(__file__).parents[2]
CREATED = 1_790_000_000
VENVS = ("mlflow", "phoenix", "ops")
LIST_WHEELS = """
import importlib.metadata as m, re
for d in m.distributions():
    print(re.sub('[-_.]+', '-', d.name).lower(), d.version)
"""
pytestmark = pytest.mark.timeout(2400)


@pytest.fixture(scope="module")
def config() -> BundleConfig:
    return parse_bundle("")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def built(config: BundleConfig, engine: Engine) -> tuple[Image, ...]:
    return images.build_all(config, engine, TOP)


@pytest.fixture(scope="module")
def packed(
    config: BundleConfig, engine: Engine, built: tuple[Image, ...]
) -> tuple[PackedImage, ...]:
    return pack(TOP, config, engine, built)


@pytest.fixture(scope="module")
def desk(config: BundleConfig, engine: Engine) -> documents.Desk:
    return documents.open_desk(config, engine, TOP, __version__, CREATED)


@pytest.fixture(scope="module")
def inventory(desk: documents.Desk, packed: tuple[PackedImage, ...]) -> Inventory:
    lock = TOP / "requirements" / "tool.lock"
    wheels = carry.collect(lock, desk.config.cache, desk.inputs.arch)
    return documents.take_inventory(desk, packed, wheels)


@pytest.fixture(scope="module")
def papers(desk: documents.Desk, inventory: Inventory) -> dict[str, bytes]:
    return documents.write_documents(desk, inventory, "")


def listed(inventory: Inventory, image: str, kind: str) -> set[tuple[str, str]]:
    return {(c.name, c.version) for c in inventory.of(image) if c.kind == kind}


def test_debian_packages_of_every_image_are_the_listed_ones(
    engine: Engine, built: tuple[Image, ...], inventory: Inventory
) -> None:
    for image in built:
        form = "${db:Status-Status} ${Package} ${Version}\\n"
        out = inside(engine, image, ["dpkg-query", "--show", "--showformat", form])
        rows = [line.split() for line in out.splitlines()]
        there = {(row[1], row[2]) for row in rows if row[0] == "installed"}
        assert there == listed(inventory, image.name, "deb"), image.name
        assert there


def test_wheels_of_every_venv_are_the_listed_ones(
    engine: Engine, built: tuple[Image, ...], inventory: Inventory
) -> None:
    for image in built:
        there: set[tuple[str, str]] = set()
        if image.name in VENVS:
            out = inside(engine, image, ["/opt/venv/bin/python", "-c", LIST_WHEELS])
            there = {(name, version) for name, version in map(str.split, out.splitlines())}
            assert there
        assert there == listed(inventory, image.name, "pypi"), image.name


def go_version(engine: Engine, image: Image, folder: Path) -> list[list[str]]:
    """What Go's own command says of the program in the image."""
    container = engine.api.containers.create(image.reference)
    try:
        stream, _ = container.get_archive("/usr/local/bin/minio")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            archive.extractall(folder, filter="data")
    finally:
        container.remove()
    workshop = images.open_workshop(parse_bundle(""), engine, TOP)
    images.ensure(workshop, "golang")
    out = engine.api.containers.run(
        workshop.reference("golang"),
        ["go", "version", "-m", "/x/minio"],
        remove=True,
        network_mode="none",
        environment={"GOTOOLCHAIN": "local", "HOME": "/tmp"},
        volumes={str(folder): {"bind": "/x", "mode": "ro"}},
    )
    return [line.split() for line in out.decode().splitlines() if line.strip()]


def test_go_modules_of_the_program_are_the_listed_ones_and_all_have_their_source(
    tmp_path: Path,
    engine: Engine,
    built: tuple[Image, ...],
    desk: documents.Desk,
    inventory: Inventory,
) -> None:
    rows = go_version(engine, next(i for i in built if i.name == "minio"), tmp_path)
    modules = {tuple(row[1:4]) for row in rows if row[0] in ("mod", "dep")}
    found = {c for c in inventory.of("minio", "golang") if c.name != "stdlib"}
    (own,) = (c for c in found if c.patches)
    rest = {(c.name, c.version, c.h1) for c in found - {own}}
    assert modules == rest | {(own.name, own.version)}, "what is patched has no sum in the program"
    assert {cve for patch in own.patches for cve in patch.closes} >= {"CVE-2026-41145"}
    assert rows[0][1].removeprefix("go") in {
        c.version for c in inventory.of("minio") if c.name == "stdlib"
    }
    companion = documents.write_sources(desk, inventory, tmp_path / "out")
    with tarfile.open(companion.path) as archive:
        names = set(archive.getnames())
    for path, version, *_ in modules:
        place = f"{escape(path)}/@v/{escape(version)}"
        for kind in ("zip", "mod", "info"):
            assert f"{companion.path.stem}/proxy/{place}.{kind}" in names
    assert len(modules) > 100


def test_everything_that_is_listed_has_a_digest_and_what_is_locked_is_used(
    desk: documents.Desk, inventory: Inventory
) -> None:
    assert [c.name for c in inventory.components if not c.sha256 and c.name != "stdlib"] == []
    sums, _ = parse_go_sum(desk.inputs.go_sum("minio"))
    assert {
        (c.name, c.version): c.h1 for c in inventory.of("minio", "golang") if c.h1
    }.items() <= sums.items()
    tool = {path.name.split("-")[0].replace("_", "-").lower() for path in wheels_of(desk)}
    assert {c.name for c in inventory.of(TOOL)} == tool


def wheels_of(desk: documents.Desk) -> set[Path]:
    lock = TOP / "requirements" / "tool.lock"
    groups = carry.collect(lock, desk.config.cache, desk.inputs.arch).values()
    return {path for group in groups for path in group}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_real_bills_pass_their_own_tools_and_licences_are_known(
    tmp_path: Path, inventory: Inventory, papers: dict[str, bytes]
) -> None:
    spdx = gzip.decompress(papers["small/release/sbom.spdx.json.gz"])
    cyclone = gzip.decompress(papers["small/release/sbom.cdx.json.gz"])
    assert validate_spdx(spdx, tmp_path) == []
    assert validate_cyclonedx(cyclone) == ""
    named = {c.name: c.licence for c in inventory.components}
    assert named["arize-phoenix"] == "Elastic-2.0"
    assert named["github.com/minio/minio"] == "AGPL-3.0-or-later"
    assert named["mlflow"] == "Apache-2.0"
    unknown = [c for c in inventory.components if not c.licence and c.kind != "deb"]
    assert len(unknown) < 10, unknown
    common = {t.name for c in inventory.components if c.name == "base-files" for t in c.texts}
    assert {f"common-licenses/{n}" for n in ("GPL-2", "GPL-3", "LGPL-2.1", "Apache-2.0")} <= common
    without = [c.name for c in inventory.components if c.kind == "deb" and not c.texts]
    assert without == []


def test_documents_are_the_same_again_and_name_nothing_of_this_host(
    desk: documents.Desk, inventory: Inventory, papers: dict[str, bytes]
) -> None:
    again = documents.write_documents(desk, inventory, "")
    assert again == papers
    provenance = papers["small/release/provenance.json"].decode()
    for private in (os.uname().nodename, str(TOP), str(desk.config.cache), "/root", "/home"):
        assert f'"{private}"' not in provenance
        assert len(private) < 5 or private not in provenance
    subjects = {s["name"]: s["digest"]["sha256"] for s in json.loads(provenance)["subject"]}
    assert subjects == {
        f"{PRODUCT}/{name}": digest.removeprefix("sha256:")
        for name, digest in inventory.images.items()
    }


def test_base_from_a_registry_is_listed_by_its_own_word(
    tmp_path: Path, desk: documents.Desk
) -> None:
    status = (
        "Package: base-of-theirs\nStatus: install ok installed\nArchitecture: all\n"
        "Source: theirs (1)\nVersion: 1+b1\n\nPackage: gone\nStatus: deinstall ok config-files\n"
        "Architecture: all\nVersion: 2\n"
    )
    layer = zstd_layer(tmp_path, "var/lib/dpkg/status", status.encode())
    found = [bundles.packed(tmp_path, "gateway", layer)]
    inputs = replace(desk.inputs, registry=True)
    inventory = supply.gather(inputs, found, {}, version="1", created=CREATED)
    by_name = {c.name: c for c in inventory.of("gateway")}
    assert "gone" not in by_name
    assert "nginx" in by_name
    assert "base-files" not in by_name
    theirs = by_name["base-of-theirs"]
    assert (theirs.version, theirs.source, theirs.source_version) == ("1+b1", "theirs", "1")
    assert theirs.sha256 == ""


@pytest.mark.parametrize("image", ["ops", "postgres"])
def test_packages_of_a_sites_image_are_those_that_it_has(
    desk: documents.Desk, inventory: Inventory, packed: tuple[PackedImage, ...], image: str
) -> None:
    """An image of ours in the place of a site's: what is read out of its layers is what the locks say of it."""
    ours = next(one for one in packed if one.image.name == image)
    theirs = replace(ours, image=replace(ours.image, name=f"extra/{image}"))
    found = supply.gather(desk.inputs, [theirs], {}, version="1", created=CREATED)
    for kind in ("deb", "pypi"):
        assert listed(found, f"extra/{image}", kind) == listed(inventory, image, kind)
    assert (found.told, found.unread) == ((f"extra/{image}",), ())
    assert {c.system for c in found.components} == {"debian-13"}
    assert all(c.sha256 == "" for c in found.components)
    again = supply.gather(desk.inputs, [theirs], {}, version="1", created=CREATED)
    assert again == found


def test_image_without_a_list_of_packages_is_said_to_be_unread(
    tmp_path: Path, desk: documents.Desk
) -> None:
    image = bundles.packed(tmp_path, "extra/one", zstd_layer(tmp_path, "program", b"\x7fELF"))
    found = supply.gather(desk.inputs, [image], {}, version="1", created=CREATED)
    assert (found.told, found.unread, found.components) == ((), ("extra/one",), ())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_bills_with_a_sites_image_pass_their_own_tools(
    tmp_path: Path, desk: documents.Desk, packed: tuple[PackedImage, ...]
) -> None:
    ours = next(one for one in packed if one.image.name == "ops")
    both = [ours, replace(ours, image=replace(ours.image, name="extra/ops"))]
    found = supply.gather(desk.inputs, both, {}, version="1", created=CREATED)
    assert validate_spdx(sbom.dump(sbom.spdx(found)), tmp_path) == []
    assert validate_cyclonedx(sbom.dump(sbom.cyclonedx(found))) == ""


def test_real_inventory_is_looked_up_by_each_ecosystems_rules(
    tmp_path: Path, desk: documents.Desk, inventory: Inventory
) -> None:
    openssl = next(c for c in inventory.components if c.name == "libssl3t64")
    database(
        tmp_path / "osv.zip",
        record(
            "Debian:13",
            openssl.source,
            {"introduced": "0"},
            {"fixed": f"{openssl.source_version}+1"},
        ),
        record(
            "Debian:13",
            openssl.source,
            {"introduced": "0"},
            {"fixed": openssl.source_version},
            name_of="CVE-2",
        ),
        record("Go", "golang.org/x/crypto", {"introduced": "0"}, name_of="GO-2026-1"),
        record("PyPI", "Arize.Phoenix", {"introduced": "20.26.1"}, name_of="PYSEC-1"),
    )
    papers = documents.write_documents(desk, inventory, str(tmp_path / "osv.zip"))
    report = json.loads(papers["small/release/vulnerabilities.json"])
    found = {(f["id"], f["component"]) for f in report["findings"]}
    assert found == {
        ("CVE-2026-1", "openssl"),
        ("GO-2026-1", "golang.org/x/crypto"),
        ("PYSEC-1", "arize-phoenix"),
    }
    (of_openssl,) = (f for f in report["findings"] if f["component"] == "openssl")
    assert set(of_openssl["places"]) >= {"gateway", "postgres", "mlflow"}


def test_bad_database_ends_the_task_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "notes.zip").write_text("not a zip")
    command = [
        sys.executable,
        "-m",
        "invoke",
        "bundle",
        "--out",
        str(tmp_path / "out"),
        "--advisories",
    ]
    for name in ("notes.zip", "absent"):
        done = subprocess.run(
            [*command, str(tmp_path / name)], cwd=TOP, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2, done.stderr
        assert str(tmp_path / name) in done.stderr
        assert "hint: Give a zip or a folder of OSV JSON records" in done.stderr
        assert not (tmp_path / "out").exists()


def seal_with(
    tmp_path: Path, look: object, found: Sequence[PackedImage], key: seal.SealKey
) -> seal.Sealed:
    return seal.write_bundle(
        out=tmp_path / "dist",
        top=bundles.tree(tmp_path / "tree"),
        version="1.0",
        arch="amd64",
        created=CREATED,
        images=found,
        wheels={python: (bundles.wheel(tmp_path),) for python in bundles.PYTHONS},
        key=key,
        inspect=look,  # type: ignore[arg-type]
    )


def zstd_layer(folder: Path, name: str, data: bytes) -> bytes:
    """A compressed layer with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    command = ["zstd", "--quiet", "--stdout"]
    return subprocess.run(command, input=out.getvalue(), capture_output=True, check=True).stdout


def test_planted_key_inside_a_layer_stops_the_seal(tmp_path: Path, desk: documents.Desk) -> None:
    key = seal.load_key(tmp_path / "key" / "sign.key", make=True)
    elsewhere = replace(desk, config=replace(desk.config, cache=tmp_path / "cache"))
    look = documents.last_look(elsewhere, key, INVENTORY)
    clean = bundles.packed(tmp_path, "clean", zstd_layer(tmp_path, "etc/motd", b"hello"))
    assert seal_with(tmp_path, look, [clean], key).path.is_file()
    shutil.rmtree(tmp_path / "dist")
    planted = {
        "private key": key.path.read_bytes(),
        "signing key": key.private.private_numbers().private_value.to_bytes(32, "big"),
        "host path": str(tmp_path / "cache" / "blobs").encode(),
    }
    for rule, canary in planted.items():
        layer = zstd_layer(tmp_path, "srv/forgotten", b"x\n" + canary + b"\n")
        bad = bundles.packed(tmp_path, "bad", layer)
        with pytest.raises(IntegrityError, match=f"srv/forgotten: {rule} found") as caught:
            seal_with(tmp_path, look, [bad], key)
        assert caught.value.exit_code == 5
        assert not list((tmp_path / "dist").glob("*")) if (tmp_path / "dist").exists() else True


@pytest.mark.nightly  # a fresh key, so that everything is read; every bundle that is made does it for its own
def test_real_images_pass_the_last_look(
    tmp_path: Path, desk: documents.Desk, packed: tuple[PackedImage, ...], inventory: Inventory
) -> None:
    key = seal.load_key(tmp_path / "key" / "sign.key", make=True)
    sources = [
        seal.Source(
            member=Member(
                path=digest, size=path.stat().st_size, sha256=digest.removeprefix("sha256:")
            ),
            content=path,
        )
        for image in packed
        for digest, path in image.blobs.items()
    ]
    assert documents.last_look(desk, key, inventory)(sources) == sources


def test_debian_order_is_dpkgs() -> None:
    cases = [
        "1.0",
        "1.0~rc1",
        "1.0+b1",
        "1:0.1",
        "1.0-1",
        "1.0-1+deb13u1",
        "1.0-1~bpo",
        "1.10",
        "1.9",
        "1.0a",
    ]
    for one in cases:
        for other in cases:
            order = versions.compare_debian(one, other)
            relation = {-1: "lt", 0: "eq", 1: "gt"}[order]
            done = subprocess.run(["dpkg", "--compare-versions", one, relation, other], check=False)
            assert done.returncode == 0, (one, relation, other)


@pytest.mark.nightly  # compiles the object store from nothing
def test_companion_alone_gives_the_same_program_without_a_network(
    tmp_path: Path,
    engine: Engine,
    built: tuple[Image, ...],
    desk: documents.Desk,
    inventory: Inventory,
) -> None:
    rows = go_version(engine, next(i for i in built if i.name == "minio"), tmp_path)
    with tarfile.open(documents.write_sources(desk, inventory, tmp_path).path) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    ask = {**os.environ, "GOTOOLCHAIN": rows[0][1]}
    command = ["go", "env", "GOROOT"]  # fetches that release of Go where the host has another
    root = subprocess.run(command, capture_output=True, text=True, check=True, env=ask).stdout
    home = {"PATH": f"{root.strip()}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}
    alone = ["unshare", "--net", "sh", str(next((tmp_path / "out").iterdir()) / "rebuild.sh")]
    target = tmp_path / "again"
    subprocess.run([*alone, str(target)], check=True, env={**home, "GOTOOLCHAIN": "local"})
    assert file_digest(target) == file_digest(tmp_path / "minio")


def test_sites_wheels_are_listed_and_their_place_said(tmp_path: Path, desk: documents.Desk) -> None:
    inventory = supply.gather(
        desk.inputs, (), {}, version="1", created=CREATED, site=[bundles.wheel(tmp_path, "my_demo")]
    )
    (found,) = inventory.components
    assert (found.name, found.version, found.places) == ("my-demo", "1.0", ("site",))
