"""What each task does on the closed host, as a list of named steps: reading this is reading the product."""

from __future__ import annotations

import datetime
import os
import sys
from pathlib import Path

from bundle import (
    checks,
    clients,
    delta,
    firewall,
    install,
    intake,
    jobs,
    manifest,
    operate,
    place,
    preflight,
    prod,
    push,
    registry,
    reload,
    site,
    stock,
    users,
    vault,
)
from bundle.config import SiteConfig
from bundle.console import confirm, table
from bundle.errors import CheckFailedError, PreconditionError
from bundle.host import Host, write_file
from bundle.model import EngineFacts
from bundle.plan import PROJECT, Plan, make_plan
from bundle.run import log, step
from bundle.words import say

READABLE = 0o022
"""The umask of every task: services must read what is rendered for them; secrets are written with their own mode."""


def open_host(here: Path) -> tuple[Host, manifest.Release]:
    """The installation that the release in `here` belongs to."""
    os.umask(READABLE)
    return Host(root=site.find_root(here)), manifest.installed(here)


def open_plan(here: Path) -> tuple[Host, Plan]:
    """The installation of the release in `here`, and its plan."""
    host, release = open_host(here)
    return host, site.read_plan(host, release.manifest.version)


def planned(host: Host, version: str, settings: SiteConfig, facts: EngineFacts) -> Plan:
    """The plan for this host's engine."""
    quick = facts.api >= (1, 44)
    return make_plan(
        settings,
        site_id=site.read_site_id(host),
        version=version,
        quick_probes=quick,
        extras=site.read_extras(host, version),
    )


def install_release(here: Path, *, bundle: str, site_file: str, yes: bool) -> None:
    """Preflight, then the running stack."""
    host, release = open_host(here)
    given = Path(site_file) if site_file else None
    settings = site.read_site(host, given)
    hub = registry.open_registry(settings)
    sealed = hub.rename(release.manifest) if hub else release.manifest
    missing = [image for image in sealed.images if not intake.is_right(host.engine, image)]
    absent = place.bytes_missing(host, sealed)
    if missing or bundle or absent:  # the medium may be gone once all that it carries is here
        release = manifest.release(here, Path(bundle).resolve() if bundle else None)
    facts = host.engine.facts(PROJECT, site.SITE_LABEL, site.read_site_id(host))
    with step(say("preflight, which changes nothing", "사전 점검 (아무것도 바꾸지 않음)")):
        plan = planned(host, sealed.version, settings, facts)
        prod.check(plan, host)
        precheck(plan, host, facts, sealed, missing, hub)
    confirm(say(f"start the stack in {host.root}?", f"{host.root}에 스택을 시작할까요?"), yes=yes)
    with host.lock("install"):
        site.ensure_site_id(host)
        site.keep_site(host, given, settings)
        plan = planned(host, sealed.version, settings, facts)
        with site.noting_digest(release):
            bring_in(plan, host, release.bundle, sealed, hub)
        with step(say("start at boot", "부팅 시 시작")):
            log.info("  %s", jobs.install(host) or jobs.no_boot())
        site.record_version(host, plan.version)
    for line in farewell(plan, host):
        log.info("%s", line)


def bring_in(
    plan: Plan,
    host: Host,
    bundle: Path,
    sealed: manifest.Manifest,
    hub: registry.Registry | None,
) -> None:
    """Everything out of the bundle into place, and the services up, with their accounts."""
    with step(say("images, out of the bundle into the engine", "이미지 적재 (번들 → 엔진)")):
        known = stock.releases(host.root)
        for row in intake.import_images(bundle, sealed, host.engine, known, hub):
            log.info("  %-9s %s (%.0f MB)", row.how, row.reference, row.size / 1e6)
    place_files(host, bundle, sealed)
    with step(say("secrets, certificates, settings", "비밀, 인증서, 설정")):
        install.prepare(plan, host)
    with step(say("services, databases, buckets", "서비스, 데이터베이스, 버킷")):
        install.bring_up(plan, host)
        reload.reload_changed(plan, host)
    with step(say("first accounts in both trackers", "두 추적기의 첫 계정")):
        users.bootstrap_people(plan, host, vault.open_store(host, plan))
    serve_site(plan, host)


def place_files(host: Host, bundle: Path, sealed: manifest.Manifest) -> None:
    """Bring the site's own files and wheels where they belong, when there are any or were."""
    if not site.extra_files(sealed) and not site.placed(host):
        return
    with step(say("files and wheels of the site", "사이트의 파일과 휠")):
        done = place.put(host, bundle, sealed)
        log.info(
            "  %s",
            say(
                f"{done.written} written, {done.kept} kept, {done.removed} removed",
                f"기록 {done.written}, 유지 {done.kept}, 제거 {done.removed}",
            ),
        )


def serve_site(plan: Plan, host: Host) -> None:
    """Start the site's own services, with an account in both trackers for those that are clients."""
    with step(say("services of the site", "사이트의 서비스")):
        made, gone = clients.make_clients(plan, host)
        install.write_rendered(plan, host)
        install.bring_up_extras(plan, host)
        names = [extra.slug for extra in plan.extras]
        log.info("  %s", ", ".join(names) or say("none", "없음"))
        if made or gone:
            log.info(
                "  %s: %s",
                say("clients", "클라이언트"),
                ", ".join([*made, *(f"-{g}" for g in gone)]),
            )


def precheck(
    plan: Plan,
    host: Host,
    facts: EngineFacts,
    sealed: manifest.Manifest,
    missing: list[manifest.SealedImage],
    hub: registry.Registry | None,
) -> None:
    """Show every precondition; of a delta whose base is gone, write down what would be needed.

    Raises PreconditionError with all that are not met.
    """
    created = datetime.datetime.strptime(sealed.created, "%Y-%m-%dT%H:%M:%S%z")
    wanted = preflight.Release(
        arch=sealed.arch,
        created=int(created.timestamp()),
        image_bytes=image_bytes(host, sealed, missing),
        file_bytes=place.bytes_missing(host, sealed),
    )
    rows = preflight.preflight(plan, host, facts, wanted)
    rows += check_supply(host, sealed, missing, hub) if missing or wanted.file_bytes else []
    for row in rows:
        log.info("  %s %-14s %s", "✗" if row.problem else "✓", row.name, row.found)
    for note in preflight.notes(facts):
        log.info("  · %s", note)
    problems = [row.problem for row in rows if row.problem]
    if problems:
        raise PreconditionError.of(problems)


def image_bytes(host: Host, sealed: manifest.Manifest, missing: list[manifest.SealedImage]) -> int:
    """The room that the images which are `missing` need in the engine: what it has of their layers needs none."""
    if not missing:
        return 0
    here = stock.in_engine(host.engine, sealed, stock.releases(host.root))
    return delta.room(sealed, here, missing)


def check_supply(
    host: Host,
    sealed: manifest.Manifest,
    missing: list[manifest.SealedImage],
    hub: registry.Registry | None,
) -> list[preflight.Row]:
    """Whether the site's registry can be used, and whether all that a delta needs is here.

    What is gone is asked for in request.json.
    """
    rows = []
    if hub:
        problem = push.trouble(hub, host.engine)
        rows.append(preflight.Row(name="registry", found=hub.address, problem=problem))
    if sealed.base and not any(row.problem for row in rows):
        here = stock.look(host.engine, host.root, sealed, hub)
        gone = delta.gone(sealed, here, missing) + delta.gone_files(sealed, here)
        request = host.path("request.json")
        if gone:
            write_file(request, delta.dump(here, gone))
        problem = delta.refusal(sealed.base.version, gone, request) if gone else None
        rows.append(preflight.Row(name="base", found=sealed.base.version, problem=problem))
    return rows


def farewell(plan: Plan, host: Host) -> list[str]:
    """What to do with the running stack: addresses, first passwords, the way for colleagues, the next task."""
    store = host.path("secrets", "store")
    first = say("first passwords", "첫 비밀번호")
    lines = ["", *(f"  {line.name:8} {line.detail}" for line in operate.doors(plan))]
    lines += [
        f"  {first}: MLflow admin: {store}/MLFLOW_AUTH_ADMIN_PASSWORD",
        f"  {first}: Phoenix admin@localhost: {store}/PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD",
        "  "
        + say(
            "change both (Phoenix asks for a new one); others: invoke users.add",
            "둘 다 바꾸십시오 (Phoenix는 새 비밀번호를 묻습니다). 사용자 추가: invoke users.add",
        ),
        *(f"  {note}" for note in operate.door_notes(plan)),
        "  " + say("next: invoke verify", "다음: invoke verify"),
    ]
    return lines


def verify(here: Path, *, only: tuple[str, ...], form: str, report: str) -> str:
    """Prove the checklist; the reports are written whatever comes out.

    Raises CheckFailedError when a line is red or the run was cut short.
    """
    checks.check_form(form)
    host, release = open_host(here)
    plan = site.read_plan(host, release.manifest.version)
    outcome = checks.verify(plan, host, release, only=only, folder=Path(report) if report else None)
    failed = outcome.failed
    if failed or not outcome.complete:
        sys.stdout.write(outcome.text(form) + "\n")
        raise CheckFailedError(
            say(f"{failed} lines of the checklist are red", f"점검표 {failed}개 항목 실패"),
            hint=say("Each red line says what to do; see ", "각 항목의 조치를 보십시오: ")
            + str(outcome.folder / "verify.html"),
        )
    return outcome.text(form)


def inventory(here: Path, *, out: Path) -> Path:
    """Write down what is on this host, for the next delta; the file."""
    host, release = open_host(here)
    hub = registry.open_registry(site.read_site(host))
    found = stock.look(host.engine, host.root, release.manifest, hub)
    write_file(out, delta.dump(found))
    layers, wheels = len(found.blobs), len(found.wheels)
    log.info(
        "  %s",
        say(f"{layers} layers, {wheels} wheels", f"레이어 {layers}개, 휠 {wheels}개"),
    )
    return out


def start(here: Path) -> None:
    """Start the stack and wait until it is healthy."""
    host, plan = open_plan(here)
    firewall.keep(host)
    operate.wait_for_engine(host)
    with host.lock("start"):
        with step(say("services", "서비스")):
            install.bring_up(plan, host)
        serve_site(plan, host)


def stop(here: Path) -> None:
    """Stop the stack."""
    host, plan = open_plan(here)
    with host.lock("stop"), step(say("services: stop", "서비스 정지")):
        operate.stop(plan, host)


def status(here: Path) -> str:
    """The status table."""
    host, plan = open_plan(here)
    lines = operate.status(plan, host)
    head = (say("what", "항목"), say("state", "상태"), say("detail", "상세"))
    return table(head, [(line.name, line.mark, line.detail) for line in lines])


def logs(here: Path, *, service: str, since: str) -> str:
    """The services' logs."""
    host, plan = open_plan(here)
    return operate.logs(plan, host, service, since)


def schedule(here: Path, *, add: bool, remove: bool) -> str:
    """Change, then show, what starts the stack at boot and runs the daily jobs."""
    host, _ = open_plan(here)
    if remove:
        jobs.remove(host)
    elif add and not jobs.install(host):
        raise PreconditionError(jobs.no_boot(), hint=jobs.boot_command(host))
    nothing = say("nothing starts the stack at boot", "부팅 시 스택을 시작하는 항목이 없습니다")
    return "\n".join(jobs.shown(host)) or nothing


def uninstall(here: Path, *, purge: bool, yes: bool) -> str:
    """Remove what install made."""
    host, _ = open_host(here)
    question = say(f"remove the stack of {host.root}", f"{host.root}의 스택을 제거할까요")
    if purge:
        question += say(" with all its data", " (모든 데이터 포함)")
    confirm(f"{question}?", yes=yes)
    with host.lock("uninstall"):
        firewall.remove(host)
        removed = operate.uninstall(host, purge=purge)
        removed += place.clear(host) if purge else []
    return "\n".join(removed) or say("nothing was there", "제거할 것이 없습니다")
