"""The manifest as bytes and as a value."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bundle import manifest, unseal
from bundle.errors import ConfigError, IntegrityError, PreconditionError
from tests import bundles


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bundles.Made:
    return bundles.make(tmp_path_factory.mktemp("made"))


def test_manifest_survives_being_written_and_read(made: bundles.Made) -> None:
    assert manifest.parse(manifest.dump(made.manifest)) == made.manifest


def test_every_member_has_a_line_of_its_own(made: bundles.Made) -> None:
    lines = manifest.dump(made.manifest).decode().splitlines()
    for member in made.manifest.members:
        assert sum(f'"path": "{member.path}"' in line for line in lines) == 1
    assert f'"checker_sha256": "{made.manifest.checker_sha256}",' in lines


def test_size_of_a_blob_is_that_of_its_member(made: bundles.Made) -> None:
    image = made.manifest.images[0]
    assert made.manifest.size_of(image.layers[0]) == 256 * 300


def test_unknown_sizes_count_for_the_layer_that_no_other_image_has(made: bundles.Made) -> None:
    """Older bundles say the sum only; what is counted must rather be too much than too little."""
    image = made.manifest.images[0]
    assert image.unpacked == image.sizes == (256 * 300, 3 * 9999)
    data = json.loads(manifest.dump(made.manifest))
    del data["images"][0]["sizes"]
    read = manifest.parse(json.dumps(data).encode()).images[0]
    assert read.unpacked == (0, 256 * 300 + 3 * 9999)


def test_manifest_is_read_out_of_the_file(made: bundles.Made) -> None:
    assert manifest.read(made.path) == made.manifest


def test_absent_file_is_an_argument_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        manifest.read(tmp_path / "none.tar")


def test_other_file_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(IntegrityError, match=r"bootstrap\.sh"):
        manifest.read(tmp_path / "x.tar")


def change(data: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("product",), "another"),
        (("version",), "../1"),
        (("version",), 7),
        (("counter",), "1"),
        (("counter",), True),
        (("mtime",), -1),
        (("expires",), "tomorrow"),
        (("created",), None),
        (("arch",), None),
        (("members",), []),
        (("members",), None),
        (("images",), {}),
        (("members", 0, "path"), "other.sh"),
        (("members", 1, "path"), "/etc/passwd"),
        (("members", 1, "path"), "a/../b"),
        (("members", 1, "path"), "a//b"),
        (("members", 1, "path"), "a\nb"),
        (("members", 1, "path"), "a\\b"),
        (("members", 1, "path"), "MANIFEST.json"),
        (("members", 1, "path"), "bootstrap.sh"),
        (("members", 1, "path"), "x" * 300),
        (("members", 1, "size"), -1),
        (("members", 1, "size"), 1 << 40),
        (("members", 1, "size"), True),
        (("members", 1, "mode"), 0o644),
        (("members", 1, "mode"), "4755"),
        (("members", 1, "sha256"), "A" * 64),
        (("wheels", "3.11"), ["absent.whl"]),
        (("images", 0, "layers"), 3),
        (("images", 0, "surprise"), 3),
        (("images", 0, "size"), True),
        (("images", 0, "sizes"), 3),
        (("images", 0, "sizes"), [1]),
        (("images", 0, "sizes"), [-1, 86_792]),
        (("images", 0, "sizes"), ["76800", "29997"]),
    ],
)
def test_wrong_form_is_refused(made: bundles.Made, path: tuple[str | int, ...], value: Any) -> None:
    data = json.loads(manifest.dump(made.manifest))
    change(data, path, value)
    with pytest.raises(IntegrityError, match="wrong form"):
        manifest.parse(json.dumps(data).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match="wrong form"):
        manifest.parse(raw)


def test_manifest_beyond_the_limit_is_not_parsed() -> None:
    with pytest.raises(IntegrityError):
        manifest.parse(b" " * (unseal.MAX_MANIFEST + 1))


def release_folder(folder: Path, made: bundles.Made, **record: str) -> Path:
    folder.mkdir()
    (folder / "MANIFEST.json").write_bytes(manifest.dump(made.manifest))
    values = {
        "bundle": str(made.path),
        "sha256_manifest": made.digest,
        "fingerprint": "f",
        **record,
    }
    (folder / "release.json").write_text(json.dumps(values))
    return folder


def test_release_finds_its_bundle(tmp_path: Path, made: bundles.Made) -> None:
    found = manifest.release(release_folder(tmp_path / "1.0", made))
    assert (found.bundle, found.manifest, found.fingerprint) == (made.path, made.manifest, "f")


def test_release_takes_a_bundle_that_moved(tmp_path: Path, made: bundles.Made) -> None:
    home = release_folder(tmp_path / "1.0", made, bundle="/gone.tar")
    with pytest.raises(PreconditionError, match="not there"):
        manifest.release(home)
    assert manifest.release(home, made.path).bundle == made.path


def test_release_refuses_another_bundle(tmp_path: Path, made: bundles.Made) -> None:
    other = bundles.make(tmp_path / "other", version="2.0")
    with pytest.raises(IntegrityError, match="not the bundle that was checked"):
        manifest.release(release_folder(tmp_path / "1.0", made), other.path)


def test_folder_without_a_record_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"bootstrap\.sh"):
        manifest.release(tmp_path)


def test_refusals_keep_their_exit_code_and_every_problem() -> None:
    error = manifest.as_bundle_error(unseal.SealError(5, ["one", "two"], "Do."))
    assert error.exit_code == 5
    assert str(error) == "one\ntwo\n  hint: Do."
    assert manifest.as_bundle_error(unseal.SealError(3, ["x"], "")).exit_code == 3


def test_manifest_is_frozen(made: bundles.Made) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.manifest.version = "2"  # type: ignore[misc]
