"""Looking into the running stack: what the engine says of its containers, commands inside them, one-off containers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

from bundle.engine import ONE_OFF_LABEL, PROJECT_LABEL, SERVICE_LABEL, find_client
from bundle.errors import CommandError
from bundle.gateway_client import clients_ca
from bundle.host import Host
from bundle.model import OneOff
from bundle.plan import OPS_UID, Plan
from bundle.run import run_into
from bundle.services.names import ROOT_CA
from bundle.site import SITE_LABEL


def inspect(plan: Plan, host: Host) -> dict[str, dict[str, Any]]:
    """Everything that the engine says of each service's container.

    Raises PreconditionError when no engine answers.
    """
    wanted: dict[str, str | list[str] | bool] = {
        "label": [f"{PROJECT_LABEL}={plan.project}", f"{ONE_OFF_LABEL}=False"]
    }
    containers = host.engine.api.containers.list(all=True, filters=wanted, ignore_removed=True)
    return {c.attrs["Config"]["Labels"].get(SERVICE_LABEL, ""): dict(c.attrs) for c in containers}


def execute(plan: Plan, host: Host, service: str, script: str, *, timeout: float) -> str:
    """Run `script` by bash inside the container of `service`; its standard output.

    Raises CommandError when the container does not run, or the script fails.
    """
    return host.engine.compose(
        plan.project,
        host.compose_file,
        ["exec", "-T", service, "bash", "-c", script],
        timeout=timeout,
    )


def superuser(plan: Plan, host: Host, statements: str, database: str = "postgres") -> str:
    """Have psql run `statements` as the superuser, over the socket inside the Postgres container; its answer.

    Raises CommandError when Postgres refuses.
    """
    words = ["exec", "-T", "postgres", "psql", "--no-psqlrc", "--quiet"]
    words += ["-h", "/tmp", "-U", "postgres", "-d", database]
    file = host.compose_file
    return host.engine.compose(plan.project, file, words, text=statements, timeout=60)


def execute_into(
    plan: Plan, host: Host, service: str, command: Sequence[str], out: IO[bytes], *, timeout: float
) -> None:
    """Run `command` inside the container of `service`, what it gives into the file `out`.

    Raises CommandError when the container does not run, or the command fails.
    """
    file = str(host.compose_file)
    line = [find_client("compose"), "compose", "--project-name", plan.project, "--file", file]
    line += ["exec", "-T", service, *command]
    run_into(line, out, timeout=timeout, env=host.engine.child_environment)


def ask(
    plan: Plan,
    host: Host,
    module: str,
    request: Mapping[str, Any],
    *,
    timeout: float,
    network: str = "",
    hosts: Mapping[str, str] | None = None,
    writable: Mapping[str, str] | None = None,
) -> Any:
    """Run `bundle.ops.<module>` in a one-off container: `request` on standard input, the answer on standard output.

    `network`: empty for the stack's data network; `hosts`: addresses by name that it shall know; `writable`: folders
    of the ops user on this host, by where they stand in it.

    Raises CommandError when it fails or gives no answer.
    """
    trusted = clients_ca(host) if network == "host" else host.path("pki", "root.crt")
    answer = host.engine.one_off(
        OneOff(
            image=plan.image("ops"),
            arguments=("-m", f"bundle.ops.{module}"),
            user=OPS_UID,
            network=network or f"{plan.project}_data",
            hosts=dict(hosts or {}),
            labels={SITE_LABEL: plan.id},
            binds={str(trusted): ROOT_CA, **(writable or {})},
            writable=tuple((writable or {}).values()),
            environment={"HOME": "/tmp", "MLFLOW_DISABLE_TELEMETRY": "true"},
        ),
        text=json.dumps(request),
        timeout=timeout,
    )
    try:
        return json.loads(answer)
    except ValueError as error:
        raise CommandError(
            f"bundle.ops.{module} gave no answer", hint="Run again with --debug."
        ) from error
