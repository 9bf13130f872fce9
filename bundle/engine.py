"""The container engine: the only module that knows docker and compose by name.

What the engine's API answers is asked through the SDK; compose and builds go through the command line client.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
import requests

from bundle.errors import CommandError, PreconditionError
from bundle.model import Container, EngineFacts, Image, OneOff
from bundle.run import run

MINIMUM_SERVER = (24, 0)
DEFAULT_HOST = "unix:///var/run/docker.sock"
CLIENT_VARIABLES = ("PATH", "HOME", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
API_OF_MINIMUM = "1.43"
CLOSED_HOST_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "containerd", "iptables")
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"


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
        raise PreconditionError(
            message, hint=f"Install the package docker-{plugin} (or docker-{plugin}-plugin)."
        )
    raise PreconditionError(
        "docker not found, needed to run the containers", hint="Install Docker Engine 24 or newer."
    )


def save_command(references: Sequence[str], *, client: str = "docker") -> list[str]:
    """The engine's own way to put images into an archive, on standard output: what ours is compared with."""
    return [client, "save", *references]


def load_command(archive: str) -> list[str]:
    """The engine's own way to take in the images of an archive: what ours is compared with."""
    return ["docker", "load", "--quiet", "--input", archive]


def _options(wanted: OneOff) -> list[str]:
    """The options of a one-off container: no rights, no writable root, no log, nothing pulled."""
    options = ["--rm", "--interactive", "--log-driver", "none", "--pull", "never", "--read-only"]
    options += ["--cap-drop", "ALL"]
    options += ["--security-opt", "no-new-privileges:true", "--pids-limit", "256"]
    options += ["--memory", f"{wanted.memory_mb}m", "--user", f"{wanted.user}:{wanted.user}"]
    options += ["--network", wanted.network, "--tmpfs", "/tmp:size=512m,mode=1777,nosuid,nodev"]
    if wanted.entrypoint:
        options += ["--entrypoint", wanted.entrypoint]
    for key, value in wanted.labels.items():
        options += ["--label", f"{key}={value}"]
    for name, address in wanted.hosts.items():
        options += ["--add-host", f"{name}:{address}"]
    for source, target in wanted.binds.items():
        line = io.StringIO()
        # the client reads this option as CSV
        kind = "bind" if source.startswith("/") else "volume"
        mount = [f"type={kind}", f"source={source}", f"target={target}"]
        mount += [] if target in wanted.writable else ["readonly"]
        csv.writer(line, lineterminator="").writerow(mount)
        options += ["--mount", line.getvalue()]
    for key, value in {"NO_PROXY": "*", "no_proxy": "*", **wanted.environment}.items():
        options += ["--env", f"{key}={value}"]
    return options


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
            client = (
                docker.DockerClient(base_url=self.host, timeout=600)
                if self.host
                else docker.from_env(timeout=600)
            )
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
        """What a command line client of this engine needs, and nothing else (no proxy reaches a container).

        It is told the SDK's engine: its own notion of the current context may be another one.
        """
        kept = {key: os.environ[key] for key in CLIENT_VARIABLES if key in os.environ}
        host = self.host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        return {**kept, "LANG": "C.UTF-8", "DOCKER_HOST": host, **self.environment}

    def client(
        self,
        arguments: Sequence[str],
        *,
        timeout: float,
        text: str | None = None,
        stream: bool = False,
        check: bool = True,
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
        self,
        project: str,
        file: Path,
        arguments: Sequence[str],
        *,
        timeout: float,
        text: str | None = None,
        check: bool = True,
    ) -> str:
        """Run compose on the rendered `file`.

        Raises CommandError when it fails.
        """
        return self.client(
            ["compose", "--project-name", project, "--file", str(file), *arguments],
            timeout=timeout,
            text=text,
            check=check,
        )

    def one_off(self, wanted: OneOff, *, text: str, timeout: float) -> str:
        """Run one container to its end, `text` on its standard input; its output is returned and never logged.

        Raises CommandError when it fails.
        """
        name = f"tracking-ops-{secrets.token_hex(4)}"
        command = ["run", "--name", name, *_options(wanted), wanted.image, *wanted.arguments]
        try:
            return self.client(command, text=text, timeout=timeout)
        except BaseException:  # a client that is ended leaves its container behind
            self.client(["rm", "--force", name], timeout=60, check=False)
            raise

    def facts(self, project: str, site_label: str, site_id: str) -> EngineFacts:
        """Ask the engine about itself and about `project`.

        Raises PreconditionError when no engine answers.
        """
        info, version = self.api.info(), self.api.version()
        containers = self.api.api.containers(all=True)
        ports = {
            (container["Labels"].get(PROJECT_LABEL, ""), port.get("IP", ""), port["PublicPort"])
            for container in containers
            for port in container["Ports"]
            if "PublicPort" in port
        }
        strangers = [
            container["Names"][0].lstrip("/")
            for container in containers
            if container["Labels"].get(PROJECT_LABEL) == project
            and container["Labels"].get(site_label) != site_id
        ]
        volumes = self.api.api.volumes()["Volumes"] or []
        return EngineFacts(
            version=version["Version"],
            compose=self._compose_version(),
            arch=version["Arch"],
            memory=info["MemTotal"],
            folder=info["DockerRootDir"],
            memory_limit=bool(info["MemoryLimit"]),
            pids_limit=bool(info["PidsLimit"]),
            forwarding=bool(info["IPv4Forwarding"]),
            live_restore=bool(info["LiveRestoreEnabled"]),
            security=" ".join(info.get("SecurityOptions") or []),
            api=tuple(int(part) for part in version["ApiVersion"].split(".")),
            ports=frozenset(ports),
            strangers=tuple(strangers),
            volumes={
                volume["Name"]: (volume["Labels"] or {}).get(site_label, "") for volume in volumes
            },
        )

    def _compose_version(self) -> str:
        """The version of the compose plugin; empty when there is none."""
        try:
            return self.client(["compose", "version", "--short"], timeout=30).strip()
        except PreconditionError:
            return ""

    def containers(self, project: str) -> dict[str, Container]:
        """The containers of `project` by service, one-off ones left out."""
        found = {}
        labels = [f"{PROJECT_LABEL}={project}", f"{ONE_OFF_LABEL}=False"]
        for container in self.api.containers.list(
            all=True, filters={"label": labels}, ignore_removed=True
        ):
            attributes = container.attrs
            state = attributes["State"]
            service = attributes["Config"]["Labels"].get(SERVICE_LABEL, "")
            found[service] = Container(
                name=attributes["Name"].lstrip("/"),
                image=attributes["Config"]["Image"],
                state=state["Status"],
                health=state.get("Health", {}).get("Status", ""),
                restarts=attributes["RestartCount"],
                started=state["StartedAt"],
                exit_code=state.get("ExitCode", 0),
            )
        return found

    def last_probe(self, project: str, service: str) -> str:
        """What the last failed health probe of a service printed; empty when there was none."""
        labels = [f"{PROJECT_LABEL}={project}", f"{ONE_OFF_LABEL}=False"]
        labels += [f"{SERVICE_LABEL}={service}"]
        for container in self.api.containers.list(
            all=True, filters={"label": labels}, ignore_removed=True
        ):
            log = container.attrs["State"].get("Health", {}).get("Log") or []
            failed = [entry["Output"].strip() for entry in log if entry["ExitCode"] != 0]
            return failed[-1].splitlines()[-1] if failed and failed[-1] else ""
        return ""

    def image(self, name: str, reference: str) -> Image | None:
        """The image that the engine has as `reference`, if any."""
        try:
            found = self.api.images.get(reference).attrs
        except docker.errors.ImageNotFound:
            return None
        layers = tuple(found["RootFS"]["Layers"])
        return Image(
            name=name, reference=reference, id=found["Id"], size=found["Size"], layers=layers
        )

    def tag(self, reference: str, other: str) -> None:
        """Give the image `reference` the name `other` too.

        Raises PreconditionError when no engine answers.
        """
        self.api.images.get(reference).tag(*other.rsplit(":", 1))

    def network(self, name: str) -> dict[str, Any] | None:
        """What the engine says of the network `name`; None when there is none."""
        found = [
            network for network in self.api.networks.list(names=[name]) if network.name == name
        ]
        return dict(found[0].attrs) if found else None

    def remove_labelled(self, label: str, *, volumes: bool) -> list[str]:
        """Remove the containers and networks that carry `label`, and the volumes too when asked.

        Returns the names of what was removed; what carries no label is not touched.
        """
        removed = []
        own: dict[str, str | list[str] | bool] = {"label": [label]}
        for container in self.api.containers.list(all=True, filters=own, ignore_removed=True):
            removed.append(f"container {container.name}")
            container.remove(force=True, v=True)
        for network in self.api.networks.list(filters=own):
            removed.append(f"network {network.name}")
            network.remove()
        for volume in self.api.volumes.list(filters={"label": label}) if volumes else []:
            removed.append(f"volume {volume.name}")
            volume.remove(force=True)
        return removed

    def remove_images(self, prefix: str) -> list[str]:
        """Remove every image whose name begins with `prefix`, in whatever registry; returns the names."""
        tags = [tag for image in self.api.images.list() for tag in image.tags]
        names = [tag for tag in tags if f"/{prefix}" in f"/{tag}"]
        for name in names:
            self.api.images.remove(name, force=True)
        return [f"image {name}" for name in names]

    def answers(self) -> bool:
        """Whether an engine answers now; leaves no connection behind."""
        client = None
        try:
            client = docker.DockerClient(
                base_url=self.host or None, timeout=10, version=API_OF_MINIMUM
            )
            return bool(client.ping())
        except (docker.errors.DockerException, requests.exceptions.RequestException):
            return False
        finally:
            if client is not None:
                client.close()

    def image_ids(self) -> list[str]:
        """The id of every image that the engine holds.

        Raises PreconditionError when no engine answers.
        """
        return [str(image["Id"]) for image in self.api.api.images()]
