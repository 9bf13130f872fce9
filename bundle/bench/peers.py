"""The same work by skopeo (Debian), crane and regctl (Go modules): the bundle's images out of a registry on loopback
into files, and out of these into another registry.

Nothing is installed on this host: Debian's packages are unpacked into the bench's folder, the Go programs are built in
the product's own Go image. The first registry is the bundle's own door, the second is crane's.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bundle import debs, images
from bundle.bench.connected import make
from bundle.bench.context import Bench, Group, reason
from bundle.bench.figures import Figure, Wanted, interleave
from bundle.bench.usage import read_once
from bundle.builder import Build, build
from bundle.door import serve
from bundle.errors import BundleError, CommandError
from bundle.run import detach, log, run, step

GO_MODULES = {
    "crane": "github.com/google/go-containerregistry/cmd/crane@v0.21.7",
    "regctl": "github.com/regclient/regclient/cmd/regctl@v0.11.7",
}
TOOLS = ("skopeo", "crane", "regctl")
SECONDS = 900.0
COPY = ("copy", "--quiet")
DOCKERFILE = """\
ARG GOLANG
FROM ${GOLANG} AS build
ARG MODULE
RUN --mount=type=cache,id=tracking-go,target=/go --mount=type=secret,id=ca,target=/run/secrets/ca \\
    --mount=type=secret,id=goenv,target=/run/secrets/goenv \\
    export GOPATH=/go GOMODCACHE=/go/mod GOCACHE=/go/cache GOENV=/run/secrets/goenv GOTOOLCHAIN=auto CGO_ENABLED=0 \\
    SSL_CERT_FILE=/run/secrets/ca GOFLAGS="-trimpath -buildvcs=false" GOBIN=/built \\
    && go install -ldflags "-s -w" ${MODULE}
FROM scratch
COPY --from=build /built /
"""
PACKS = {
    tool: Wanted(
        name=f"pack from ready blobs, against {tool}",
        unit="×",
        against=f"{tool}: every image from a registry on loopback into files",
    )
    for tool in TOOLS
}
PUSHES = {tool: Wanted(name=f"{tool}: its files into a registry", unit="s") for tool in TOOLS}
FOOTNOTE = (
    "skopeo, crane and regctl: one file an image, no signature; layers come compressed (by us, before), and",
    "what images share is in each file. `invoke bundle` with all cached: one file, sealed and signed.",
    "Hauler and Zarf could not be had for this run: nothing here says how this product compares with them.",
)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program that was got for this run: how it is called, and which version it is."""

    command: tuple[str, ...]
    version: str


def get(bench: Bench) -> dict[str, Peer | str]:
    """Every program, or why it is not there."""
    found: dict[str, Peer | str] = {}
    for tool in TOOLS:
        try:
            with step(f"getting {tool} for comparison, into {bench.work} only"):
                found[tool] = get_go(bench, tool) if tool in GO_MODULES else get_skopeo(bench)
        except (BundleError, OSError) as error:
            log.info("  %s", error)
            found[tool] = f"it could not be got: {reason(error)}"
    return found


def get_skopeo(bench: Bench) -> Peer:
    """skopeo and all that it stands on, unpacked out of Debian's packages; run by their own loader."""
    workshop = images.open_workshop(bench.config, bench.engine, bench.here)
    archive = debs.Archive(
        folder=bench.folder("apt"),
        suite=workshop.recipes.suite,
        arch=workshop.arch,
        mirror=bench.config.mirrors_debian,
    )
    archive.update()
    wanted = archive.resolve(["skopeo"])
    root = bench.folder("skopeo")
    for path in debs.fetch(wanted, bench.config.cache / "debs", archive).values():
        run(["dpkg-deb", "--extract", str(path), str(root)], timeout=120)
    version = next(deb.version for deb in wanted if deb.name == "skopeo")
    loader = next(root.glob("usr/lib*/ld-linux-*.so.2"))
    places = [root / "usr/lib", *(p for p in (root / "usr/lib").glob("*-linux-gnu*") if p.is_dir())]
    line = [loader, "--library-path", ":".join(map(str, places)), root / "usr/bin/skopeo"]
    command = (*map(str, line), "--insecure-policy")
    run([*command, "--version"], timeout=60)
    return Peer(command=command, version=version)


def get_go(bench: Bench, tool: str) -> Peer:
    """crane or regctl, built from its module in the product's Go image."""
    workshop = images.open_workshop(bench.config, bench.engine, bench.here)
    images.ensure(workshop, "golang")
    work, target = bench.folder(f"{tool}-source"), bench.folder(f"{tool}-built")
    (work / "Dockerfile").write_text(DOCKERFILE, "utf-8")
    settings = images.write_go_settings(bench.work / "goenv")
    wanted = Build(
        context=work,
        tag="",
        arguments={"GOLANG": workshop.reference("golang"), "MODULE": GO_MODULES[tool]},
        secrets={"ca": images.authorities(), "goenv": settings},
        network="default",
        output=target,
    )
    build(bench.engine, wanted, timeout=bench.config.build_timeout_s)
    command = (str(target / tool),)
    run([*command, "version"], timeout=60)
    return Peer(command=command, version=GO_MODULES[tool].rpartition("@")[2])


def script(commands: Sequence[Sequence[str]]) -> list[str]:
    """One sh that runs `commands` in order and stops at the first failure."""
    return ["sh", "-ec", "\n".join(map(shlex.join, commands))]


def pack_commands(
    tool: str, peer: Peer, registry: str, names: Mapping[str, Path]
) -> list[list[str]]:
    """`tool` puts each image of `registry` into its file."""
    lines = []
    for name, file in names.items():
        reference = f"{registry}/{name}"
        words = {
            "skopeo": [
                *COPY,
                "--src-tls-verify=false",
                f"docker://{reference}",
                f"oci-archive:{file}",
            ],
            "crane": ["pull", "--insecure", "--format=tarball", reference, str(file)],
            "regctl": ["image", "export", reference, str(file)],
        }[tool]
        lines.append([*peer.command, *words])
    return lines


def push_commands(
    tool: str, peer: Peer, registry: str, names: Mapping[str, Path]
) -> list[list[str]]:
    """`tool` puts each of its files into `registry`."""
    lines = []
    for name, file in names.items():
        reference = f"{registry}/{tool}/{name}"
        words = {
            "skopeo": [
                *COPY,
                "--dest-tls-verify=false",
                f"oci-archive:{file}",
                f"docker://{reference}",
            ],
            "crane": ["push", "--insecure", str(file), reference],
            "regctl": ["image", "import", reference, str(file)],
        }[tool]
        lines.append([*peer.command, *words])
    return lines


def prepare_regctl(bench: Bench, peer: Peer, registry: str) -> None:
    """Tell regctl that a registry on loopback speaks plain HTTP; it keeps that in the bench's folder."""
    words = ["registry", "set", "--tls=disabled", "--skip-check", registry]
    run(_with_home(bench, [*peer.command, *words]), timeout=60)


def _with_home(bench: Bench, command: Sequence[str]) -> list[str]:
    return ["env", f"HOME={bench.folder('home')}", *command]


@contextlib.contextmanager
def writable_registry(bench: Bench, crane: Peer) -> Iterator[str]:
    """crane's own registry, on loopback, its blobs on the disk."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    folder = bench.folder("registry")
    words = ["registry", "serve", "--address", address, "--disk", str(folder)]
    pid = detach([*crane.command, *words], log_file=bench.work / "registry.log")
    try:
        _wait_for(address)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(address: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return
        time.sleep(0.1)
    raise CommandError(f"crane's registry does not answer at {address}")


def usable(
    bench: Bench, registry: str, files: Mapping[str, Mapping[str, Path]]
) -> dict[str, Peer | str]:
    """The programs that did the work once, or why not: what they are measured on is warm then."""
    tried: dict[str, Peer | str] = get(bench)
    for tool, peer in tried.items():
        if isinstance(peer, str):
            continue
        try:
            if tool == "regctl":
                prepare_regctl(bench, peer, registry)
            run_all(bench, f"{tool}, first", pack_commands(tool, peer, registry, files[tool]))
        except BundleError as error:
            tried[tool] = reason(error)
    return tried


def run_all(bench: Bench, name: str, commands: Sequence[Sequence[str]]) -> float:
    """Run `commands` as `name`; the seconds of all."""
    return bench.use(name, _with_home(bench, script(commands)), timeout=SECONDS).seconds


def peers(bench: Bench) -> list[Figure]:
    """Pack out of a registry, then push into one, by every program that could be got."""
    place = bench.folder("peers")
    make(bench, "bundle, warming up")
    with serve(bench.bundle, bench.manifest) as shelf:
        files = {
            tool: {ref: place / f"{tool}-{n}.tar" for n, ref in enumerate(bench.references)}
            for tool in TOOLS
        }
        found = usable(bench, shelf.address, files)
        tools = {tool: peer for tool, peer in found.items() if isinstance(peer, Peer)}

        def pack(tool: str, peer: Peer) -> float:
            for file in files[tool].values():
                file.unlink(missing_ok=True)
            read_once([bench.bundle])
            commands = pack_commands(tool, peer, shelf.address, files[tool])
            return run_all(bench, tool, commands)

        arms = {"invoke bundle, all cached": lambda: make(bench, "bundle, all cached")[0].seconds}
        arms |= {tool: partial(pack, tool, peer) for tool, peer in tools.items()}
        seconds = interleave(arms, bench.rounds)
    ours = seconds["invoke bundle, all cached"]
    figures = [
        PACKS[tool].ratio(ours, seconds[tool], note=f"{peer.version}, {_megabytes(files[tool])}")
        for tool, peer in tools.items()
    ]
    figures += [PACKS[tool].missing(why) for tool, why in found.items() if isinstance(why, str)]
    return figures + pushing(bench, tools, files)


def _megabytes(files: Mapping[str, Path]) -> str:
    return (
        f"{sum(file.stat().st_size for file in files.values()) / 1e6:,.0f} MB in {len(files)} files"
    )


def pushing(
    bench: Bench, tools: Mapping[str, Peer], files: Mapping[str, Mapping[str, Path]]
) -> list[Figure]:
    """Each program puts its own files into an empty registry."""
    crane = tools.get("crane")
    if crane is None:
        return [
            wanted.missing("crane, whose registry takes them, is not there")
            for wanted in PUSHES.values()
        ]

    def push(tool: str, peer: Peer) -> float:
        read_once(files[tool].values())
        with writable_registry(bench, crane) as address:
            if tool == "regctl":
                prepare_regctl(bench, peer, address)
            commands = push_commands(tool, peer, address, files[tool])
            return run_all(bench, f"{tool}, push", commands)

    figures = []
    for tool, peer in tools.items():
        try:
            seconds = interleave({f"{tool}, push": partial(push, tool, peer)}, bench.rounds)
            figures.append(PUSHES[tool].measured(seconds[f"{tool}, push"]))
        except BundleError as error:
            figures.append(PUSHES[tool].missing(reason(error)))
    return figures


GROUPS = (Group(name="peers", wanted=(*PACKS.values(), *PUSHES.values()), act=peers),)
