"""Figures of the connected side: the file's size, the check of its seal, packing with and without cached blobs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle import images
from bundle.bench.context import Bench, Group, Workbench, last_path
from bundle.bench.figures import Figure, Wanted, interleave
from bundle.bench.usage import Usage, read_once
from bundle.engine import find_client, save_command
from bundle.errors import CommandError
from bundle.manifest import PRODUCT
from bundle.run import log, run

FILE = Wanted(
    name="file, without client wheels",
    unit="MB",
    goal=500,
    against="709 MB: zstd -3 of every layer, nothing slimmed",
)
CHECK = Wanted(
    name="seal check", unit="×", goal=1.3, against="openssl dgst -sha256 of the file"
)  # fmt: skip
COLD = Wanted(name="pack, no blob cached", unit="×", goal=1.5, against="docker save | zstd -3 -T0")
WARM = Wanted(name="pack, all cached", unit="×", goal=0.1, against="docker save | zstd -3 -T0")

PACK_SECONDS = 1800.0
OWN_FOLDERS = (
    "blobs",
    "layers",
    "configs",
    "scans",
    "licences",
)  # made of images; all else is input


def sign_key(bench: Workbench) -> Path:
    """A key of this run, so that the operator's own signs nothing here and asks for no passphrase."""
    path = bench.folder("key") / "sign.key"
    if not path.exists():
        run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)],
            timeout=60,
        )
        path.chmod(0o600)
    return path


def make(
    bench: Workbench, name: str, *options: str, here: Path | None = None, cache: Path | None = None
) -> tuple[Usage, Path]:
    """Run `invoke bundle` as `name` into an empty folder; what it used, and the file that it made.

    Raises CommandError when it fails.
    """
    out, here = bench.folder("out") / name.replace(" ", "-"), here or bench.here
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "invoke", "bundle", "--out", str(out)]
    command += ["--sign-key", str(sign_key(bench)), *options]
    settings = ["env", f"SOURCE_DATE_EPOCH={bench.epoch}"]
    settings += [f"XDG_CACHE_HOME={cache}"] if cache else []
    used = bench.use(name, [*settings, *command], timeout=PACK_SECONDS, cwd=here)
    return used, last_path(used.text, here)


def size(bench: Bench) -> list[Figure]:
    """The size of the file without the wheels that travel in it."""
    whole = bench.bundle.stat().st_size
    wheels = sum(m.size for m in bench.manifest.members if m.path.startswith("wheels/"))
    return [FILE.measured([(whole - wheels) / 1e6], note=f"{whole / 1e6:,.1f} MB with them")]


def _pipe(bench: Bench, rest: str) -> list[str]:
    """`docker save` of the bundle's images, followed by `rest` in sh; it fails when any part fails."""
    workshop = images.open_workshop(bench.config, bench.engine, bench.here)
    here = [workshop.reference(image.name) for image in bench.manifest.images]
    line = shlex.join(save_command(here, client=find_client("compose")))
    return ["/bin/bash", "-c", f"set -o pipefail; {line} {rest}"]


def seal_check(bench: Bench) -> list[Figure]:
    """The whole check that bootstrap.sh makes, against one digest of the file."""
    script = bench.folder("check") / "bootstrap.sh"
    text = run(["tar", "-xOf", str(bench.bundle), "--occurrence=1", "bootstrap.sh"], timeout=60)
    script.write_text(text, "utf-8")
    ours = ["sh", str(script), str(bench.bundle), "--check", "--fingerprint", bench.fingerprint]
    ours += ["--root", str(bench.folder("check") / "root")]
    theirs = ["openssl", "dgst", "-sha256", str(bench.bundle)]

    def arm(name: str, command: list[str]) -> float:
        read_once([bench.bundle])
        return bench.use(name, command, timeout=600).seconds

    arms = {
        "bootstrap.sh --check": lambda: arm("check", ours),
        "openssl dgst -sha256": lambda: arm("openssl", theirs),
    }
    ours_s, theirs_s = interleave(arms, bench.rounds).values()
    return [CHECK.ratio(ours_s, theirs_s)]


def cache_of_inputs(bench: Bench, name: str, *, blobs: bool = False) -> Path:
    """A cache with every input of the real one: what a first `invoke bundle` finds after its builds.

    With `blobs` also what packing has kept; what is added to it is added here only.
    """
    home = bench.work / name
    shutil.rmtree(home, ignore_errors=True)
    inside = home / PRODUCT
    inside.mkdir(parents=True)
    for path in bench.config.cache.iterdir():
        if (
            path.is_dir()
            and not path.name.startswith(OWN_FOLDERS)
            and path not in bench.work.parents
        ):
            (inside / path.name).symlink_to(path)
        elif path.is_dir() and blobs and path not in bench.work.parents:
            shutil.copytree(path, inside / path.name, copy_function=os.link)
    return home


def pack(bench: Bench) -> list[Figure]:
    """`invoke bundle` with the images built, with and without compressed blobs, against docker save | zstd."""
    make(bench, "bundle, warming up")  # makes the images where they are missing, fills the cache

    def cold() -> float:
        home = cache_of_inputs(bench, "cold")
        used, file = make(bench, "bundle", cache=home)
        packed = sum(p.stat().st_size for p in (home / PRODUCT / "blobs").rglob("*"))
        if packed < 0.5 * file.stat().st_size:
            raise CommandError("invoke bundle took its blobs from another cache than it was given")
        shutil.rmtree(home)
        return used.seconds

    def warm() -> float:
        return make(bench, "bundle, all cached")[0].seconds

    def theirs() -> float:
        target = bench.folder("out") / "save.tar.zst"
        rest = f"| zstd --quiet --force -3 -T0 -o {shlex.quote(str(target))}"
        return bench.use("docker save | zstd", _pipe(bench, rest), timeout=900).seconds

    arms = {"no blob cached": cold, "docker save | zstd -3": theirs, "all cached": warm}
    seconds = interleave(arms, bench.rounds)
    theirs_s = seconds["docker save | zstd -3"]
    return [
        COLD.ratio(seconds["no blob cached"], theirs_s, note=steps(bench, "bundle")),
        WARM.ratio(seconds["all cached"], theirs_s, note=steps(bench, "bundle, all cached")),
    ]


def steps(bench: Bench, name: str) -> str:
    """Where the time of the last `name` went, by the lines of its own steps."""
    text = bench.usages[name][-1].text
    lines = [line[2:].strip() for line in text.splitlines() if line.startswith("✓ ")]
    log.debug("%s", lines)
    return "; ".join(lines)


GROUPS: Sequence[Group] = (
    Group(name="size", wanted=(FILE,), act=size),
    Group(name="seal", wanted=(CHECK,), act=seal_check),
    Group(name="pack", wanted=(COLD, WARM), act=pack),
)
