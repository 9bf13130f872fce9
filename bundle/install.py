"""Bring the stack up on the closed host; each step can be run again, and finishes what was begun."""

from __future__ import annotations

import hashlib
import os
import time

from bundle import auditlog, mlflow_account, pki, repository, site, sso, underway, vault
from bundle.bootstrap import check_separation, make_buckets, make_databases
from bundle.denied import ensure_denied
from bundle.errors import CommandError
from bundle.host import Host, make_folder
from bundle.migrations import migrate
from bundle.model import RELOADED, Container, ExtraService, Service
from bundle.plan import Plan
from bundle.run import log, tail
from bundle.services import forward
from bundle.templates import render
from bundle.words import say

HEALTHY_WITHIN_S = 300
CRASHES = 3
PATIENCE_S = 90
"""What was unhealthy before its neighbour was mended needs some probes to notice."""
SETTLED_S = 2
"""What is not probed runs when it has run for so long."""


def write_rendered(plan: Plan, host: Host) -> list[str]:
    """Write every generated file; returns those that changed."""
    make_folder(host.path("rendered"), 0o755)
    stamps = {service.name: service_stamp(host, service) for service in plan.services}
    stamps |= {extra.slug: extra_stamp(host, extra) for extra in plan.extras}
    return [str(file.path) for file in render(plan, stamps=stamps) if host.write(file)]


def unapplied(plan: Plan, host: Host) -> list[str]:
    """The generated files that are not what the last install wrote, but for the labels, which follow the secrets."""

    def bare(text: str) -> list[str]:
        return [line for line in text.splitlines() if "org.tracking-bundle.config:" not in line]

    found = {file.path: host.root / file.path for file in render(plan)}
    return [
        str(file.path)
        for file in render(plan)
        if not (path := found[file.path]).exists()
        or bare(path.read_text("utf-8")) != bare(file.text)
    ]


def stamp(host: Host, service: str, left_out: tuple[str, ...] = ()) -> str:
    """A digest of the files of a service's folder, but for those `left_out`."""
    whole = hashlib.sha256()
    for path in sorted(host.path("secrets", service).iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.name not in left_out:
            whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def service_stamp(host: Host, service: Service) -> str:
    """A digest of the certificates and secrets that a service reads when it starts, and not when it reloads."""
    return stamp(host, service.name, RELOADED if service.reloads or not service.port else ())


def extra_stamp(host: Host, service: ExtraService) -> str:
    """A digest of what a site's own service reads: its credentials and the files that are mounted."""
    whole = hashlib.sha256()
    if service.client and host.path("secrets", service.slug).is_dir():
        whole.update(stamp(host, service.slug).encode())
    mounted = tuple(f"extras/{place}" for place, _ in service.files)
    for path, digest in sorted(site.placed(host).items()):
        if any(path == place or path.startswith(f"{place}/") for place in mounted):
            whole.update(f"{path}\0{digest}\0".encode())
    return whole.hexdigest()


def prepare(plan: Plan, host: Host) -> None:
    """Secrets, certificates and rendered files: everything that the services read.

    Raises ConfigError when what is there of an earlier run cannot be used.
    """
    store = vault.open_store(host, plan)
    vault.hand_out(host, plan, store)
    sso.prepare(plan, host)
    renewed = pki.issue(host, plan)
    pki.write_lists(host)
    ensure_denied(plan, host)
    vault.close(host, plan)
    make_meetings(plan, host)
    auditlog.prepare(host, plan.service("gateway").uid)
    repository.prepare(plan, host)
    changed = write_rendered(plan, host)
    log.info(
        "  certificates: %s; files: %s",
        ", ".join(renewed) or "unchanged",
        f"{len(changed)} changed",
    )


def make_meetings(plan: Plan, host: Host) -> None:
    """Make the folder of each socket that two services share; nobody else on this host can enter it."""
    make_folder(host.path("sockets"), 0o700)
    for service in plan.services:
        for meeting in (meeting for meeting in service.meetings if meeting.host):
            folder = host.path("sockets", meeting.name)
            make_folder(folder, 0o755)
            os.chown(folder, service.uid, service.uid)


def _state(container: Container | None) -> str:
    if container is None:
        return "absent"
    return (
        container.health if container.state == "running" and container.health else container.state
    )


def wait_healthy(
    plan: Plan, host: Host, names: tuple[str, ...], timeout: float = HEALTHY_WITHIN_S
) -> None:
    """Wait until the services `names` are healthy, telling of each one; `timeout` in seconds.

    Raises CommandError with the last lines of the log of the service that is not.
    """
    start, waiting = time.monotonic(), set(names)
    while waiting:
        containers = host.engine.containers(plan.project)
        for name in sorted(waiting):
            state = _state(containers.get(name))
            if state == "healthy":
                log.info("  %s is healthy (%.1f s)", name, time.monotonic() - start)
                waiting.discard(name)
            elif _crashes(containers.get(name)) >= CRASHES or (
                state == "unhealthy" and time.monotonic() - start > PATIENCE_S
            ):
                raise not_healthy(plan, host, name, state, time.monotonic() - start)
        if waiting and time.monotonic() - start > timeout:
            name = min(waiting)
            raise not_healthy(plan, host, name, _state(containers.get(name)), timeout)
        if waiting:
            time.sleep(0.5)


def _crashes(container: Container | None) -> int:
    return container.restarts if container and container.state != "running" else 0


def not_healthy(plan: Plan, host: Host, name: str, state: str, seconds: float) -> CommandError:
    """The error for a service that does not become healthy: its state, its last log lines, its last probe."""
    logs = host.engine.compose(
        plan.project,
        host.compose_file,
        ["logs", "--no-color", "--no-log-prefix", "--tail", "20", name],
        timeout=60,
        check=False,
    )
    probe = host.engine.last_probe(plan.project, name)
    return CommandError(
        f"is {state} after {seconds:.0f} s\n{tail(logs)}"
        + (f"\n  last probe: {probe}" if probe else ""),
        where=name,
        hint=f"Mend what its log says, then run this again; invoke logs --service {name} shows all of it.",
    )


def up(plan: Plan, host: Host, names: tuple[str, ...]) -> None:
    """Create and start the services `names`; running ones whose settings are unchanged are left alone.

    Raises CommandError when the engine refuses.
    """
    arguments = ["up", "--detach", "--no-deps", "--pull", "never", "--no-build", *names]
    host.engine.compose(plan.project, host.compose_file, arguments, timeout=300)


def create(plan: Plan, host: Host) -> None:
    """Make networks, volumes and containers of the stores, and start none.

    Raises CommandError when the engine refuses.
    """
    arguments = ["create", "--pull", "never", "--no-build", *stores(plan)]
    host.engine.compose(plan.project, host.compose_file, arguments, timeout=300)


def stores(plan: Plan) -> tuple[str, ...]:
    """The services that hold data: they are started and bootstrapped before those that need them."""
    return tuple(service.name for service in plan.services if not service.needs)


def others(plan: Plan) -> tuple[str, ...]:
    """The services that need the stores."""
    return tuple(service.name for service in plan.services if service.needs)


def wait_for_postgres(plan: Plan, host: Host, timeout: float = 120) -> None:
    """Wait until Postgres answers on its socket: its health needs a role that is only made then; `timeout` in seconds.

    Raises CommandError with its last log lines when it does not.
    """
    start = time.monotonic()
    ready = ["exec", "-T", "postgres", "pg_isready", "--quiet", "-h", "/tmp"]
    while True:
        try:
            host.engine.compose(plan.project, host.compose_file, ready, timeout=30)
            return
        except CommandError:
            container = host.engine.containers(plan.project).get("postgres")
            if time.monotonic() - start > timeout or _crashes(container) >= CRASHES:
                raise not_healthy(
                    plan, host, "postgres", _state(container), time.monotonic() - start
                ) from None
        time.sleep(0.5)


def bring_up(plan: Plan, host: Host) -> None:
    """Start the stores, make what is declared in them, start the rest, wait until all are healthy.

    Raises CommandError when a service does not become healthy, or a restore was cut short.
    """
    underway.refuse(host)
    start_stores(plan, host)
    declare(plan, host)
    start_others(plan, host)


def start_stores(plan: Plan, host: Host) -> None:
    """Start what holds data, until Postgres answers.

    Raises CommandError when it does not.
    """
    up(plan, host, stores(plan))
    wait_for_postgres(plan, host)


def declare(plan: Plan, host: Host) -> None:
    """Make what is declared in the stores: databases, roles, buckets, tables.

    Raises CommandError when something cannot be made so.
    """
    store = vault.open_store(host, plan)
    marks = make_databases(plan, host, store)
    repository.ensure_stanza(plan, host)
    wait_healthy(plan, host, stores(plan))
    made = make_buckets(plan, host, store)
    check_separation(plan, host, store)
    migrate(plan, host, store, marks)
    log.info("  databases and roles are so; new buckets: %s", ", ".join(made) or "none")
    if wrong := mlflow_account.mend(plan, host):
        log.warning("  %s: %s", wrong, say("it is as the store says again", "저장된 값으로 되돌림"))


def start_others(plan: Plan, host: Host) -> None:
    """Start what needs the stores, the gateway last, until all are healthy.

    Raises CommandError when one does not become so.
    """
    up(plan, host, others(plan))
    wait_healthy(plan, host, others(plan))


def bring_up_extras(plan: Plan, host: Host) -> None:
    """Start the site's own services, each after those that it needs; what nobody wants any more goes.

    Raises CommandError when one does not become well.
    """
    known = {service.name for service in plan.services} | {extra.slug for extra in plan.extras}
    if set(host.engine.containers(plan.project)) - known and not plan.extras:
        up_extras(plan, host, ("gateway",))  # which runs as it is: this only takes the others away
    for wave in waves(plan.extras):
        up_extras(plan, host, tuple(extra.slug for extra in wave))
        probed = [extra.health for extra in wave if extra.health]
        limit = max([HEALTHY_WITHIN_S, *(health.patience for health in probed)])
        wait_healthy(plan, host, tuple(e.slug for e in wave if e.health), timeout=limit)
        for extra in wave:
            if not extra.health:
                wait_settled(plan, host, extra)
    unused = f"{plan.project}_{forward.NETWORK}"
    if not plan.site.allow and host.engine.network(unused):
        host.engine.client(["network", "rm", unused], timeout=60)


def waves(extras: tuple[ExtraService, ...]) -> list[list[ExtraService]]:
    """The services in the order in which they can be started: each after those that it needs."""
    found: list[list[ExtraService]] = []
    done: set[str] = set()
    while rest := [extra for extra in extras if extra.name not in done]:
        found.append([extra for extra in rest if done.issuperset(extra.needs)])
        done |= {extra.name for extra in found[-1]}
    return found


def up_extras(plan: Plan, host: Host, names: tuple[str, ...]) -> None:
    """Create and start the services `names`, and take away what the compose file does not know.

    Raises CommandError when the engine refuses.
    """
    arguments = ["up", "--detach", "--no-deps", "--pull", "never", "--no-build"]
    arguments += ["--remove-orphans", *names]
    host.engine.compose(plan.project, host.compose_file, arguments, timeout=300)


def wait_settled(plan: Plan, host: Host, extra: ExtraService) -> None:
    """See that a service without a probe runs, or, as one that is not started again, has ended well.

    Raises CommandError with the last lines of its log when not.
    """
    start = time.monotonic()
    while True:
        container = host.engine.containers(plan.project).get(extra.slug)
        seconds = time.monotonic() - start
        if container and container.state == "running" and seconds >= SETTLED_S:
            return
        if container and container.state == "exited":
            if container.exit_code == 0 and extra.restart != "unless-stopped":
                return
            if extra.restart == "no" or container.restarts >= CRASHES:
                raise not_healthy(
                    plan, host, extra.slug, f"exited ({container.exit_code})", seconds
                )
        if _crashes(container) >= CRASHES or seconds > PATIENCE_S:
            raise not_healthy(plan, host, extra.slug, _state(container), seconds)
        time.sleep(0.5)
