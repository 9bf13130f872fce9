"""What this host does by itself for the stack: start it at boot, and its jobs; by systemd, or cron without it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from bundle.host import Host, write_file
from bundle.run import run
from bundle.site import read_site
from bundle.words import say

UNIT = Path("/etc/systemd/system/tracking-bundle.service")
CRON = Path("/etc/cron.d/tracking-bundle")
SYSTEMD = Path("/run/systemd/system")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A task that runs again and again (`when` for systemd, `cron` for cron); its words go to `<root>/<name>.log`."""

    name: str
    task: str
    title: str
    when: str
    cron: str

    @property
    def service(self) -> Path:
        """Its unit."""
        return UNIT.with_name(f"tracking-bundle-{self.name}.service")

    @property
    def timer(self) -> Path:
        """The timer of its unit."""
        return self.service.with_suffix(".timer")


JOBS = (
    Job(
        name="renew",
        task="pki.renew",
        title="renew certificates that are due",
        when="*-*-* 03:17:00",
        cron="17 3 * * *",
    ),
    Job(
        name="audit",
        task="audit.collect",
        title="chain the audit log and copy its head",
        when="*-*-* *:*:00",
        cron="* * * * *",
    ),
    Job(
        name="drill",
        task="restore --scratch",
        title="restore the newest point beside the live system and compare",
        when="Sun *-*-* 04:41:00",
        cron="41 4 * * 0",
    ),
    Job(
        name="prove",
        task="prove --level 1 --part",
        title="read a tenth of what is stored",
        when="Mon..Sat *-*-* 04:41:00",
        cron="41 4 * * 1-6",
    ),
)
"""The jobs whose times nobody chooses."""


def jobs(host: Host) -> tuple[Job, ...]:
    """Every job of this installation: how often points are made is the site's to say."""
    every = read_site(host).backup_every_minutes
    hourly = every == 60
    points = Job(
        name="backup",
        task="backup",
        title="make a recovery point",
        when="*-*-* *:00:30" if hourly else f"*-*-* *:00/{every}:30",
        cron="0 * * * *" if hourly else f"*/{every} * * * *",
    )
    return (*JOBS, points)


def no_boot() -> str:
    """What to say where this host has neither systemd nor cron."""
    return say(
        "neither systemd nor cron here: have the host run invoke start at boot, pki.renew daily, audit.collect each"
        " minute, backup each five, restore --scratch weekly",
        "systemd와 cron이 없습니다. 부팅 시 invoke start, 매일 pki.renew, 매분 audit.collect,"
        " 5분마다 backup, 매주 restore --scratch를 실행하십시오",
    )


def command(host: Host, task: str) -> str:
    """The shell line that runs a task of the current release."""
    current = host.path("current")
    return f"cd {shlex.quote(str(current))} && .venv/bin/invoke {task} --quiet"


def boot_command(host: Host) -> str:
    """The command that starts the stack after a boot."""
    return command(host, "start")


def _quoted(line: str) -> str:
    return line.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')


def boot_unit(host: Host) -> str:
    """The unit that starts the stack with the engine."""
    return f"""[Unit]
Description=tracking-bundle: MLflow and Phoenix
After=docker.service network-online.target
Requires=docker.service
PartOf=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c "{_quoted(boot_command(host))}"
TimeoutStartSec=600

[Install]
WantedBy=multi-user.target docker.service
"""


def job_units(host: Host, job: Job) -> dict[Path, str]:
    """The unit of a job and its timer; a host that was off at the time does it after its boot."""
    service = f"""[Unit]
Description=tracking-bundle: {job.title}
After=tracking-bundle.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c "{_quoted(command(host, job.task))}"
TimeoutStartSec=1800
# Only what is wrong goes to the journal: a job may run each minute.
SyslogLevel=warning
LogLevelMax=notice
"""
    timer = f"""[Unit]
Description=tracking-bundle: {job.title}

[Timer]
OnCalendar={job.when}
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {job.service: service, job.timer: timer}


def cron_text(host: Host) -> str:
    """The whole table for cron."""

    def line(when: str, task: str, name: str) -> str:
        log_file = shlex.quote(str(host.path(f"{name}.log")))
        return f"{when} root ({command(host, task)}) >>{log_file} 2>&1".replace("%", "\\%")

    lines = [line("@reboot", "start", "boot")]
    lines += [line(job.cron, job.task, job.name) for job in jobs(host)]
    return "\n".join([f"PATH={SEARCH}", *lines]) + "\n"


def install(host: Host) -> str:
    """Have the stack started at boot and the jobs run; returns what does it, empty where this host has neither."""
    if SYSTEMD.exists():
        write_file(UNIT, boot_unit(host).encode())
        for job in jobs(host):
            for path, text in job_units(host, job).items():
                write_file(path, text.encode())
        run(["systemctl", "daemon-reload"], timeout=60)
        run(["systemctl", "enable", UNIT.name], timeout=60)
        run(["systemctl", "enable", "--now", *(job.timer.name for job in jobs(host))], timeout=60)
        return str(UNIT)
    if CRON.parent.exists():
        write_file(CRON, cron_text(host).encode(), mode=0o644)
        return str(CRON)
    return ""


def remove(host: Host) -> None:
    """No longer start this stack at boot, nor run its jobs; an entry of another installation stays."""
    ours = shown(host)
    if str(UNIT) in ours and SYSTEMD.exists():
        timers = [job.timer.name for job in jobs(host)]
        run(["systemctl", "disable", "--now", *timers], timeout=60, check=False)
        run(["systemctl", "disable", UNIT.name], timeout=60, check=False)
    for path in ours:
        Path(path).unlink(missing_ok=True)


def shown(host: Host) -> list[str]:
    """The files that start this stack at boot or run its jobs."""
    ours = str(host.path("current"))
    paths = [UNIT, CRON, *(job.service for job in jobs(host))]
    found = [path for path in paths if path.exists() and ours in path.read_text("utf-8")]
    timers = [job.timer for job in jobs(host) if job.service in found and job.timer.exists()]
    return [str(path) for path in (*found, *timers)]
