"""Locks, keys, sharing and staging of the images, and what every recipe must say."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from bundle import debs, images, lock, wheels
from bundle.builder import Build, command_line
from bundle.config import parse_bundle
from bundle.engine import Engine
from bundle.errors import BundleError, ConfigError, IntegrityError, PreconditionError
from bundle.recipes import (
    Deb,
    Pin,
    common,
    content_key,
    file_digest,
    parse_debs,
    parse_pins,
    read_recipes,
    recipe_keys,
    tree,
)

TOP = Path(__file__).parents[1]
RECIPES = read_recipes(TOP)
PRODUCT = [name for name, recipe in RECIPES.all.items() if recipe.uid]
A, B, C = "a" * 64, "b" * 64, "c" * 64


def pin(name: str, version: str = "1", digest: str = A) -> Pin:
    return Pin(name=name, version=version, digests=(digest,))


def deb(data: bytes, name: str = "tool", version: str = "1:2.0~rc1-3") -> Deb:
    """A locked package whose file has the bytes `data`."""
    digest = hashlib.sha256(data).hexdigest()
    return Deb(name=name, version=version, arch="all", size=len(data), sha256=digest)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small source tree: a base, a parent that shares, two heirs of it and one with the package."""
    files = {
        "images/images.toml": """
            suite = "trixie"
            epoch = 5
            [image.base]
            [image.python]
            parent = "base"
            shares = ["left", "right"]
            [image.left]
            parent = "python"
            wheels = true
            uid = 1
            [image.right]
            parent = "python"
            wheels = true
            uid = 2
            [image.alone]
            parent = "base"
            package = true
            uid = 3
        """,
        "images/base/Dockerfile": "FROM scratch",
        "images/python/Dockerfile": "ARG PARENT",
        "images/left/requirements.lock": f"same==1 \\\n    --hash=sha256:{A}\nmine==1 --hash=sha256:{B}\n",
        "images/right/requirements.lock": f"same==1 --hash=sha256:{A}\nmine==2 --hash=sha256:{C}\n",
        "images/alone/apt.lock": f"tool 1 amd64 10 {A}\n",
        "images/tools/finish": "#!/bin/sh\n",
        "bundle/run.py": "x = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def keys(source: Path, *base: str) -> dict[str, str]:
    return recipe_keys(read_recipes(source), source, base or ("amd64", "debootstrap", ""))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


# locks


def test_package_lock_round_trip() -> None:
    text = f"libc6 2.41-12+deb13u4 amd64 12 {A}\nperl 1:5.40~x all 3 {B}\n"
    found = parse_debs(text)
    assert [item.line for item in found] == text.splitlines()
    assert found[1].file == "perl_1%3a5.40~x_all.deb"


@pytest.mark.parametrize(
    "line", ["tool 1 all", f"tool 1 all x {A}", "tool 1 all 3 " + "A" * 64, f"a b c d 1 {A}"]
)
def test_package_lock_refuses_a_line_of_another_form(line: str) -> None:
    with pytest.raises(BundleError, match=r"apt.lock:2.*lock"):
        parse_debs(f"tool 1 all 3 {A}\n{line}\n", "apt.lock")


def test_wheel_lock_round_trip() -> None:
    text = f"# note\nA_b.C[x,y]==1.0+z \\\n    --hash=sha256:{B} \\\n    --hash=sha256:{A}\n\n"
    (found,) = parse_pins(text)
    assert found == Pin(name="a-b-c", version="1.0+z", digests=(A, B))
    assert parse_pins(found.text) == (found,)


@pytest.mark.parametrize(
    "text", ["tool==1\n", f"tool>=1 --hash=sha256:{A}\n", "-e .\n", f"tool --hash=sha256:{A}\n"]
)
def test_wheel_lock_refuses_what_is_not_locked(text: str) -> None:
    with pytest.raises(BundleError, match="not a locked requirement"):
        parse_pins(text)


def test_locks_here_are_complete() -> None:
    for name in RECIPES.all:
        for package in lock.wanted_packages(RECIPES, name):
            ancestors = lock.chain(RECIPES, name)
            assert package in {d.name for other in ancestors for d in RECIPES.packages(other)}, (
                name,
                package,
            )
        found = [d.name for other in lock.chain(RECIPES, name) for d in RECIPES.packages(other)]
        assert len(found) == len(set(found)), (
            f"{name}: a package is locked twice on the way to the base"
        )
        wanted = RECIPES.folder / name / "requirements.in"
        if wanted.is_file():
            names = {re.split(r"[\[=<>]", line)[0] for line in wanted.read_text().split()}
            assert names <= {p.name for p in RECIPES.lock(name)}


# sharing


def test_common_takes_what_is_equal_everywhere() -> None:
    left = [pin("a"), pin("b"), pin("c", "1")]
    right = [pin("a"), pin("b", digest=B), pin("c", "2"), pin("d")]
    assert common([left, right]) == (pin("a"),)


def test_common_leaves_out_what_another_image_has_in_another_version() -> None:
    both = [pin("a"), pin("b")]
    assert common([both, both], [[pin("a"), pin("z")], [pin("b", "2")]]) == (pin("a"),)


def test_shared_wheels_and_rest_are_the_whole_lock() -> None:
    for name, recipe in RECIPES.all.items():
        if not recipe.wheels:
            continue
        own, shared, whole = (
            set(RECIPES.wheels(name)),
            set(RECIPES.wheels(recipe.parent)),
            set(RECIPES.lock(name)),
        )
        assert own.isdisjoint(shared)
        assert whole <= own | shared
        names = [p.name for p in own | shared]
        assert len(names) == len(set(names)), "two versions of one package in one environment"


def test_trackers_share_the_heavy_wheels_and_not_the_ones_in_conflict() -> None:
    shared = {p.name for p in RECIPES.wheels("python")}
    assert {"numpy", "pandas", "pyarrow", "sqlalchemy", "cryptography", "pydantic-core"} <= shared
    assert shared.isdisjoint({"graphql-core", "mlflow", "mlflow-skinny", "arize-phoenix", "pip"})
    left, right = ({p.name: p.version for p in RECIPES.lock(n)} for n in ("mlflow", "phoenix"))
    assert {n for n in left.keys() & right.keys() if left[n] != right[n]} == {"graphql-core"}


def test_wheels_are_cut_into_layers_and_none_is_lost() -> None:
    for name, recipe in RECIPES.all.items():
        groups = RECIPES.wheel_layers(name)
        assert sorted(pin for group in groups.values() for pin in group) == list(
            RECIPES.wheels(name)
        )
        assert {pin.name for pin in groups.get("first", ())} == set(recipe.first)
        assert {pin.name for pin in groups.get("last", ())} == set(recipe.last)
        text = (RECIPES.folder / name / "Dockerfile").read_text()
        assert re.findall(r"from=wheels,source=(\w+),target=/wheels", text) == list(groups)


def test_tracker_has_the_layer_on_top_to_itself() -> None:
    for name, package in (("mlflow", "mlflow"), ("phoenix", "arize-phoenix")):
        assert package in RECIPES.all[name].last
        assert len(RECIPES.all[name].last) <= 3


def test_wheel_that_is_not_there_cannot_have_a_layer(source: Path) -> None:
    path = source / "images/images.toml"
    text = path.read_text().replace("uid = 1", 'uid = 1\n            first = ["mine", "numpi"]')
    path.write_text(text)
    with pytest.raises(BundleError, match=r"numpi: not among the wheels of left"):
        keys(source)


def test_key_follows_the_cut(source: Path) -> None:
    before = keys(source)
    path = source / "images/images.toml"
    path.write_text(path.read_text().replace("uid = 1", 'uid = 1\n            last = ["mine"]'))
    assert changed(before, keys(source)) == {"left"}


# recipes and keys


def test_recipe_must_come_after_what_it_stands_on(source: Path) -> None:
    path = source / "images/images.toml"
    path.write_text(path.read_text().replace('parent = "base"', 'parent = "later"', 1))
    with pytest.raises(BundleError, match=r"later does not come before python"):
        read_recipes(source)


def test_unknown_field_of_a_recipe_is_refused(source: Path) -> None:
    path = source / "images/images.toml"
    path.write_text(path.read_text().replace("uid = 3", "user = 3"))
    with pytest.raises(TypeError, match="user"):
        read_recipes(source)


def test_key_is_the_same_for_the_same_content(source: Path, tmp_path: Path) -> None:
    before = keys(source)
    cache = source / "bundle/__pycache__"
    cache.mkdir()
    (cache / "run.cpython-313.pyc").write_bytes(b"x")
    os.utime(source / "images/left/requirements.lock", (1, 1))
    assert keys(source) == before


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("images/base/Dockerfile", {"base", "python", "left", "right", "alone"}),
        ("images/tools/finish", {"python", "left", "right", "alone"}),
        ("images/python/Dockerfile", {"python", "left", "right"}),
        ("images/left/requirements.lock", {"left"}),
        ("images/alone/apt.lock", {"alone"}),
        ("bundle/run.py", {"alone"}),
    ],
)
def test_key_follows_its_inputs(source: Path, file: str, names: set[str]) -> None:
    before = keys(source)
    path = source / file
    path.write_text(path.read_text() + "# other\n")
    assert changed(before, keys(source)) == names


def test_key_follows_a_change_of_what_is_shared(source: Path) -> None:
    before = keys(source)
    path = source / "images/right/requirements.lock"
    path.write_text(path.read_text().replace("same==1", "same==2"))
    assert changed(before, keys(source)) == {"python", "left", "right"}


def test_key_follows_machine_and_origin(source: Path) -> None:
    assert len(changed(keys(source), keys(source, "arm64", "debootstrap", ""))) == 5
    assert len(changed(keys(source), keys(source, "amd64", "registry", "d@sha256:1"))) == 5


def test_key_tells_names_from_content() -> None:
    assert content_key([("a", b"bc")]) != content_key([("ab", b"c")])
    assert content_key([("a", b"1"), ("b", b"2")]) != content_key([("a", b"12")])


# what every recipe must say


@pytest.mark.parametrize("name", PRODUCT)
def test_product_image_is_not_root_and_starts_by_its_entrypoint(name: str) -> None:
    text = (RECIPES.folder / name / "Dockerfile").read_text()
    uid = RECIPES.all[name].uid
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == [f"{uid}:{uid}"]
    assert re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE) == ['["/usr/local/bin/entrypoint"]']
    assert f"make-user {name} {uid}" in text
    assert (RECIPES.folder / name / "entrypoint").read_text().startswith("#!/bin/sh\n")
    assert "HEALTHCHECK" not in text


def test_users_are_different() -> None:
    uids = [RECIPES.all[name].uid for name in PRODUCT]
    assert uids == sorted(set(uids))
    assert set(PRODUCT) == {"postgres", "minio", "mlflow", "phoenix", "gateway", "ops"}


@pytest.mark.parametrize(
    "path",
    sorted((TOP / "images").glob("*/Dockerfile*")),
    ids=lambda p: f"{p.parent.name}/{p.name}",
)
def test_recipe_asks_no_registry_and_ends_each_step_clean(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^# *syntax", text, re.MULTILINE), "a frontend would be pulled"
    for origin in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert origin == "scratch" or origin.startswith("${"), f"{origin} is not of ours"
    for command in re.findall(r"^RUN (.*?[^\\])$", text, re.MULTILINE | re.DOTALL):
        assert command.endswith("/tools/finish") or "sh ./build" in command
        assert "http" not in command


def test_only_the_module_build_has_a_network() -> None:
    assert [name for name, recipe in RECIPES.all.items() if recipe.network != "none"] == ["minio"]


# fetching


class Mirror(debs.Archive):
    """An archive that has some files; the private apt in front of it is tested with the real one."""

    def update(self) -> None:
        """Nothing to read."""

    def download(self, wanted: Sequence[Deb], folder: Path) -> None:
        """Put what the mirror has under these names into `folder`."""
        for item in wanted:
            (folder / item.file).write_bytes((self.folder / item.file).read_bytes())


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return Mirror(folder=folder, suite="trixie", arch="amd64")


def test_fetch_keeps_what_is_there(tmp_path: Path) -> None:
    item, store = deb(b"data"), tmp_path / "debs"
    store.mkdir()
    (store / item.file).write_bytes(b"data")
    nowhere = Mirror(folder=tmp_path / "none", suite="trixie", arch="amd64")
    assert debs.fetch([item], store, nowhere) == {item: store / item.file}


@pytest.mark.parametrize("there", [None, b"", b"dat4", b"longer"])
def test_fetch_replaces_what_is_missing_or_broken(
    tmp_path: Path, mirror: Mirror, there: bytes | None
) -> None:
    item, store = deb(b"data"), tmp_path / "debs"
    store.mkdir()
    if there is not None:
        (store / item.file).write_bytes(there)
    (mirror.folder / item.file).write_bytes(b"data")
    assert debs.fetch([item], store, mirror)[item].read_bytes() == b"data"
    assert [path.name for path in store.iterdir()] == [item.file]


def test_fetch_refuses_a_file_that_is_not_the_locked_one(tmp_path: Path, mirror: Mirror) -> None:
    item, store = deb(b"data"), tmp_path / "debs"
    (mirror.folder / item.file).write_bytes(b"evil")
    with pytest.raises(IntegrityError, match="not the locked file"):
        debs.fetch([item], store, mirror)
    assert list(store.iterdir()) == []


def test_wheels_are_found_by_digest_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "anything.whl"
    path.write_bytes(b"wheel")
    wanted = replace(pin("tool"), digests=(file_digest(path), B))
    assert wheels.fetch([wanted], tmp_path, "amd64") == {wanted: path}
    assert wheels.fetch([], tmp_path / "none", "amd64") == {}


def test_platform_options_name_the_machine() -> None:
    options = wheels.platform_options("arm64")
    assert "manylinux_2_41_aarch64" in options
    assert "manylinux2014_aarch64" in options
    assert not [option for option in options if "x86" in option]


@pytest.mark.parametrize(
    ("text", "mirror"),
    [
        ("deb http://a.example/debian bookworm main", "http://a.example/debian"),
        (
            "deb [arch=amd64 signed-by=/k] https://b.example/x/debian/ trixie main",
            "https://b.example/x/debian",
        ),
        ("Types: deb\nURIs: http://c.example/debian\nSuites: trixie", "http://c.example/debian"),
        (
            "# deb http://a.example/debian x main\ndeb http://d.example/debian-security x main",
            "default",
        ),
        ("deb http://e.example/ubuntu noble main", "default"),
        ("deb-src http://a.example/debian bookworm main", "default"),
    ],
)
def test_host_mirror(text: str, mirror: str) -> None:
    assert debs.host_mirror(["", text], "default") == mirror


def test_security_mirror() -> None:
    assert debs.security_mirror("http://m.example/debian") == "http://m.example/debian-security"
    snapshot = "http://s.example/archive/debian/20261101T000000Z"
    assert (
        debs.security_mirror(snapshot)
        == "http://s.example/archive/debian-security/20261101T000000Z"
    )


def test_named_mirror_may_be_a_snapshot(tmp_path: Path) -> None:
    plain = debs.Archive(folder=tmp_path, suite="trixie", arch="amd64")
    named = replace(plain, mirror="http://m.example/debian")
    assert "check-valid-until" not in plain.sources("http://m.example/debian")
    lines = named.sources(named.mirror).splitlines()
    assert len(lines) == 3
    assert all("check-valid-until=no" in line and "signed-by=" in line for line in lines)


def test_packages_of_another_machine_are_refused(source: Path) -> None:
    recipes = read_recipes(source)
    workshop = images.Workshop(
        config=parse_bundle(""),
        engine=Engine(),
        source=source,
        recipes=recipes,
        keys={},
        arch="arm64",
    )
    with pytest.raises(PreconditionError, match="locked for amd64, this engine is arm64"):
        workshop.fetch_packages("alone")


def test_debootstrap_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PreconditionError, match="needs root") as raised:
        debs.make_root({}, tmp_path, "trixie", "amd64", 5, tmp_path)
    assert "registry" in raised.value.problems[0].hint


def test_trimmed_root_has_licences_and_nothing_of_its_host(tmp_path: Path) -> None:
    root, settings = tmp_path / "root", tmp_path / "dpkg.cfg"
    settings.write_text("path-exclude=/usr/share/man/*\n")
    for name in (
        *("usr/share/doc/a/copyright", "usr/share/doc/a/changelog.gz", "usr/share/doc/b/README"),
        *("usr/share/man/man1/a.1", "usr/share/locale/ko/x.mo", "etc/hostname", "etc/resolv.conf"),
        *("var/log/dpkg.log", "var/lib/apt/lists/x_Packages", "etc/passwd-", "usr/bin/su"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "usr/bin/su").chmod(0o4755)
    debs.trim_root(root, settings)
    left = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert left == {"usr/share/doc/a/copyright", "usr/bin/su", "etc/dpkg/dpkg.cfg.d/bundle"}
    assert (root / "usr/bin/su").stat().st_mode & 0o7777 == 0o755
    assert (root / "var/log").is_dir()


# building


def test_stage_does_not_depend_on_the_host(tmp_path: Path) -> None:
    folder = tmp_path / "from"
    (folder / "sub/__pycache__").mkdir(parents=True)
    (folder / "sub/__pycache__/x.pyc").write_bytes(b"x")
    (folder / "sub/data").write_text("data")
    (folder / "tool").write_text("#!/bin/sh\n")
    seen = []
    for number, mask in enumerate((0o077, 0o000, 0o022)):
        old = os.umask(mask)
        try:
            images.stage(folder, tmp_path / str(number), 1_700_000_000)
        finally:
            os.umask(old)
        paths = sorted((tmp_path / str(number)).rglob("*"))
        seen.append([(p.name, oct(p.stat().st_mode), p.stat().st_mtime) for p in paths])
    assert seen[0] == seen[1] == seen[2]
    assert [(name, mode[-3:]) for name, mode, _ in seen[0]] == [
        ("sub", "755"),
        ("data", "644"),
        ("tool", "755"),
    ]


def test_staged_file_of_the_same_size_has_another_time(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    times = set()
    for text in ("one", "two"):
        (tmp_path / "from/file").write_text(text)
        images.stage(tmp_path / "from", tmp_path / text, 1_700_000_000)
        times.add((tmp_path / text / "file").stat().st_mtime)
    assert len(times) == 2
    assert max(times) <= 1_700_000_000


def test_proxy_with_a_password_stays_out_of_the_arguments(tmp_path: Path) -> None:
    wanted = Build(context=tmp_path, tag="t:1", arguments={"EPOCH": "5"}, network="default")
    line = command_line(wanted, {"HTTPS_PROXY": "http://user:secret@proxy.example:3128"})
    assert "--build-arg=HTTPS_PROXY" in line
    assert "secret" not in " ".join(line)
    assert line[line.index("--network") + 1] == "default"


def test_fresh_build_takes_nothing_from_a_cache(tmp_path: Path) -> None:
    wanted = Build(context=tmp_path, tag="t:1")
    assert "--no-cache" not in command_line(wanted, {})
    assert "--no-cache" in command_line(replace(wanted, fresh=True), {})


def test_go_settings_come_from_the_environment_in_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setenv("GOPROXY", "https://user:secret@modules.example")
    monkeypatch.setenv("GOSUMDB", "off")
    path = images.write_go_settings(tmp_path / "goenv")
    assert path.read_text() == "GOPROXY=https://user:secret@modules.example\nGOSUMDB=off\n"
    assert path.stat().st_mode & 0o777 == 0o600


# invoke lock


def test_difference_is_a_table() -> None:
    old = {("base", "apt"): "3.0", ("ops", "httpx"): "1", ("ops", "gone"): "1"}
    new = {("base", "apt"): "3.0.10", ("ops", "httpx"): "1", ("python", "new"): "2"}
    assert lock.difference(old, old) == "nothing changed"
    assert lock.difference(old, new).splitlines() == [
        "image   input  old  new",
        "base    apt    3.0  3.0.10",
        "ops     gone   1    -",
        "python  new    -    2",
    ]


def test_locked_versions_of_every_kind_are_seen() -> None:
    found = lock.versions(RECIPES)
    assert ("postgres", "postgresql-17") in found
    assert found["mlflow", "mlflow"] == "3.17.2"
    assert found["phoenix", "arize-phoenix"] == "20.26.1"
    assert found["minio", "github.com/minio/minio"] == "v0.0.0-20260212201848-7aac2a2c5b7c"
    assert ("tools", "pip") in found


def test_unknown_name_to_upgrade_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is locked as numpi"):
        lock.relock(parse_bundle(""), Engine(), TOP, ["numpi"])


def test_kept_pins() -> None:
    pins = [pin("a"), pin("b")]
    assert list(lock.kept(pins, ())) == ["a", "b"]
    assert list(lock.kept(pins, ["a"])) == ["b"]
    assert list(lock.kept(pins, ["all"])) == []


# the installer that runs inside the build


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "install_wheels", TOP / "images/tools/install_wheels.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_installer_cuts_only_what_is_never_read(installer: ModuleType, tmp_path: Path) -> None:
    kept = (
        "numpy/testing/x.py",
        "pkg/data.json",
        "botocore/data/s3/x.json",
        "botocore/data/endpoints.json",
        "pkg/py.typed",
    )
    gone = (
        "numpy/tests/a/x.py",
        "pkg/x.pyi",
        "pkg/x.pxd",
        "botocore/data/ec2/x.json",
        "pyarrow/include/a.h",
    )
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    installer.cut(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)


def test_installer_compiles_what_has_no_bytecode(installer: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("x = 1\n")
    (tmp_path / "old.py").write_text("x = 1\n")
    (tmp_path / "__pycache__").mkdir()
    old = tmp_path / "__pycache__/old.cpython-313.pyc"
    old.write_bytes(b"parent's")
    installer.compile_new(tmp_path)
    (new,) = (tmp_path / "__pycache__").glob("new.*.pyc")
    assert new.read_bytes()[4:8] == b"\x01\0\0\0", "bytecode that is not checked against its source"
    assert old.read_bytes() == b"parent's"


def test_bytecode_of_the_system_is_made_anew_where_it_was(
    installer: ModuleType, tmp_path: Path
) -> None:
    for name in ("lib/a.py", "lib/b/c.py", "share/never.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    for name in ("lib/__pycache__/a.cpython-313.pyc", "lib/__pycache__/gone.cpython-313.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"by time")
    installer.recompile([tmp_path / "lib", tmp_path / "share"])
    (made,) = tmp_path.rglob("*.pyc")
    assert made.name.startswith("a.cpython-")
    assert made.read_bytes()[4:8] == b"\x01\0\0\0"


def test_tree_is_sorted_and_whole(source: Path) -> None:
    names = [name for name, _ in tree(source / "images")]
    assert names == sorted(names)
    assert "images.toml" in names
