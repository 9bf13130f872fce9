"""Daily life on the closed host: start, stop, status, logs, and taking it all away again."""

from __future__ import annotations

import datetime
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from bundle import copies, expiring, jobs, kit, ledger, mlflow_account, underway
from bundle.errors import BundleError, CommandError, ConfigError, PreconditionError
from bundle.host import Host
from bundle.model import Container, ExtraService
from bundle.plan import Plan
from bundle.points import PROVEN
from bundle.services import names
from bundle.services.names import door_hosts, public, url
from bundle.services.postgres import BACKUPS
from bundle.site import SITE_LABEL, read_site_id
from bundle.words import say

ENGINE_WITHIN_S = 60


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the status table."""

    name: str
    state: str
    detail: str
    good: bool = True

    @property
    def mark(self) -> str:
        """The state with a sign, for a table."""
        return f"{'✓' if self.good else '✗'} {self.state}"


def wait_for_engine(host: Host, timeout: float = ENGINE_WITHIN_S) -> None:
    """Wait until the engine answers, as after a boot; `timeout` in seconds.

    Raises PreconditionError when it does not.
    """
    start = time.monotonic()
    while True:
        try:
            host.engine.api.ping()
            return
        except PreconditionError:
            if time.monotonic() - start > timeout:
                raise
        time.sleep(1)


def stop(plan: Plan, host: Host) -> None:
    """Stop every service; data stays.

    Raises CommandError when the engine refuses.
    """
    file = host.compose_file
    host.engine.compose(plan.project, file, ["stop", "--timeout", "30"], timeout=180)


def logs(plan: Plan, host: Host, service: str, since: str) -> str:
    """The log of `service` (empty: of all) since a time or for a duration like 1h.

    Raises ConfigError for an unknown service.
    """
    known = [s.name for s in plan.services] + [extra.slug for extra in plan.extras]
    if service and service not in known:
        raise ConfigError(
            f"{service!r} is not a service", where="--service", hint=f"Known: {', '.join(known)}."
        )
    arguments = [
        "logs",
        "--no-color",
        "--timestamps",
        "--since",
        since,
        *([service] if service else []),
    ]
    return host.engine.compose(plan.project, host.compose_file, arguments, timeout=120)


def _service_line(plan: Plan, name: str, container: Container | None) -> Line:
    if container is None:
        return Line(name=name, state="absent", detail="start it with invoke start", good=False)
    healthy = container.state == "running" and container.health == "healthy"
    state = container.health if container.state == "running" else container.state
    wrong = (
        ""
        if container.image == plan.image(plan.service(name).runs)
        else " (not this release's image)"
    )
    detail = f"{container.image}{wrong}, since {container.started[:19]}Z"
    return Line(name=name, state=state, detail=detail, good=healthy and not wrong)


def extra_line(plan: Plan, extra: ExtraService, container: Container | None) -> Line:
    """The line of a site's own service; what is not probed is well while it runs, and a job when it has ended well."""
    if container is None:
        return Line(
            name=extra.slug, state="absent", detail="start it with invoke start", good=False
        )
    running = container.state == "running"
    ended = container.state == "exited" and container.exit_code == 0
    well = running and container.health == ("healthy" if extra.health else "")
    good = well or (ended and extra.restart != "unless-stopped")
    wrong = (
        "" if container.image == plan.extra_image(extra.image) else " (not this release's image)"
    )
    state = (container.health or "running") if running else container.state
    detail = f"{container.image}{wrong}, since {container.started[:19]}Z"
    return Line(name=extra.slug, state=state, detail=detail, good=good and not wrong)


def certificate_lines(plan: Plan, host: Host) -> list[Line]:
    """When each certificate expires, the next one first."""
    return [
        Line(
            name=f"certificate {entry.name}",
            state=f"{entry.days} d",
            detail=f"until {entry.until:%Y-%m-%d}",
            good=entry.good,
        )
        for entry in expiring.entries(host, plan)
    ]


def root_key_line(host: Host) -> Line:
    """Whether the root's key is where it belongs."""
    away, detail = expiring.root_key_line(host)
    return Line(name="root key", state="away" if away else "here", detail=detail, good=away)


def kit_line(host: Host) -> Line:
    """Whether there is a recovery kit that would be enough."""
    good, detail = kit.state(host)
    return Line(name="recovery kit", state="good" if good else "needed", detail=detail, good=good)


def account_lines(plan: Plan, host: Host) -> list[Line]:
    """What somebody did to the stack's own account in MLflow, which makes MLflow unhealthy; nothing when it is so."""
    try:
        wrong = mlflow_account.look(plan, host)
    except CommandError:  # the line of postgres says why
        return []
    detail = f"{wrong}. {mlflow_account.remedy()}"
    return [Line(name="MLflow account", state="changed", detail=detail, good=False)] * bool(wrong)


def backup_line(plan: Plan, host: Host) -> Line:
    """The newest recovery point, and the last one that was proven by restoring it."""
    try:
        found = ledger.check(host, plan.site)
    except (BundleError, OSError) as error:
        return Line(name="backup", state="broken", detail=str(error).splitlines()[0], good=False)
    if not found:
        return Line(name="backup", state="none", detail="invoke backup", good=False)
    minutes = int(
        (datetime.datetime.now(datetime.timezone.utc) - found[-1].at).total_seconds() / 60
    )
    proven = [point for point in found if point.level >= PROVEN][-1:]
    detail = f"{found[-1].id}; " + say("proven: ", "증명: ")
    detail += f"{proven[0].id} L{proven[0].level}" if proven else say("none", "없음")
    late = minutes > max(3 * plan.site.backup_every_minutes, 15)
    return Line(name="backup", state=f"{minutes} min", detail=detail, good=not late)


def status(plan: Plan, host: Host) -> list[Line]:
    """Services, doors, what expires next, and the room that is left."""
    containers = host.engine.containers(plan.project)
    lines = [
        _service_line(plan, service.name, containers.get(service.name)) for service in plan.services
    ]
    lines += [extra_line(plan, extra, containers.get(extra.slug)) for extra in plan.extras]
    lines += [*account_lines(plan, host), *doors(plan)]
    lines += [certificate_lines(plan, host)[0], root_key_line(host), kit_line(host)]
    lines += [backup_line(plan, host)]
    return lines + disk_lines(host)


def disk_lines(host: Host) -> list[Line]:
    """The room that is left where the installation lies and where the engine keeps images and data."""
    places = {host.root.stat().st_dev: host.root}
    engine = Path(host.engine.api.info()["DockerRootDir"])
    if engine.exists():
        places.setdefault(engine.stat().st_dev, engine)
    lines = []
    for place in places.values():
        usage = shutil.disk_usage(place)
        share = 100 * usage.used // usage.total
        detail = f"{usage.free / (1 << 30):.1f} GiB free ({place})"
        lines.append(Line(name="disk", state=f"{share} %", detail=detail, good=share < 85))
    return lines


def doors(plan: Plan) -> list[Line]:
    """The URL of each door that opens on this host: by its name where that is known here, else by its address."""
    named = plan.site.layout == "names" or address(plan) not in door_hosts(plan.site, "portal")
    host = "" if named or is_known(plan) else address(plan)
    return [
        Line(name=door, state="url", detail=url(plan.site, door, host))
        for door in names.doors(plan.site)
    ]


def address(plan: Plan) -> str:
    """The address by which this host reaches the gateway."""
    return "127.0.0.1" if plan.site.bind == "0.0.0.0" else plan.site.bind


def is_known(plan: Plan) -> bool:
    """Whether this host resolves the site's domain."""
    try:
        socket.getaddrinfo(plan.site.domain, None)
    except OSError:
        return False
    return True


def uninstall(host: Host, *, purge: bool) -> list[str]:
    """Remove what the product made: containers and networks; with `purge` volumes, images, secrets and CA too.

    Backups under the root go with it, those in a folder of the site's own stay. Only what carries this installation's
    mark is touched. Returns what was removed.
    """
    mark = read_site_id(host)
    if not mark:
        return []
    removed = host.engine.remove_labelled(f"{SITE_LABEL}={mark}", volumes=purge)
    jobs.remove(host)
    if purge:
        removed += host.engine.remove_images("tracking-bundle/")
        removed += host.engine.remove_images("tracking-extra/")
        for name in (
            "rendered",
            "secrets",
            "pki",
            "reports",
            "sockets",
            "audit",
            "safety",
            "recovery",
            BACKUPS,
        ):
            if host.path(name).exists():
                shutil.rmtree(host.path(name))
                removed.append(str(host.path(name)))
        logs = ("boot.log", *(f"{job.name}.log" for job in jobs.jobs(host)))
        notes = (kit.NOTE, underway.NOTE, copies.NOTE)
        for name in ("site-id", "site.toml", "installed", *notes, *logs, "request.json"):
            host.path(name).unlink(missing_ok=True)
    return removed


def door_notes(plan: Plan) -> list[str]:
    """How people reach the stack by its name, from this host and from others."""
    site = plan.site
    hosts = " ".join(dict.fromkeys(public(site, door) for door in names.doors(plan.site)))
    notes = []
    if not is_known(plan):
        text = say("to open them by name: add to /etc/hosts", "이름으로 열려면 /etc/hosts에 추가")
        notes.append(f"{text}: {address(plan)} {hosts}")
    if site.bind == "127.0.0.1":
        text = say(
            "for colleagues: set bind in site.toml to this host's address, run invoke install, name it in the DNS",
            "동료에게 열기: site.toml의 bind를 이 호스트 주소로 바꾸고 invoke install, DNS에 이름을 등록하십시오",
        )
    else:
        text = say(f"the site's DNS must name {hosts}", f"사이트 DNS에 등록할 이름: {hosts}")
    return [*notes, text]
