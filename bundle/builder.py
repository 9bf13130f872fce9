"""Building one image with BuildKit through the engine's command line client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bundle.config import variables
from bundle.engine import Engine, find_client
from bundle.run import run

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, kw_only=True)
class Build:
    """One build: its folder, the other folders and files it may read, and how the result is called."""

    context: Path
    tag: str
    file: str = "Dockerfile"
    contexts: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    network: str = "none"
    output: Path | None = None
    """Where the built files go, instead of an image in the engine."""
    fresh: bool = False


def command_line(wanted: Build, proxies: Mapping[str, str]) -> list[str]:
    """The client's arguments for `wanted`; of the proxies only the names, since they may carry a password."""
    command = ["buildx", "build", "--builder", "default", "--provenance=false"]
    command += ["--progress=plain", "--network", wanted.network]
    into_engine = ["--load", "--tag", wanted.tag]
    command += [f"--output=type=local,dest={wanted.output}"] if wanted.output else into_engine
    command += ["--no-cache"] if wanted.fresh else []
    command += ["--file", str(wanted.context / wanted.file)]
    for name, folder in sorted(wanted.contexts.items()):
        command += ["--build-context", f"{name}={folder}"]
    for name, path in sorted(wanted.secrets.items()):
        command += ["--secret", f"id={name},src={path}"]
    for name, value in sorted(wanted.arguments.items()):
        command += ["--build-arg", f"{name}={value}"]
    command += [f"--build-arg={name}" for name in sorted(proxies)]
    return [*command, str(wanted.context)]


def build(engine: Engine, wanted: Build, *, timeout: float) -> None:
    """Build one image from local inputs; the host's proxies reach it only where it has a network.

    Raises CommandError when it fails, PreconditionError without BuildKit's client.
    """
    proxies = {} if wanted.network == "none" else variables(PROXIES)
    run(
        [find_client("buildx"), *command_line(wanted, proxies)],
        timeout=timeout,
        env={**engine.child_environment, **proxies},
        stream=True,
    )
