"""Bring a point back: in the place of what is here, or onto an empty host with bundle, backup and kit alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bundle import (
    auditlog,
    install,
    intake,
    jobs,
    kit,
    ledger,
    operate,
    points,
    recovery,
    registry,
    repository,
    restore,
    site,
    vault,
)
from bundle.console import confirm
from bundle.errors import ConfigError
from bundle.host import Host
from bundle.plan import PROJECT, Plan
from bundle.run import log, step
from bundle.words import say
from bundle.workflows.backups import LOCK
from bundle.workflows.closed import open_host, open_plan, place_files, planned, serve_site


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which point, and, on an empty host, the kit and what opens it."""

    point: str
    to_time: str
    kit: str
    key: str
    passphrase: str
    yes: bool


def restore_point(here: Path, wanted: Wanted) -> str:
    """Put the databases and objects of a point in the place of those that are here; its id.

    Raises ConfigError for a point of another release, IntegrityError when the backups are not what the ledger says.
    """
    if bool(wanted.kit) != bool(wanted.key):
        raise ConfigError(
            "--kit and --key go together", where="--kit", hint="Give both, or neither."
        )
    if wanted.kit:
        unpack_kit(here, wanted)
    host, plan = open_plan(here)
    with host.lock("restore"), host.lock("restore", LOCK):
        point = points.chosen(ledger.check(host, plan.site), wanted.point, wanted.to_time)
        restore.check(plan, point)
        restore.check_room(host, point)
        confirm(question(host, point), yes=wanted.yes)
        put_back(plan, host, point)
    return point.id


def question(host: Host, point: points.Point) -> str:
    """What the operator is asked."""
    when = f"{point.at:%Y-%m-%d %H:%M:%S} UTC"
    return say(
        f"put everything in {host.root} back to {when} ({point.id})?",
        f"{host.root}의 모든 것을 {when} 시점으로 되돌릴까요 ({point.id})?",
    )


def put_back(plan: Plan, host: Host, point: points.Point) -> None:
    """The steps: each can be run again, and the note keeps everything else away until the last one is done."""
    with step(say("secrets of the point, services stop", "시점의 비밀, 서비스 정지")):
        store = vault.open_store(host, plan)
        taken = restore.take_secrets(host, restore.opener(plan, host, store, point))
        log.info("  %s: %s", say("secrets", "비밀"), ", ".join(taken) or say("as here", "그대로"))
        former = restore.remember(host, point)
        operate.stop(plan, host)
        install.prepare(plan, host)
        repository.own(plan, host)
        install.create(plan, host)
    with step(say("databases, to the named place", "데이터베이스 (지정한 지점까지)")):
        restore.databases(plan, host, point, former)
        install.start_stores(plan, host)
        restore.wait_promoted(plan, host, point)
        install.declare(plan, host)
    with step(say("objects, compared with the rows", "객체 (행과 비교)")):
        found = restore.objects(plan, host, vault.open_store(host, plan), point)
        log.info(
            "  %s",
            say(
                f"{found['objects']} objects, {found['read']} written, {found['gone']} of later taken away",
                f"객체 {found['objects']}개, 기록 {found['read']}개, 이후 객체 {found['gone']}개 삭제 표시",
            ),
        )
    restore.forget(host)
    with step(say("services, gateway last", "서비스 (게이트웨이는 마지막)")):
        install.start_others(plan, host)
    serve_site(plan, host)
    site.record_version(host, plan.version)
    log.info("  %s", jobs.install(host) or jobs.no_boot())
    note = {"kind": "restored", "point": point.id, "at": auditlog.stamp()}
    ledger.append(host, plan.site, note)


def unpack_kit(here: Path, wanted: Wanted) -> None:
    """On an empty host: what the kit holds, the images, and everything that services read; nothing is started."""
    recovery.check_openssl()
    host, release = open_host(here)
    restore.check_empty(host)
    with host.lock("restore"):
        with step(say("open the kit", "키트 열기")):
            opened = recovery.open_kit(Path(wanted.kit), Path(wanted.key), wanted.passphrase)
            kit.check_root_keys(opened.files)
            restore.unpack(host, opened.files)
        settings = site.read_site(host)
        hub = registry.open_registry(settings)
        sealed = hub.rename(release.manifest) if hub else release.manifest
        facts = host.engine.facts(PROJECT, site.SITE_LABEL, site.read_site_id(host))
        plan = planned(host, sealed.version, settings, facts)
        with step(say("images, out of the bundle into the engine", "이미지 적재 (번들 → 엔진)")):
            intake.import_images(release.bundle, sealed, host.engine, (), hub)
        place_files(host, release.bundle, sealed)
        with step(say("secrets, certificates, settings", "비밀, 인증서, 설정")):
            install.prepare(plan, host)
