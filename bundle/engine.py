"""The container engine: the only module that knows docker and compose by name.

What the engine's API answers is asked through the SDK; compose and builds go through the command line client.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import docker
import requests

from bundle.errors import CommandError, PreconditionError
from bundle.run import run

MINIMUM_SERVER = (24, 0)


def find_client(plugin: str) -> str:
    """The first `docker` on PATH whose `plugin` (compose, buildx) answers.

    Raises PreconditionError when there is none.
    """
    seen = []
    for folder in os.get_exec_path():
        candidate = shutil.which("docker", path=folder)
        if candidate is None:
            continue
        try:
            run([candidate, plugin, "version"], timeout=30)
        except CommandError:
            seen.append(candidate)
            continue
        return candidate
    if seen:
        message = f"{', '.join(seen)} misses the plugin {plugin}"
        raise PreconditionError(message, hint=f"Install the package docker-{plugin} (or docker-{plugin}-plugin).")
    raise PreconditionError("docker not found, needed to run the containers", hint="Install Docker Engine 24 or newer.")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One container engine, reached by its socket (`host` as in DOCKER_HOST; empty: the environment's)."""

    host: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @cached_property
    def api(self) -> docker.DockerClient:
        """The SDK's client.

        Raises PreconditionError when no engine answers or access is denied.
        """
        try:
            client = docker.DockerClient(base_url=self.host, timeout=600) if self.host else docker.from_env(timeout=600)
            client.ping()
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise self._unreachable(error) from error
        return client

    def _unreachable(self, error: Exception) -> PreconditionError:
        if "ermission denied" in str(error):
            return PreconditionError(
                "permission to talk to the container engine is denied",
                hint="Run as root, or as a member of the group docker.",
            )
        return PreconditionError(
            f"no container engine answers at {self.host or os.environ.get('DOCKER_HOST', 'the default socket')}",
            hint="Start Docker Engine 24 or newer (systemctl start docker), then run this again.",
        )

    @property
    def child_environment(self) -> dict[str, str]:
        """What a command line client of this engine needs, and nothing else (no proxy reaches a container)."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG") if key in os.environ}
        return {**kept, "LANG": "C.UTF-8", **({"DOCKER_HOST": self.host} if self.host else {}), **self.environment}

    def client(
        self, arguments: Sequence[str], *, timeout: float, text: str | None = None, stream: bool = False, check: bool = True
    ) -> str:
        """Run the command line client with `arguments`; `timeout` in seconds.

        Raises CommandError when it fails.
        """
        plugin = arguments[0] if arguments[0] in ("compose", "buildx") else "compose"
        return run(
            [find_client(plugin), *arguments],
            timeout=timeout,
            text=text,
            env=self.child_environment,
            stream=stream,
            check=check,
        )

    def compose(
        self, project: str, file: Path, arguments: Sequence[str], *, timeout: float, text: str | None = None, check: bool = True
    ) -> str:
        """Run compose on the rendered `file`.

        Raises CommandError when it fails.
        """
        return self.client(
            ["compose", "--project-name", project, "--file", str(file), *arguments], timeout=timeout, text=text, check=check
        )
