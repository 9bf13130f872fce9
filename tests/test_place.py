"""The site's files on the closed side: placed from the bundle, checked, kept when equal, taken when gone."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import delta, install, place, site, unseal
from bundle.delta import Inventory
from bundle.errors import ConfigError, IntegrityError, PreconditionError
from bundle.host import Host
from bundle.manifest import Added, Need, SealedExtras, dump
from bundle.model import ExtraService
from tests import bundles
from tests.test_extras import sound_wheel


def make(folder: Path, **files: bytes) -> bundles.Made:
    """A bundle with the site's files (`a__b` is a/b under `cache`) and a wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    members = {}
    for name, data in files.items():
        path = folder / name
        path.write_bytes(data)
        members[f"extras/files/cache/{name.replace('__', '/')}"] = path
    wheel = sound_wheel(folder)
    members[f"extras/wheels/{wheel.name}"] = wheel
    sealed = SealedExtras(files=("cache",), wheels=(wheel.name,))
    return bundles.make(folder / "made", added=Added(sealed=sealed, members=members))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A root with nothing in it."""
    (tmp_path / "root").mkdir()
    return Host(root=tmp_path / "root")


def tree(host: Host) -> dict[str, str]:
    """Every file under extras with its digest."""
    paths = (path for path in host.path("extras").rglob("*") if path.is_file())
    return {str(path.relative_to(host.root)): site.digest_of(path) for path in paths}


def put(host: Host, made: bundles.Made) -> place.Placed:
    """Place what `made` has."""
    return place.put(host, made.path, made.manifest)


def test_files_are_placed_once_and_a_wheel_has_its_index(tmp_path: Path, host: Host) -> None:
    made = make(tmp_path / "one", a=b"1" * 3_000_000, b__c=b"", 한국=b"2")
    assert place.bytes_missing(host, made.manifest) > 3_000_000
    assert put(host, made) == place.Placed(written=4, kept=0, removed=0)
    found = tree(host)
    for path, part in site.extra_files(made.manifest).items():
        assert found.pop(path) == part.sha256
    assert set(found) == {"extras/placed.json", "extras/wheels/index.html"}
    index = host.path("extras/wheels/index.html").read_text("utf-8")
    assert '<a href="demo-1.0-py3-none-any.whl#sha256=' in index
    assert place.bytes_missing(host, made.manifest) == 0
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in host.path("extras").rglob("*")}
    assert put(host, made) == place.Placed(written=0, kept=4, removed=0)
    assert before == {
        p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in host.path("extras").rglob("*")
    }


def test_what_was_changed_is_mended(tmp_path: Path, host: Host) -> None:
    made = make(tmp_path / "one", a=b"1", b__c=b"2", d=b"3")
    put(host, made)
    right = tree(host)
    host.path("extras/files/cache/a").write_bytes(b"x")
    host.path("extras/files/cache/b/c").unlink()
    host.path("extras/files/cache/b/c").symlink_to("/etc/passwd")
    host.path("extras/files/cache/d").unlink()
    host.path("extras/files/cache/d").mkdir()
    host.path("extras/files/cache/d/inner").write_text("")
    assert put(host, made).written == 3
    assert tree(host) == right
    assert Path("/etc/passwd").exists()


def test_folder_that_became_a_link_is_not_followed(tmp_path: Path, host: Host) -> None:
    made = make(tmp_path / "one", b__c=b"2")
    outside = tmp_path / "outside"
    outside.mkdir()
    host.path("extras/files/cache").mkdir(parents=True)
    host.path("extras/files/cache/b").symlink_to(outside)
    put(host, made)
    assert not list(outside.iterdir())
    assert host.path("extras/files/cache/b/c").read_bytes() == b"2"


def test_mode_follows_the_bundle(tmp_path: Path, host: Host) -> None:
    (tmp_path / "one").mkdir()
    made = make(tmp_path / "one", run=b"#!")
    put(host, made)
    host.path("extras/files/cache/run").chmod(0o777)
    assert put(host, made).written == 1
    assert host.path("extras/files/cache/run").stat().st_mode & 0o777 == 0o644


def test_newer_bundle_takes_only_what_we_placed(tmp_path: Path, host: Host) -> None:
    put(host, make(tmp_path / "one", a=b"1", b__c=b"2", b__d=b"3"))
    host.path("extras/files/cache/b/own").write_text("of the operator")
    newer = make(tmp_path / "two", a=b"1")
    assert put(host, newer) == place.Placed(written=0, kept=2, removed=2)
    assert sorted(path.name for path in host.path("extras/files/cache").rglob("*")) == [
        "a",
        "b",
        "own",
    ]
    none = bundles.make(tmp_path / "three")
    assert put(host, none).removed == 2
    assert not host.path("extras/wheels").exists()
    assert host.path("extras/files/cache/b/own").exists()
    assert site.placed(host) == {}


def test_clear_takes_what_we_placed(tmp_path: Path, host: Host) -> None:
    assert place.clear(host) == []
    made = make(tmp_path / "one", a=b"1", b__c=b"2")
    put(host, made)
    assert place.clear(host) == [str(host.path("extras"))]
    assert not host.path("extras").exists()
    put(host, made)
    host.path("extras/mine").write_text("")
    assert place.clear(host) == []
    assert [path.name for path in host.path("extras").iterdir()] == ["mine"]


def test_killed_run_is_finished_by_the_next(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "one", a=b"1", b=b"2", c=b"3")
    real, count = os.fsync, iter(range(100))

    def dying(handle: int) -> None:
        real(handle)
        if next(count) == 2:  # the note, the first file, the second
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dying)
    with pytest.raises(KeyboardInterrupt):
        put(host, made)
    monkeypatch.setattr(os, "fsync", real)
    assert not host.path("extras", place.STAGING).exists()
    assert len(site.placed(host)) == 4  # all that might be there is known
    none = bundles.make(tmp_path / "three")
    assert put(host, none).removed == 4
    assert not host.path("extras/files").exists()


def test_other_bytes_in_the_bundle_are_refused(tmp_path: Path, host: Host) -> None:
    made = make(tmp_path / "one", a=b"A" * 5000)
    data = made.path.read_bytes()
    made.path.write_bytes(data.replace(b"A" * 5000, b"A" * 4999 + b"B"))
    with pytest.raises(IntegrityError, match="extras/files/cache/a"):
        put(host, made)
    assert not host.path("extras/files/cache/a").exists()
    assert not host.path("extras", place.STAGING).exists()


def test_delta_needs_what_is_here(tmp_path: Path, host: Host) -> None:
    made = make(tmp_path / "one", a=b"1", b=b"2")
    put(host, made)
    digest = hashlib.sha256(b"2").hexdigest()
    carried = [m for m in made.manifest.members if not m.path.startswith("extras/files/")]
    needs = tuple(
        Need(path=f"extras/files/cache/{name}", size=1, sha256=digest) for name in ("b", "moved")
    )
    thin = replace(made.manifest, members=tuple(carried), needs=needs)
    bundle = bundles.make(tmp_path / "delta").path
    assert place.put(host, bundle, thin) == place.Placed(written=1, kept=2, removed=1)
    assert host.path("extras/files/cache/moved").read_bytes() == b"2"
    lost = replace(thin, needs=(Need(path="extras/files/x", size=1, sha256="0" * 64),))
    with pytest.raises(PreconditionError, match="extras/files/x"):
        place.put(host, bundle, lost)


def test_delta_leaves_the_site_s_files_out_and_gets_the_same_tree(
    tmp_path: Path, host: Host
) -> None:
    put(host, make(tmp_path / "one", a=b"1" * 1_000_000, b__c=b"2"))
    base = Inventory(
        version="1.0",
        arch=bundles.unseal_arch(),
        store="graphdriver",
        files=tuple(sorted(site.placed(host).values())),
        sha256="0" * 64,
    )
    (tmp_path / "two").mkdir()
    members = {
        "extras/files/cache/a": tmp_path / "one" / "a",
        "extras/files/cache/new": tmp_path / "n",
    }
    (tmp_path / "n").write_bytes(b"3")
    added = Added(sealed=SealedExtras(files=("cache",)), members=members)
    made = bundles.make(tmp_path / "two" / "made", added=added, base=base)
    assert [need.path for need in made.manifest.needs] == ["extras/files/cache/a"]
    assert delta.gone_files(made.manifest, base) == []
    assert delta.gone_files(made.manifest, replace(base, files=())) == ["extras/files/cache/a"]
    unseal.check(made.path, made.digest)
    assert put(host, made) == place.Placed(written=1, kept=1, removed=2)
    names = {path.name for path in host.path("extras/files/cache").rglob("*") if path.is_file()}
    assert names == {"a", "new"}


def test_services_are_started_after_those_that_they_need() -> None:
    def service(name: str, *needs: str) -> ExtraService:
        return ExtraService(name=name, image="x", user=1000, needs=needs)

    extras = (service("c", "b", "a"), service("b", "a"), service("a"), service("d"))
    assert [[e.name for e in wave] for wave in install.waves(extras)] == [["a", "d"], ["b"], ["c"]]
    assert install.waves(()) == []


def test_full_disk_is_said_and_the_next_run_finishes(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "one", a=b"1" * 100_000, b=b"2")
    real, count = os.fsync, iter(range(100))

    def full(handle: int) -> None:
        if next(count) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PreconditionError, match="No space left") as caught:
        put(host, made)
    assert caught.value.problems[0].hint
    monkeypatch.setattr(os, "fsync", real)
    assert put(host, made) == place.Placed(written=2, kept=1, removed=0)


def test_rest_of_a_killed_run_goes(tmp_path: Path, host: Host) -> None:
    made = make(tmp_path / "one", a=b"1")
    put(host, made)
    host.path("extras", place.STAGING).write_bytes(b"half a file")
    assert put(host, made).written == 0
    assert not host.path("extras", place.STAGING).exists()


def test_rules_hold_on_the_closed_side_too(tmp_path: Path, host: Host) -> None:
    """The fragment of the release that runs is read again, whoever had it in hands meanwhile."""
    made = make(tmp_path / "one", a=b"1")
    home = host.path("releases", "1.0")
    (home / "extras").mkdir(parents=True)
    sealed = replace(made.manifest, extras=SealedExtras(images=("judge",), files=("cache",)))
    (home / "MANIFEST.json").write_bytes(dump(sealed))
    record = {"bundle": str(made.path), "sha256_manifest": "0" * 64}
    (home / "release.json").write_text(json.dumps(record))
    assert site.read_extras(host, "1.0") == ()
    text = "services: {judge: {image: judge, volumes: ['./files/cache:/c:ro']%s}}"
    (home / "extras" / "compose.yaml").write_text(text % "")
    (judge,) = site.read_extras(host, "1.0")
    assert judge.files == (("files/cache", "/c"),)
    (home / "extras" / "compose.yaml").write_text(text % ", privileged: true")
    with pytest.raises(ConfigError, match=r"compose\.yaml:1: services\.judge\.privileged"):
        site.read_extras(host, "1.0")
