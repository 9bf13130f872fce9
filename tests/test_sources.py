"""Go modules out of a proxy into the store, packages' own words, and the companion file with the sources."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from bundle import facts, modules, sources
from bundle.components import Facts
from bundle.errors import CommandError, IntegrityError, PreconditionError
from bundle.facts import Shelf
from bundle.modules import Store, Wanted
from tests import bundles

GO_MOD = b"module example.com/Tool\n"


def module_zip(path: str, version: str, **files: str) -> bytes:
    """A module as a proxy has it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in {"go.mod": GO_MOD.decode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(f"{path}@{version}/{name}"), text)
    return out.getvalue()


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    folder = tmp_path / "proxy" / "example.com" / "!tool" / "@v"
    folder.mkdir(parents=True)
    data = module_zip(
        "example.com/Tool",
        "v1.0.0",
        LICENSE="Permission to use, copy, modify, and/or distribute this software for any purpose",
    )
    (folder / "v1.0.0.zip").write_bytes(data)
    (folder / "v1.0.0.mod").write_bytes(GO_MOD)
    return tmp_path / "proxy"


@pytest.fixture
def wanted(proxy: Path) -> tuple[Wanted, ...]:
    folder = proxy / "example.com" / "!tool" / "@v"
    sums = {kind: modules.file_sum(folder / f"v1.0.0.{kind}", kind) for kind in ("zip", "mod")}
    key = ("example.com/Tool", "v1.0.0")
    return modules.locked({key: sums["zip"]}, {key: sums["mod"]})


def authorities() -> Path:
    """Certificates of somebody, for a context that is never used."""
    import certifi

    return Path(certifi.where())


def fetch(proxy: Path, wanted: tuple[Wanted, ...], root: Path, setting: str = "") -> Store:
    store = Store(root=root)
    modules.fetch(wanted, store, setting or f"file://{proxy}", authorities)
    return store


def test_sum_is_gos_own() -> None:
    """Known from a published go.sum: golang.org/x/xerrors v0.0.0-20191204190536-9bdfabe68543/go.mod."""
    data = b"module golang.org/x/xerrors\n\ngo 1.11\n"
    digest = hashlib.sha256(data).digest()
    assert modules.sum_of([("go.mod", digest)]) == "h1:I/5z698sn9Ka8TeJc9MKroUUfqBBauWjQqLJ2OPfmY0="


def test_modules_come_by_file_proxy_and_are_proven(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    store = fetch(proxy, wanted, tmp_path / "store")
    for item in wanted:
        assert store.proven(item) == hashlib.sha256(store.file(item).read_bytes()).hexdigest()
    fetch(tmp_path / "gone", wanted, tmp_path / "store")  # nothing is asked again


def test_next_proxy_is_asked_and_direct_is_left_out(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    store = fetch(proxy, wanted, tmp_path / "s", f"file://{tmp_path}/gone|file://{proxy},direct")
    assert all(store.proven(item) for item in wanted)


@pytest.mark.parametrize("setting", ["direct", "off", " , "])
def test_no_module_proxy_is_said(setting: str) -> None:
    with pytest.raises(PreconditionError, match="GOPROXY"):
        modules.proxies(setting)


def test_missing_module_names_it_and_hides_logins(
    tmp_path: Path, wanted: tuple[Wanted, ...]
) -> None:
    with pytest.raises(CommandError, match=r"fetching example\.com/!tool/@v/v1\.0\.0") as caught:
        fetch(tmp_path, wanted, tmp_path / "store", f"file://kim:secret@{tmp_path}/gone")
    assert "secret" not in str(caught.value)


def test_other_module_is_refused_and_not_kept(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    file = proxy / "example.com" / "!tool" / "@v" / "v1.0.0.zip"
    file.write_bytes(module_zip("example.com/Tool", "v1.0.0", evil="x"))
    with pytest.raises(IntegrityError, match="not the locked module"):
        fetch(proxy, wanted, tmp_path / "store")
    store = Store(root=tmp_path / "store")
    assert not [item for item in wanted if item.kind == "zip" and store.proven(item)]
    assert not list((tmp_path / "store").rglob("*.partial"))


def recipe(folder: Path) -> Path:
    """The build files of a program."""
    folder.mkdir()
    (folder / "go.mod").write_text("module x\n\ngo 1.26.0\n\ntoolchain go1.26.11\n")
    (folder / "build").write_text("#!/bin/sh\nexport GOPATH=/go\ngo build\n")
    return folder


def companion(
    tmp_path: Path, store: Store, wanted: tuple[Wanted, ...], out: str
) -> sources.Companion:
    folder = tmp_path / "recipe"
    found = sources.parts(
        folder if folder.exists() else recipe(folder), wanted, store, "1.0", "amd64"
    )
    return sources.write(tmp_path / out, tmp_path / "notes", "x-sources", found, 1_790_000_000)


def test_companion_is_the_same_wherever_it_is_written_and_whole(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    store = fetch(proxy, wanted, tmp_path / "store")
    one, other = (companion(tmp_path, store, wanted, name) for name in ("a", "b"))
    assert one.sha256 == other.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest()
    assert one.path.read_bytes() == other.path.read_bytes()
    with tarfile.open(one.path) as archive:
        names = {member.name.removeprefix("x-sources/"): member for member in archive}
        readme = archive.extractfile(names["README.md"])
        assert readme
        assert "needs Go 1.26.11" in readme.read().decode()
    base = "proxy/example.com/!tool/@v/v1.0.0"
    assert set(names) == {
        "README.md",
        "rebuild.sh",
        "minio/go.mod",
        "minio/build",
        f"{base}.zip",
        f"{base}.mod",
        f"{base}.info",
    }
    assert {member.mtime for member in names.values()} == {1_790_000_000}
    assert names["rebuild.sh"].mode == 0o755


def test_companion_that_is_there_is_not_written_again_unless_it_changed(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    store = fetch(proxy, wanted, tmp_path / "store")
    one = companion(tmp_path, store, wanted, "a")
    before = one.path.stat().st_ino
    assert companion(tmp_path, store, wanted, "a") == one
    assert one.path.stat().st_ino == before
    one.path.write_bytes(one.path.read_bytes()[:-1] + b"x")
    assert companion(tmp_path, store, wanted, "a") == one
    assert hashlib.sha256(one.path.read_bytes()).hexdigest() == one.sha256


def test_damaged_module_in_the_cache_stops_the_companion(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    store = fetch(proxy, wanted, tmp_path / "store")
    file = next(store.file(item) for item in wanted if item.kind == "zip")
    data = bytearray(file.read_bytes())
    data[50] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match="not what it was"):
        companion(tmp_path, store, wanted, "a")
    assert not list((tmp_path / "a").iterdir())


def test_wheel_and_module_say_their_licence_and_keep_their_texts(
    tmp_path: Path, proxy: Path, wanted: tuple[Wanted, ...]
) -> None:
    shelf = Shelf(root=tmp_path / "shelf")
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        head = "Name: demo\nVersion: 1.0\nLicense-Expression: MIT\n\nLicense: not this one\n"
        archive.writestr("demo-1.0.dist-info/METADATA", head)
        archive.writestr("demo-1.0.dist-info/licenses/LICENSE", "terms")
        archive.writestr("demo/_vendor/NOTICE", "a notice")
    said = facts.of_wheel(shelf, path)
    assert said.licence == "MIT"
    assert [text.name for text in said.texts] == [
        "demo-1.0.dist-info/licenses/LICENSE",
        "demo/_vendor/NOTICE",
    ]
    assert [shelf.read(text.sha256) for text in said.texts] == [b"terms", b"a notice"]
    store = fetch(proxy, wanted, tmp_path / "store")
    file = next(store.file(item) for item in wanted if item.kind == "zip")
    assert facts.of_module(shelf, file, "example.com/Tool", "v1.0.0").licence == "ISC"


def test_facts_are_learned_once_and_again_when_a_text_is_gone(tmp_path: Path) -> None:
    shelf = Shelf(root=tmp_path / "shelf")
    path, calls = bundles.wheel(tmp_path), []

    def read() -> Facts:
        calls.append(1)
        text = shelf.keep("LICENSE", b"terms")
        return Facts(licence="MIT", texts=(text,))

    one = shelf.learn("0" * 64, read)
    assert shelf.learn("0" * 64, read) == one
    assert len(calls) == 1
    shelf.text(one.texts[0].sha256).unlink()
    assert shelf.learn("0" * 64, read) == one
    assert len(calls) == 2
    shelf.text(one.texts[0].sha256).write_bytes(b"other")
    with pytest.raises(IntegrityError):
        shelf.read(one.texts[0].sha256)
    path.write_bytes(b"not a zip")
    with pytest.raises(IntegrityError, match="not a wheel"):
        facts.of_wheel(shelf, path)


def test_what_is_made_is_made_once_and_again_when_it_was_damaged(tmp_path: Path) -> None:
    shelf, calls = Shelf(root=tmp_path), []

    def make() -> bytes:
        calls.append(1)
        return b"made"

    assert shelf.made("x", make) == shelf.made("x", make) == b"made"
    assert len(calls) == 1
    (tmp_path / "made" / "x").write_bytes(b"other")
    assert shelf.made("x", make) == b"made"
    assert len(calls) == 2
