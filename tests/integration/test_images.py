"""The images as the engine has them: what runs, as whom, with which cuts; and the two origins of the base."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle import debs, images, lock, wheels
from bundle.config import BundleConfig, parse_bundle, parse_site
from bundle.engine import Engine
from bundle.errors import PreconditionError
from bundle.images import Workshop
from bundle.model import Image
from bundle.plan import make_plan
from bundle.recipes import TOOLS, Deb
from bundle.services import forward
from bundle.templates import render

TOP = Path(__file__).parents[2]
PYTHONS = ("mlflow", "phoenix", "ops")
pytestmark = pytest.mark.timeout(2400)  # the first build compiles the object store


@pytest.fixture(scope="module")
def config() -> BundleConfig:
    return parse_bundle("")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


@pytest.fixture(scope="module")
def workshop(config: BundleConfig, engine: Engine) -> Workshop:
    return images.open_workshop(config, engine, TOP)


@pytest.fixture(scope="module")
def built(config: BundleConfig, engine: Engine) -> dict[str, Image]:
    return {image.name: image for image in images.build_all(config, engine, TOP)}


def inside(engine: Engine, image: Image, command: list[str], **options: Any) -> str:
    """What `command` prints in a container as the services get it: read-only, no rights, no network."""
    values: dict[str, Any] = {"network_mode": "none", "read_only": True, "cap_drop": ["ALL"]}
    values |= {"tmpfs": {"/tmp": ""}, **options}
    if command[0] != "entrypoint":
        values["entrypoint"] = command[:1]
    out = engine.api.containers.run(
        image.reference, command[1:], remove=True, stderr=True, **values
    )
    return str(out.decode())


def test_every_image_is_there(built: dict[str, Image], engine: Engine) -> None:
    assert set(built) == {"postgres", "minio", "mlflow", "phoenix", "gateway", "ops"}
    for name, image in built.items():
        facts = engine.api.images.get(image.reference).attrs["Config"]
        assert facts["Entrypoint"] == ["/usr/local/bin/entrypoint"], name
        assert int(facts["User"].partition(":")[0]) >= 10001
        assert "LANG=C.UTF-8" in facts["Env"]
        allowed = {
            "PATH",
            "LANG",
            "PGDATA",
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONUNBUFFERED",
        }
        assert {line.partition("=")[0] for line in facts["Env"]} <= allowed


def test_layers_are_shared(built: dict[str, Image]) -> None:
    """One base under all, one Python environment under three."""
    assert len({image.layers[0] for image in built.values()}) == 1
    assert len({built[name].layers[:4] for name in PYTHONS}) == 1
    assert built["minio"].layers[1] == built["gateway"].layers[1]


def test_second_time_builds_and_fetches_nothing(
    built: dict[str, Image], config: BundleConfig, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was built or fetched")

    for module, name in ((images, "build"), (debs, "fetch"), (wheels, "fetch")):
        monkeypatch.setattr(module, name, refuse)
    again = images.build_all(config, engine, TOP)
    assert {image.name: image for image in again} == built


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("postgres", ["postgres", "--version"], "PostgreSQL) 17."),
        ("postgres", ["pgbackrest", "version"], "pgBackRest 2."),
        ("minio", ["minio", "--version"], "2026-02-12T20-18-48Z (commit-id=7aac2a2c5b7c-patched)"),
        ("minio", ["curl", "--version"], "libcurl"),
        ("mlflow", ["mlflow", "--version"], "3.17.2"),
        (
            "phoenix",
            ["python", "-c", "import importlib.metadata as m; print(m.version('arize-phoenix'))"],
            "20.26.1",
        ),
        ("gateway", ["nginx", "-V"], "http_sub_module"),
        ("gateway", ["curl", "--version"], "libcurl"),
        ("ops", ["restic", "version"], "restic 0.18"),
        ("ops", ["pgbackrest", "version"], "pgBackRest 2."),
        ("ops", ["entrypoint", "-c", "import bundle.model; print('tool')"], "tool"),
    ],
)
def test_programs_run(
    built: dict[str, Image], engine: Engine, name: str, command: list[str], expected: str
) -> None:
    assert expected in inside(engine, built[name], command)


def test_gateway_takes_the_forwarders_settings(built: dict[str, Image], engine: Engine) -> None:
    site = parse_site(
        'domain = "lab.internal"\nallow = ["idp.example:443", "llm.example:443", "x.example:587"]'
    )
    plan = make_plan(site, site_id="0a1b2c3d", version="0.1.0")
    text = next(f.text for f in render(plan) if f.path.parent.name == forward.NAME)
    run = "nginx -e stderr -c /tmp/forward.conf -g 'daemon off;' & sleep 1"
    script = f"cat >/tmp/forward.conf <<'END'\n{text}\nEND\n{run}; {forward.PROBE} && echo well"
    said = inside(engine, built["gateway"], ["bash", "-c", script], user="10008:10008")
    assert said.strip().splitlines()[-1] == "well", said


IMPORTS = {
    "mlflow": "mlflow.server.auth, boto3, psycopg2, prometheus_flask_exporter, sklearn, matplotlib.pyplot",
    "phoenix": "phoenix.server.app, asyncpg, openai, anthropic, google.genai",
    "ops": "psycopg, minio, mlflow, phoenix.otel, phoenix.client, cryptography, jinja2, invoke, docker, httpx",
}
HEAVY = "pandas, pyarrow.parquet, pyarrow.dataset, pyarrow.compute, pyarrow.acero, pyarrow.feather, sqlalchemy"


@pytest.mark.parametrize("name", PYTHONS)
def test_cuts_took_nothing_that_is_imported(
    built: dict[str, Image], engine: Engine, name: str
) -> None:
    code = f"import sqlite3, ssl, lzma, bz2, {HEAVY}, {IMPORTS[name]}; print('imported')"
    environment = {"MPLCONFIGDIR": "/tmp", "HOME": "/tmp"}
    out = inside(engine, built[name], ["python", "-c", code], environment=environment)
    assert out.rstrip().endswith("imported")


@pytest.mark.parametrize("name", PYTHONS)
def test_environment_is_consistent_and_has_no_installer(
    built: dict[str, Image], engine: Engine, workshop: Workshop, name: str
) -> None:
    (wheel,) = workshop.fetch_wheels(workshop.recipes.lock(TOOLS)).values()
    volumes = {str(wheel): {"bind": f"/w/{wheel.name}", "mode": "ro"}}
    command = ["python", f"/w/{wheel.name}/pip", "--no-cache-dir", "check"]
    assert "No broken requirements" in inside(engine, built[name], command, volumes=volumes)
    code = "import importlib.util as u; print([m for m in ('pip', 'ensurepip') if u.find_spec(m)])"
    assert inside(engine, built[name], ["python", "-c", code]).strip() == "[]"


def test_bytecode_is_not_stale(built: dict[str, Image], engine: Engine) -> None:
    """Import time rules the start: what was compiled in the build must be taken at run time."""
    code = "import json, decimal, http.server, pandas"
    out = inside(engine, built["ops"], ["python", "-v", "-c", code])
    assert "bytecode is stale" not in out
    assert "/opt/venv/lib/python3.13/site-packages/pandas/__init__.py" in out


@pytest.mark.parametrize("name", ["postgres", "minio", "mlflow", "phoenix", "gateway", "ops"])
def test_no_privileged_bits_and_no_leftovers(
    built: dict[str, Image], engine: Engine, name: str
) -> None:
    find = "find / -xdev -type f -perm /6000; ls -A /tmp /var/cache/apt /var/lib/apt/lists /var/log; ls /"
    out = inside(engine, built[name], ["sh", "-c", find], user="0", cap_drop=[], tmpfs={})
    top = out.split()
    assert not {"debs", "wheels", "tools", "recipe", "built"} & set(top)
    assert not [
        line for line in out.splitlines() if line.startswith("/") and not line.endswith(":")
    ]


def test_image_has_no_trace_of_this_host(built: dict[str, Image], engine: Engine) -> None:
    for image in built.values():
        history = json.dumps(engine.api.images.get(image.reference).history())
        assert not [word for word in ("proxy", "PROXY", "://", "goenv=") if word in history]


def test_cluster_is_made_by_the_first_start_only(
    built: dict[str, Image], engine: Engine, tmp_path: Path
) -> None:
    """initdb as the image's user on an empty volume; the second start takes what is there."""
    (tmp_path / "pw").write_text("not-a-default")
    (tmp_path / "postgresql.conf").write_text(
        "listen_addresses = ''\nunix_socket_directories = '/tmp'\n"
    )
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    volume = engine.api.volumes.create()
    volumes = {
        volume.name: {"bind": "/var/lib/postgresql/data", "mode": "rw"},
        str(tmp_path / "pw"): {"bind": "/run/secrets/SUPERUSER_PASSWORD", "mode": "ro"},
        str(tmp_path / "postgresql.conf"): {
            "bind": "/etc/postgresql/postgresql.conf",
            "mode": "ro",
        },
    }
    describe = ["entrypoint", "-C", "data_checksums"]  # prints one setting instead of serving
    try:
        first = inside(engine, built["postgres"], describe, volumes=volumes)
        again = inside(engine, built["postgres"], describe, volumes=volumes)
        assert "Success" in first
        assert first.rstrip().endswith("on")
        assert again.strip() == "on"
    finally:
        volume.remove()


def test_package_that_the_mirror_lost_is_named(workshop: Workshop, tmp_path: Path) -> None:
    lost = Deb(name="tzdata", version="1999a-1", arch="all", size=1, sha256="0" * 64)
    unknown = replace(lost, name="nothing-like-it", version="1")
    there = next(deb for deb in workshop.recipes.packages("base") if deb.name == "tzdata")
    archive = debs.Archive(
        folder=tmp_path / "apt", suite=workshop.recipes.suite, arch=workshop.arch
    )
    with pytest.raises(
        PreconditionError, match=r"no longer has tzdata 1999a-1, nothing-like-it 1\n"
    ) as raised:
        debs.fetch([lost, there, unknown], tmp_path / "debs", archive)
    assert "invoke lock" in raised.value.problems[0].hint
    assert debs.fetch([there], tmp_path / "debs", archive)[there].stat().st_size == there.size


def test_only_what_the_mirror_lost_is_locked_anew(
    config: BundleConfig, workshop: Workshop, tmp_path: Path
) -> None:
    shutil.copytree(TOP / "images", tmp_path / "images")
    path = tmp_path / "images/curl/apt.lock"
    locked = path.read_text("utf-8")
    libcurl = next(line for line in locked.splitlines() if line.startswith("libcurl"))
    name, version = libcurl.split()[:2]
    path.write_text(locked.replace(f"{name} {version} ", f"{name} 0.1-lost "), "utf-8")
    said = lock.replace_gone(config, workshop.arch, tmp_path)
    assert f"{name}  0.1-lost  " in said, said
    assert f"{name} 0.1-lost " not in path.read_text("utf-8")
    assert lock.replace_gone(config, workshop.arch, tmp_path) == "nothing changed"


def test_unreachable_mirror_is_named(workshop: Workshop, tmp_path: Path) -> None:
    mirror = "http://127.0.0.1:1/debian"
    archive = debs.Archive(folder=tmp_path, suite="trixie", arch=workshop.arch, mirror=mirror)
    with pytest.raises(Exception, match=r"mirrors\.debian") as raised:
        archive.update()
    assert mirror in str(raised.value)


def test_preferred_versions_are_kept(workshop: Workshop, tmp_path: Path) -> None:
    """The rule by which the trackers share: an older version that fits stays, the digest is the index's."""
    (tmp_path / "requirements.in").write_text("six\n")
    newest = lock.resolve(tmp_path, {}, workshop.arch)["six"]
    older = replace(newest, version="1.16.0")
    assert lock.resolve(tmp_path, {"six": older}, workshop.arch)["six"].version == "1.16.0"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on loopback, Debian's own program."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = tmp_path / "registry.yml"
    text = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    settings.write_text(text)
    with (tmp_path / "log").open("w") as out:
        child = subprocess.Popen(
            ["docker-registry", "serve", str(settings)], stdout=out, stderr=out
        )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        child.terminate()
        child.wait(20)


def test_base_out_of_a_registry(
    built: dict[str, Image], config: BundleConfig, engine: Engine, registry: str
) -> None:
    """base.source = "registry": by digest, the locked packages over it, a key of its own."""
    home = images.open_workshop(config, engine, TOP)
    name = f"{registry}/debian"
    engine.tag(home.reference("base"), f"{name}:13")
    digest = next(
        line["aux"]["Digest"]
        for line in engine.api.images.push(name, tag="13", stream=True, decode=True)
        if "aux" in line
    )
    engine.api.images.remove(f"{name}:13", noprune=True)
    pulled = replace(config, base_source="registry", base_image=f"{name}@{digest}")
    away = images.open_workshop(pulled, engine, TOP)
    assert away.keys["base"] != home.keys["base"]
    try:
        images.ensure(away, "curl")
        image = engine.image("curl", away.reference("curl"))
        assert image is not None
        assert image.layers[0] == built["minio"].layers[0]
        assert "libcurl" in inside(engine, image, ["curl", "--version"])
    finally:
        for other in ("curl", "base"):
            if engine.image(other, away.reference(other)):
                engine.api.images.remove(away.reference(other))
