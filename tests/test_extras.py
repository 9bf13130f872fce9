"""What a site adds: everything that cannot be sealed is told at once, and what can is sealed from where it lies."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zipfile
from pathlib import Path

import pytest

from bundle import extras, fragment, manifest, seal, unseal
from bundle.config import parse_bundle
from bundle.engine import Engine
from bundle.errors import BundleError, ConfigError, IntegrityError
from bundle.fragment.values import READERS
from bundle.manifest import EXTRAS_COMPOSE, Added
from tests import bundles

FRAGMENT = "services:\n  judge:\n    image: judge\n    volumes: ['./files/cache:/cache:ro']\n"


def sound_wheel(folder: Path, name: str = "demo", *, lie: str = "") -> Path:
    """A wheel whose RECORD is right, but for `lie`: extra, missing, changed, name, undigested."""
    home = f"{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": b"x = 1\n",
        f"{home}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{home}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},{'' if lie == 'undigested' else 'sha256=' + digest},{len(data)}")
    if lie == "missing":
        lines.append("gone.py,sha256=x,1")
    if lie == "extra":
        files["extra.py"] = b""
    if lie == "changed":
        files[f"{name}/__init__.py"] = b"x = 2\n"
    files[f"{home}/RECORD"] = ("\n".join([*lines, f"{home}/RECORD,,"]) + "\n").encode()
    made = folder / f"{'other' if lie == 'name' else name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as file:
        for inner, data in files.items():
            file.writestr(zipfile.ZipInfo(inner), data)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a model cache, a wheel and a fragment without an image."""
    folder = tmp_path / "site"
    (folder / "cache" / "snapshots" / "한국").mkdir(parents=True)
    (folder / "cache" / "config.json").write_text("{}")
    (folder / "cache" / "snapshots" / "한국" / "model.bin").write_bytes(os.urandom(100_000))
    (folder / "cache" / "run").write_text("#!/bin/sh\n")
    (folder / "cache" / "run").chmod(0o755)
    (folder / "wheels").mkdir()
    sound_wheel(folder / "wheels")
    return folder


def gather(folder: Path, text: str) -> Added:
    """What the bundle.toml `text` in `folder` adds, images aside."""
    images, added = extras.gather(parse_bundle(text), folder, Engine(), arch="amd64", version="1.0")
    assert images == ()
    return added


def refused(folder: Path, text: str) -> str:
    """Why it adds nothing."""
    with pytest.raises(BundleError) as caught:
        gather(folder, text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_files_and_wheels_are_members(site: Path) -> None:
    added = gather(
        site, 'extras = {files = ["cache", "one=cache/config.json"], wheels = ["wheels"]}'
    )
    assert set(added.members) == {
        "extras/files/cache/config.json",
        "extras/files/cache/run",
        "extras/files/cache/snapshots/한국/model.bin",
        "extras/files/one/config.json",
        "extras/wheels/demo-1.0-py3-none-any.whl",
    }
    assert added.sealed.files == ("cache", "one")
    assert added.sealed.wheels == ("demo-1.0-py3-none-any.whl",)


def test_nothing_is_added_by_default(tmp_path: Path) -> None:
    assert gather(tmp_path, "") == Added()


def test_bundle_with_extras_passes_its_checker(tmp_path: Path, site: Path) -> None:
    (site / "f.yaml").write_text("services: {}")
    added = gather(site, 'extras = {files = ["cache"], wheels = ["wheels"]}')
    members = {**added.members, EXTRAS_COMPOSE: site / "f.yaml"}
    made = bundles.make(tmp_path / "made", added=Added(sealed=added.sealed, members=members))
    unseal.check(made.path, made.digest)
    assert made.manifest.extras == added.sealed
    found = {member.path: member for member in made.manifest.members}
    assert found["extras/files/cache/run"].mode == 0o755
    model = found["extras/files/cache/snapshots/한국/model.bin"]
    assert model.sha256 == extras.hash_of(added.members[model.path])
    assert manifest.parse(manifest.dump(made.manifest)) == made.manifest
    sizes = seal.size_table(made.manifest)
    assert sizes["extras: files, wheels"] > 100_000


def test_file_that_changes_while_it_is_sealed_is_named(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = gather(site, 'extras.files = ["cache"]')
    whole = seal._write

    def meddle(*given: object) -> seal.Sealed:
        (site / "cache" / "config.json").write_text("[]")
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(seal, "_write", meddle)
    with pytest.raises(IntegrityError, match=r"config\.json: changed while it was sealed"):
        bundles.make(tmp_path / "made", added=added)
    assert not list((tmp_path / "made" / "dist").iterdir())


def test_all_that_cannot_be_sealed_is_told_at_once(site: Path) -> None:
    (site / "cache" / "link").symlink_to("config.json")
    (site / "cache" / "snapshots" / "out").symlink_to("/etc")
    (site / "cache" / "a\\b").write_text("")
    (site / "cache" / "c\nd").write_text("")
    (site / "cache" / ("x" * 120)).write_text("")
    os.mkfifo(site / "cache" / "pipe")
    (site / "empty").mkdir()
    (site / "f.yaml").write_text("services: {judge: {image: gone, privileged: true}}")
    told = refused(
        site,
        '[extras]\nfiles = ["cache", "gone", "empty"]\n'
        'wheels = ["cache/config.json", "nowhere", "empty"]\ncompose = "f.yaml"\nlimit_mb = 1',
    )
    for wanted in (
        "cache/link: is a symbolic link",
        "cache/snapshots/out: is a symbolic link",
        "has a control character or a backslash",
        "cache/pipe: is no plain file",
        f"extras/files/cache/{'x' * 120}' or its size",
        "extras.files: gone: ",
        "extras.files: empty: ",
        "config.json: is not named as a wheel",
        "nowhere: is not named as a wheel",
        "holds no wheel",
        "f.yaml:1: services.judge.image: 'gone' is none",
        "f.yaml:1: services.judge.privileged: gives the container rights",
    ):
        assert wanted in told, wanted
    assert told.count("has a control character or a backslash") == 2


def test_size_has_a_limit(site: Path) -> None:
    (site / "big").write_bytes(b"")
    os.truncate(site / "big", 2_000_000)
    assert "the limit is 1" in refused(site, '[extras]\nfiles = ["big"]\nlimit_mb = 1')
    os.truncate(site / "big", 9 << 30)
    assert "at most 8 GiB" in refused(site, 'extras.files = ["big"]')


def test_count_has_a_limit(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "MAX_FILES", 2)
    assert "more than 2 files" in refused(site, 'extras.files = ["cache"]')


def test_fragment_is_read_with_what_travels(site: Path) -> None:
    (site / "f.yaml").write_text(FRAGMENT)
    told = refused(site, 'extras.compose = "f.yaml"')
    assert "'judge' is none of extras.images" in told
    assert "'cache' is none of extras.files" in told
    assert "No such file" in refused(site, 'extras.compose = "gone.yaml"')


def test_reviewed_finds_are_read_before_anything_is_sealed(site: Path) -> None:
    (site / "ok.toml").write_text(
        f'[[allowed]]\nrule = "private key"\npath = "x"\nsha256 = "{"0" * 64}"\nreason = "a test key"'
    )
    assert gather(site, 'extras.allowed = "ok.toml"').reviewed == site / "ok.toml"
    (site / "bad.toml").write_text('[[allowed]]\nrule = "private key"')
    assert "an entry is not whole" in refused(site, 'extras.allowed = "bad.toml"')
    assert "gone.toml" in refused(site, 'extras.allowed = "gone.toml"')


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("extra", "RECORD and content differ: extra.py"),
        ("missing", "RECORD and content differ: gone.py"),
        ("changed", "demo/__init__.py is not what RECORD says"),
        ("undigested", "has no sound digest"),
        ("name", "its name is not that of demo-1.0.dist-info"),
    ],
)
def test_wheel_is_looked_into(tmp_path: Path, lie: str, message: str) -> None:
    assert extras.wheel_problem(sound_wheel(tmp_path)) == ""
    assert message in extras.wheel_problem(sound_wheel(tmp_path, lie=lie))


def test_wheel_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    path.write_bytes(b"no")
    assert "is no wheel" in extras.wheel_problem(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("demo.py", "")
    assert "its name is not that of" in extras.wheel_problem(path)


def test_two_wheels_of_one_name_must_be_one(site: Path) -> None:
    (site / "more").mkdir()
    sound_wheel(site / "more")
    gather(site, 'extras.wheels = ["wheels", "more"]')
    with zipfile.ZipFile(site / "more" / "demo-1.0-py3-none-any.whl", "a") as file:
        file.comment = b"other"
    assert "another demo-1.0" in refused(site, 'extras.wheels = ["wheels", "more"]')


def test_manifest_with_odd_extras_is_refused(tmp_path: Path) -> None:
    made = bundles.make(tmp_path / "made")
    raw = manifest.dump(made.manifest).replace(
        b'"extras": {"images": []', b'"extras": {"images": 1'
    )
    with pytest.raises(IntegrityError, match="wrong form"):
        manifest.parse(raw)
    with pytest.raises(ConfigError):
        parse_bundle("extras.compose = 1")


def test_documented_example_keeps_the_rules() -> None:
    page = (bundles.TOP / "docs" / "extras.md").read_text("utf-8")
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL))
    config = parse_bundle(blocks["toml"].replace("…", "0" * 64))
    names = [
        [entry.label for entry in group] for group in (config.extras_images, config.extras_files)
    ]
    assert names == [["judge", "guard"], ["models", "rules"]]
    (judge,) = fragment.parse(
        blocks["yaml"].encode(), "compose.yaml", images=names[0], files=names[1]
    )
    assert judge.client
    compile(blocks["python"], "judge.py", "exec")
    for key in (*READERS, "image", "volumes"):
        assert f"`{key}" in page or key == "x-tracking", key
