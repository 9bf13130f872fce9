"""A bundle crosses: the host's own sh, openssl and tar check it; a real engine takes the images out of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bundle import blobs, door, intake, manifest, packing, seal, store, unseal
from bundle.engine import Engine
from bundle.errors import BundleError, PreconditionError
from bundle.model import Image
from tests import bundles

SHELLS = [
    shell for shell in ("dash", "bash --posix", "busybox sh") if shutil.which(shell.split()[0])
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def copy(tmp_path: Path, made: bundles.Made) -> bundles.Made:
    path = Path(shutil.copy(made.path, tmp_path / "copy.tar"))
    return bundles.Made(
        path=path, digest=made.digest, fingerprint=made.fingerprint, manifest=made.manifest
    )


def boot(
    made: bundles.Made, *options: str, shell: str = "sh", umask: int = 0o022, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Do what the trust sheet says, in the bundle's folder."""
    folder = made.path.parent
    script = folder / "bootstrap.sh"
    script.write_bytes((bundles.TOP / "scripts/bootstrap.sh").read_bytes())
    named = ("--fingerprint", made.fingerprint) if made.fingerprint else ()
    elsewhere = () if "--root" in options else ("--root", str(folder / "no-root"))
    command = [*shell.split(), str(script), str(made.path), *named, *elsewhere, *options]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        umask=umask,
        timeout=100,
        cwd=folder,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_sound_bundle_passes_in_every_shell(tmp_path: Path, made: bundles.Made, shell: str) -> None:
    root = tmp_path / "root"
    done = boot(made, "--check", "--root", str(root), shell=shell)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "sealed and complete: 1.0" in done.stderr
    assert not root.exists()


@pytest.mark.parametrize(
    ("umask", "environment"),
    [
        (0o022, {}),
        (0o077, {"LANG": "ko_KR.UTF-8", "TZ": "Asia/Seoul"}),
        (0o000, {"LC_ALL": "C", "LANG": "tlh", "TZ": "Nowhere/At_All"}),
        (0o077, {"LC_ALL": "ko_KR.EUC-KR", "TAR_OPTIONS": "", "POSIXLY_CORRECT": "1"}),
        (
            0o022,
            {"http_proxy": "http://192.0.2.1:1", "HTTPS_PROXY": "http://192.0.2.1:1", "LANG": ""},
        ),
        (
            0o022,
            {"PYTHONPATH": "/nonexistent", "PYTHONHOME": "/nonexistent", "PYTHONSTARTUP": "/x"},
        ),
    ],
)
def test_tool_is_unpacked_and_starts_on_odd_hosts(
    tmp_path: Path, made: bundles.Made, umask: int, environment: dict[str, str]
) -> None:
    folder = tmp_path / "USB 매체: 1"
    folder.mkdir()
    path = Path(shutil.copy(made.path, folder / "번들 file.tar"))
    here = bundles.Made(
        path=path, digest=made.digest, fingerprint=made.fingerprint, manifest=made.manifest
    )
    root = tmp_path / "설치 폴더"
    done = boot(here, "--root", str(root), umask=umask, TMPDIR=str(tmp_path), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"cd '{root}/current' && . .venv/bin/activate && invoke install\n"
    assert not list(tmp_path.glob("tmp.*"))
    line = done.stdout.strip().replace("invoke install", "demo") + ' && printf %s "$VIRTUAL_ENV"'
    shown = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout == f"hello from demo\n{root}/releases/1.0/.venv"
    modes = {
        path.stat().st_mode & 0o777
        for path in (root / "releases/1.0").rglob("*")
        if not path.is_symlink()
    }
    assert modes <= {0o755, 0o644}


def test_fingerprint_may_be_written_as_on_paper(made: bundles.Made) -> None:
    pairs = [made.fingerprint[i : i + 2].upper() for i in range(0, 64, 2)]
    paper = bundles.Made(
        path=made.path, digest=made.digest, fingerprint=":".join(pairs), manifest=made.manifest
    )
    assert boot(paper, "--check").returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--fingerprint", "abc"),
        ("--fingerprint", "g" * 64),
        ("--fingerprint",),
        ("--fingerprint="),
        ("--root",),
        ("--root", ""),
        ("--unknown",),
        ("/a/second/file",),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_done(
    made: bundles.Made, options: tuple[str, ...]
) -> None:
    done = boot(made, *options)
    assert done.returncode == 2, done.stderr
    assert "usage: sh bootstrap.sh FILE" in done.stderr


def test_absent_file_is_said(tmp_path: Path, made: bundles.Made) -> None:
    absent = bundles.Made(
        path=tmp_path / "none.tar", digest="", fingerprint=made.fingerprint, manifest=made.manifest
    )
    done = boot(absent)
    assert done.returncode == 2
    assert "cannot read the file" in done.stderr


def refuse(made: bundles.Made, root: Path, *options: str) -> str:
    """The bootstrap's words when it refuses for integrity, with nothing written."""
    done = boot(made, "--root", str(root), *options)
    assert done.returncode == 5, f"{done.returncode}: {done.stderr}"
    assert not root.exists()
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr
    return done.stderr


def test_other_fingerprint_is_refused(tmp_path: Path, made: bundles.Made) -> None:
    other = bundles.Made(
        path=made.path, digest=made.digest, fingerprint="0" * 64, manifest=made.manifest
    )
    assert f"signed by another key, {made.fingerprint}" in refuse(other, tmp_path / "root")


def test_bundle_signed_by_another_key_is_refused(tmp_path: Path, made: bundles.Made) -> None:
    forged = bundles.make(tmp_path / "forged")
    assert forged.fingerprint != made.fingerprint
    swapped = bundles.Made(
        path=forged.path, digest="", fingerprint=made.fingerprint, manifest=forged.manifest
    )
    assert "signed by another key" in refuse(swapped, tmp_path / "root")


def replace(path: Path, source: Path, *names: str) -> None:
    """Put the members `names` of `source` into `path`."""
    members, others = bundles.split(path), bundles.split(source)
    for name in names:
        members[bundles.index(members, name)] = others[bundles.index(others, name)]
    bundles.join(path, members)


@pytest.mark.parametrize(
    "names", [("MANIFEST.json",), ("MANIFEST.sig",), ("MANIFEST.json", "MANIFEST.sig")]
)
def test_manifest_of_another_bundle_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    key = tmp_path / "sign.key"
    other = bundles.make(tmp_path / "other", version="1.1", key=key)
    mine = bundles.make(tmp_path / "mine", key=key)
    replace(mine.path, other.path, *names)
    refuse(mine, tmp_path / "root")


def test_checker_that_was_not_sealed_never_runs(tmp_path: Path, copy: bundles.Made) -> None:
    members = bundles.split(copy.path)
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    members[bundles.index(members, "unseal.py")] = bundles.member("unseal.py", evil)
    bundles.join(copy.path, members)
    assert "not the checker that was sealed" in refuse(copy, tmp_path / "root")
    assert not (tmp_path / "ran").exists()


@pytest.mark.timeout(600)  # 200 of them at night
def test_flips_anywhere_are_refused(
    tmp_path: Path, copy: bundles.Made, rng: random.Random, request: pytest.FixtureRequest
) -> None:
    data = bytearray(copy.path.read_bytes())
    start, size = unseal.members(copy.path)["MANIFEST.sig"]
    many = request.config.option.nightly
    places = [rng.randrange(start, start + size) for _ in range(size if many else 6)]
    places += [rng.randrange(len(data)) for _ in range(200 if many else 14)]
    for place in places:
        bit = 1 << rng.randrange(8)
        data[place] ^= bit
        copy.path.write_bytes(data)
        assert refuse(copy, tmp_path / "root"), place
        data[place] ^= bit


def test_member_names_reach_the_operator(tmp_path: Path, copy: bundles.Made) -> None:
    members = bundles.split(copy.path)
    members.append(bundles.member("../../etc/cron.d/evil", b"x"))
    bundles.join(copy.path, members)
    assert "../../etc/cron.d/evil: extra" in refuse(copy, tmp_path / "root")


def test_manifest_without_end_is_cut_short(tmp_path: Path, copy: bundles.Made) -> None:
    members = bundles.split(copy.path)
    header = unseal.header("MANIFEST.json", 300 << 20, 0o644, bundles.CREATED)
    with open(copy.path, "wb") as file:
        file.write(b"".join(members[0]) + header)
        file.truncate(512 + len(members[0][1]) + 512 + (300 << 20))
        file.seek(0, os.SEEK_END)
        file.write(b"".join(head + content for head, content in members[2:]) + bytes(10240))
    start = time.monotonic()
    refuse(copy, tmp_path / "root")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("openssl", "openssl not found"),
        ("tar", "tar not found"),
        ("python3", "no Python 3.10 to 3.14"),
    ],
)
def test_missing_tool_is_named(tmp_path: Path, made: bundles.Made, missing: str, said: str) -> None:
    for name in (
        "sh",
        "openssl",
        "tar",
        "mktemp",
        "head",
        "sed",
        "tr",
        "cut",
        "rm",
        "grep",
        "cat",
        "python3",
    ):
        place = shutil.which(name)
        if place and name != missing:
            (tmp_path / name).symlink_to(place)
    done = boot(made, "--check", PATH=str(tmp_path), shell=f"{tmp_path}/sh")
    assert done.returncode == 3, done.stderr
    assert said in done.stderr
    assert "hint:" in done.stderr


def test_expired_and_older_bundles_need_a_word(tmp_path: Path) -> None:
    key, root = tmp_path / "sign.key", tmp_path / "root"
    old = bundles.make(tmp_path / "old", created=1_500_000_000, expires=1_600_000_000, key=key)
    new = bundles.make(tmp_path / "new", version="2.0", key=key)
    assert boot(old, "--root", str(root)).returncode == 5
    assert boot(new, "--root", str(root)).returncode == 0
    assert boot(old, "--root", str(root), "--accept-expired").returncode == 5
    done = boot(old, "--root", str(root), "--accept-expired", "--accept-rollback")
    assert done.returncode == 0, done.stderr
    assert "warning: the bundle expired" in done.stderr
    assert "warning: the bundle 1.0 is older than 2.0" in done.stderr
    assert os.readlink(root / "current") == "releases/1.0"


def test_killed_bootstrap_is_finished_by_the_next(
    tmp_path: Path, made: bundles.Made, rng: random.Random
) -> None:
    root = tmp_path / "root"
    script = tmp_path / "bootstrap.sh"
    script.write_bytes((bundles.TOP / "scripts/bootstrap.sh").read_bytes())
    command = [
        "sh",
        str(script),
        str(made.path),
        "--fingerprint",
        made.fingerprint,
        "--root",
        str(root),
    ]
    for _ in range(6):
        shutil.rmtree(root, ignore_errors=True)
        child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 0.6))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(10)
        if (root / "current").exists():
            assert (root / "current" / "release.json").is_file()
        again = boot(made, "--root", str(root))
        for _ in range(20):  # on a loaded machine a killed process may hold its lock for a moment
            if again.returncode != 7:
                break
            time.sleep(0.5)
            again = boot(made, "--root", str(root))
        assert again.returncode == 0
        assert sorted(path.name for path in (root / "releases").iterdir()) == [
            "1.0",
            "installed.json",
            "trusted.json",
        ]


def test_commands_of_the_trust_sheet_print_what_it_says(tmp_path: Path, copy: bundles.Made) -> None:
    sheet = next(bundles.make(tmp_path / "new").path.parent.glob("*.trust.txt"))
    lines = [
        line.strip() for line in sheet.read_text("utf-8").splitlines() if line.startswith("    ")
    ]
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if b.startswith("= ")]
    assert len(pairs) == 4
    for command, answer in pairs:
        before = [line for line in lines if line.startswith("tar ")]
        shell = " && ".join([*before[1:], command])
        done = subprocess.run(
            ["sh", "-c", shell],
            cwd=sheet.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip().endswith(answer[2:]), command


# ---- with an engine ----


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Three little images, and the bundle that carries them."""

    engine: Engine
    images: tuple[Image, ...]
    cache: Path
    bundle: Path
    manifest: manifest.Manifest


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crossing]:
    folder, engine = tmp_path_factory.mktemp("crossing"), Engine()
    prefix = f"seal-test-{os.getpid()}"
    api = engine.api.api
    api.import_image_from_data(
        bundles.tar_of({"base": random.Random(prefix).randbytes(4_000_000)}).getvalue(),
        repository=f"{prefix}/base",
        tag="1",
    )
    images = []
    for name in ("one", "two", "three"):
        recipe = f"FROM {prefix}/base:1\nCOPY x /{name}\n".encode()
        files = {"Dockerfile": recipe, "x": random.Random(prefix + name).randbytes(2_000_000)}
        events = list(
            api.build(
                fileobj=bundles.tar_of(files),
                custom_context=True,
                rm=True,
                forcerm=True,
                tag=f"{prefix}/{name}:1",
                decode=True,
            )
        )
        assert not [event for event in events if "error" in event]
        images.append(Image(name=name, reference=f"{prefix}/{name}:1", id="", size=0, layers=()))
    api.remove_image(f"{prefix}/base:1")
    sealed = seal.write_bundle(
        out=folder / "dist",
        top=bundles.tree(folder / "tree"),
        version="1.0",
        arch=bundles.unseal_arch(),
        created=bundles.CREATED,
        images=packing.export_blobs(images, engine, folder / "cache", level=3),
        wheels={},
        key=seal.load_key(folder / "sign.key", make=True),
    )
    yield Crossing(
        engine=engine,
        images=tuple(images),
        cache=folder / "cache",
        bundle=sealed.path,
        manifest=manifest.read(sealed.path),
    )
    for reference in store.references(engine):
        if reference.startswith(f"{prefix}/"):
            api.remove_image(reference, force=True)


def forget(crossing: Crossing, *names: str) -> None:
    """Empty the engine of the images that were carried."""
    for image in crossing.images:
        if not names or image.name in names:
            with contextlib.suppress(BundleError):
                crossing.engine.api.api.remove_image(image.reference, force=True)


def take(crossing: Crossing) -> dict[str, str]:
    rows = intake.import_images(crossing.bundle, crossing.manifest, crossing.engine)
    assert all(intake.is_right(crossing.engine, image) for image in crossing.manifest.images)
    assert not [
        name for name in store.references(crossing.engine) if intake.LEFT_OVER.fullmatch(name)
    ]
    return {row.name: row.how for row in rows}


def test_images_cross_and_are_what_they_were(crossing: Crossing) -> None:
    before = {
        image.name: store.inspect(crossing.engine, image.reference) for image in crossing.images
    }
    forget(crossing)
    assert take(crossing) == {"one": "pulled", "two": "pulled", "three": "pulled"}
    for image in crossing.images:
        facts, was = store.inspect(crossing.engine, image.reference), before[image.name]
        assert facts is not None
        assert was is not None
        assert facts["RootFS"]["Layers"] == was["RootFS"]["Layers"]
        assert facts["Config"]["Cmd"] == was["Config"]["Cmd"]


def test_what_is_there_is_not_sent_again(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(crossing)
    forget(crossing, "two")
    assert take(crossing) == {"one": "present", "two": "pulled", "three": "present"}
    monkeypatch.setattr(intake, "serve", None)
    assert set(take(crossing).values()) == {"present"}


def test_name_that_means_another_image_is_put_right(crossing: Crossing) -> None:
    take(crossing)
    one, two = crossing.images[0], crossing.images[1]
    store.tag(crossing.engine, one.reference, two.reference)
    assert take(crossing)["two"] == "pulled"


def test_second_export_asks_the_engine_for_nothing(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(crossing)
    monkeypatch.setattr(store, "save", None)
    again = packing.export_blobs(crossing.images, crossing.engine, crossing.cache, level=3)
    assert [image.image for image in again] == list(crossing.manifest.images)


def test_frozen_blobs_are_not_compressed_again(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(crossing)
    cache = blobs.Cache(root=crossing.cache, level=3)
    for note in (crossing.cache / "configs").iterdir():
        note.unlink()  # as after a rebuild that changed the configuration only
    monkeypatch.setattr(packing, "_keep_layer", None)
    packing.export_blobs(crossing.images, crossing.engine, crossing.cache, level=3)
    assert all(cache.layer(layer) for image in crossing.manifest.images for layer in image.diff_ids)


def test_same_layers_give_the_same_blobs_in_another_cache(
    crossing: Crossing, tmp_path: Path
) -> None:
    take(crossing)
    again = packing.export_blobs(crossing.images, crossing.engine, tmp_path, level=3)
    assert [image.image for image in again] == list(crossing.manifest.images)


def test_layers_in_the_one_form_cross_under_the_name_they_run_by(
    crossing: Crossing, tmp_path: Path
) -> None:
    """As the product's own images do: other digests than the engine's, and both caches of the same image agree."""
    take(crossing)
    options: dict[str, Any] = {"epoch": 1_700_000_000}
    options["names"] = {image.name: f"{image.reference}-sealed" for image in crossing.images}
    packed = packing.export_blobs(crossing.images, crossing.engine, tmp_path / "a", 3, **options)
    again = packing.export_blobs(crossing.images, crossing.engine, tmp_path / "b", 3, **options)
    assert [image.image for image in packed] == [image.image for image in again]
    plain = {layer for image in crossing.manifest.images for layer in image.diff_ids}
    assert plain.isdisjoint(layer for image in packed for layer in image.image.diff_ids)
    sealed = seal.write_bundle(
        out=tmp_path,
        top=bundles.tree(tmp_path / "tree"),
        version="1.0",
        arch=bundles.unseal_arch(),
        created=bundles.CREATED,
        images=packed,
        wheels={},
        key=seal.load_key(tmp_path / "sign.key", make=True),
    )
    carried = manifest.read(sealed.path)
    rows = intake.import_images(sealed.path, carried, crossing.engine)
    assert {row.how for row in rows} == {"pulled"}
    for image in carried.images:
        assert intake.is_right(crossing.engine, image)
        crossing.engine.api.api.remove_image(image.reference, force=True)


def test_engine_that_cannot_reach_the_door_gets_an_archive(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def behind_a_wall(bundle: Path, _: object) -> Iterator[door.Shelf]:
        yield door.Shelf(file=bundle, blobs={}, images={}, address="127.0.0.1:9")

    monkeypatch.setattr(intake, "serve", behind_a_wall)
    forget(crossing)
    assert set(take(crossing).values()) == {"loaded"}


def test_bytes_that_changed_after_the_check_do_not_get_in(
    crossing: Crossing, tmp_path: Path
) -> None:
    take(crossing)
    forget(crossing)
    damaged = Path(shutil.copy(crossing.bundle, tmp_path / "damaged.tar"))
    layer = crossing.manifest.images[1].layers[-1]
    with open(damaged, "r+b") as file:
        file.seek(door.places(damaged)[layer][0] + 1000)
        file.write(b"damage")
    with pytest.raises(BundleError, match="two"):
        intake.import_images(damaged, crossing.manifest, crossing.engine)
    assert store.inspect(crossing.engine, crossing.images[1].reference) is None
    assert take(crossing)["two"] == "pulled"


def test_absent_image_cannot_be_sealed(crossing: Crossing, tmp_path: Path) -> None:
    absent = Image(name="absent", reference="seal-test/absent:1", id="", size=0, layers=())
    with pytest.raises(PreconditionError, match="has no image seal-test/absent:1"):
        packing.export_blobs([absent], crossing.engine, tmp_path)


def test_compressor_must_be_there(
    crossing: Crossing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(crossing)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PreconditionError, match="zstd not found"):
        packing.export_blobs(crossing.images, crossing.engine, tmp_path)
