"""A site's own images, with a real engine: by name, pulled by digest, through the bundle and into the engine again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bundle import door, extras, intake, packing, place, store
from bundle.config import parse_bundle
from bundle.engine import Engine
from bundle.errors import BundleError, ConfigError, PreconditionError
from bundle.host import Host
from bundle.manifest import Added, SealedExtras
from bundle.model import Image
from bundle.run import run
from tests import bundles
from tests.test_extras import sound_wheel

NAME = f"t{os.getpid()}"
SOURCE = f"tracking-extra-test/{NAME}:1"
FOREIGN = f"tracking-extra-test/{NAME}-foreign:1"
OURS = f"tracking-extra/{NAME}:1.0"


@dataclass(frozen=True, kw_only=True)
class Site:
    """An engine with two images of the site, one for another machine, and a folder."""

    engine: Engine
    folder: Path

    def gather(self, text: str) -> tuple[tuple[Image, ...], Added]:
        """What the bundle.toml `text` adds."""
        arch = bundles.unseal_arch()
        return extras.gather(parse_bundle(text), self.folder, self.engine, arch=arch, version="1.0")

    def forget(self, *names: str) -> None:
        """Take images out of the engine."""
        for name in names:
            with contextlib.suppress(BundleError):
                store.untag(self.engine, name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, engine = tmp_path_factory.mktemp("site"), Engine()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY x /x\nUSER 12000\n")
    (folder / "x").write_bytes(os.urandom(3_000_000))
    build = ["build", "--quiet", "--network", "none"]
    engine.client([*build, "--tag", SOURCE, str(folder)], timeout=120)
    engine.client([*build, "--platform", "linux/s390x", "--tag", FOREIGN, str(folder)], timeout=120)
    made = Site(engine=engine, folder=folder)
    yield made
    made.forget(*(name for name in store.references(engine) if NAME in name))


def test_image_crosses_and_a_digest_pulls_it(site: Site, tmp_path: Path) -> None:
    """Out of the engine, through a bundle's own door (with a slash in its name), and out of there by its digest."""
    images, added = site.gather(f'extras.images = ["{NAME}={SOURCE}"]')
    assert [(image.name, image.reference) for image in images] == [(f"extra/{NAME}", OURS)]
    assert added.sealed.images == (NAME,)
    packed = packing.export_blobs(images, site.engine, tmp_path / "cache", 3)
    made = bundles.make(tmp_path / "made", added=added, extra_images=packed)
    image = packed[0].image
    only = replace(made.manifest, images=(image,))
    site.forget(OURS, SOURCE)
    assert [row.how for row in intake.import_images(made.path, only, site.engine)] == ["pulled"]
    assert intake.is_right(site.engine, image)
    assert [row.how for row in intake.import_images(made.path, only, site.engine)] == ["present"]
    site.forget(OURS)
    with door.serve(made.path, made.manifest) as shelf:
        pinned = f"{shelf.address}/tracking-bundle/extra/{NAME}@{image.manifest}"
        again, _ = site.gather(f'extras.images = ["{NAME}={pinned}"]')
        other = pinned.replace(image.manifest, "sha256:" + "0" * 64)
        with pytest.raises(PreconditionError, match="the engine has no image"):
            site.gather(f'extras.images = ["other={other}"]')
    assert again[0].layers == image.diff_ids
    site.forget(pinned)


def test_image_on_one_of_ours_carries_our_layers_once(site: Site, tmp_path: Path) -> None:
    """They travel in our form; what the site put on top, and its settings, stay as they are."""
    below, top = (f"tracking-extra-test/{NAME}-{name}:1" for name in ("below", "top"))
    (tmp_path / "Dockerfile").write_text(f"FROM {below}\nCOPY y /y\nENV A=b\n")
    (tmp_path / "y").write_bytes(os.urandom(50_000))
    for tag, folder in ((below, site.folder), (top, tmp_path)):
        build = ["build", "--quiet", "--network", "none", "--tag", tag, str(folder)]
        site.engine.client(build, timeout=120)
    base = site.engine.image("ops", below)
    assert base
    (judge,), _ = site.gather(f'extras.images = ["{NAME}-top={top}"]')
    cache = tmp_path / "cache"
    alone = packing.export_blobs([judge], site.engine, cache, 3)
    ours = packing.export_blobs([base], site.engine, cache, 3, epoch=1_700_000_000)
    onto = packing.export_blobs([judge], site.engine, cache, 3, below=ours)
    assert onto == packing.export_blobs([judge], site.engine, cache, 3, below=ours)  # cached
    assert alone == packing.export_blobs([judge], site.engine, cache, 3)  # of another bundle
    plain, thin = alone[0].image, onto[0].image
    assert plain.diff_ids == judge.layers
    assert plain.layers[0] not in ours[0].image.layers
    assert thin.layers == (*ours[0].image.layers, plain.layers[1])
    assert thin.diff_ids == (*ours[0].image.diff_ids, plain.diff_ids[1])
    before, after = (
        json.loads(one.blobs[one.image.config].read_bytes()) for one in (*alone, *onto)
    )
    assert after.pop("rootfs")["diff_ids"] == list(thin.diff_ids)
    assert before.pop("rootfs")["diff_ids"] == list(plain.diff_ids)
    assert after == before
    made = bundles.make(tmp_path / "made", extra_images=[*ours, *onto])
    only = replace(made.manifest, images=(thin,))
    site.forget(judge.reference, top)
    assert [row.how for row in intake.import_images(made.path, only, site.engine)] == ["pulled"]
    assert intake.is_right(site.engine, thin)


def test_all_images_that_are_missing_are_told_at_once(site: Site) -> None:
    gone = f"tracking-extra-test/{NAME}-gone:1"
    text = f'images = ["a={gone}", "b={FOREIGN}"]'
    with pytest.raises(PreconditionError) as caught:
        site.gather(f"[extras]\n{text}")
    first, second = (str(problem) for problem in caught.value.problems)
    assert f"extras.images: a: the engine has no image {gone}" in first
    assert "is for linux/s390x, the bundle for linux/" in second
    with pytest.raises(ConfigError) as wrong:
        site.gather(f'[extras]\n{text}\nfiles = ["nowhere"]')
    assert len(wrong.value.problems) == 3


def test_rendered_services_are_sound_for_compose(site: Site) -> None:
    """The whole project of a site with extras, read by the client that will start it."""
    file = Path(__file__).parents[1] / "golden/extras/rendered/compose.yaml"
    told = site.engine.compose("tracking-test", file, ["config", "--format", "json"], timeout=60)
    assert '"extra-evaluator"' in told
    assert '"--cost=$$5"' in told  # compose writes the dollar as it must be written


def test_placed_wheels_are_an_index_for_pip(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    wheel = sound_wheel(tmp_path / "w")
    members = {f"extras/wheels/{wheel.name}": wheel}
    added = Added(sealed=SealedExtras(wheels=(wheel.name,)), members=members)
    made = bundles.make(tmp_path / "made", added=added)
    (tmp_path / "root").mkdir()
    host = Host(root=tmp_path / "root")
    place.put(host, made.path, made.manifest)
    folder = host.path("extras", "wheels")
    for links in (str(folder), (folder / "index.html").as_uri()):
        target = tmp_path / f"site-{len(links)}"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-cache-dir",
        ]
        run([*command, "--find-links", links, "--target", str(target), "demo"], timeout=120)
        assert (target / "demo" / "__init__.py").read_text() == "x = 1\n"


PUT = """
import sys
from pathlib import Path
from bundle import manifest, place
from bundle.host import Host
print("ready", flush=True)
place.put(Host(root=Path(sys.argv[1])), Path(sys.argv[2]), manifest.read(Path(sys.argv[2])))
"""


def test_killed_placing_is_finished_by_the_next(
    tmp_path: Path, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "f").mkdir()
    members = {}
    for number in range(60):
        file = tmp_path / "f" / str(number)
        file.write_bytes(rng.randbytes(200_000))
        members[f"extras/files/cache/{number % 7}/{number}"] = file
    made = bundles.make(
        tmp_path / "made", added=Added(sealed=SealedExtras(files=("cache",)), members=members)
    )
    root = tmp_path / "root"
    root.mkdir()
    host, halves = Host(root=root), 0
    for _ in range(10 if request.config.option.nightly else 4):
        place.clear(host)
        command = [sys.executable, "-c", PUT, str(root), str(made.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=bundles.TOP) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            wanted = rng.randrange(40)  # so many are there when it is killed, or some more
            while len(list(root.glob("extras/files/*/*/*"))) <= wanted and child.poll() is None:
                time.sleep(0.001)
            child.kill()
        there = [path for path in root.glob("extras/files/**/*") if path.is_file()]
        halves += 0 < len(there) < len(members)
        assert all(
            path.read_bytes() == members[str(path.relative_to(root))].read_bytes() for path in there
        )
        done = place.put(host, made.path, made.manifest)
        assert done.kept == len(there)
        assert done.written == len(members) - len(there)
        assert place.bytes_missing(host, made.manifest) == 0
        assert not (root / "extras" / place.STAGING).exists()
    assert halves, "none was killed in the middle"
