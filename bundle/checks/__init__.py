"""The checklist as code: every line has a probe on the running stack, and every result has its evidence."""

from __future__ import annotations

from pathlib import Path

from bundle.checks.catalogue import CHECKS, chosen
from bundle.checks.checklist import PATH
from bundle.checks.model import Stage
from bundle.checks.report import FORMATS, Report, check_form, write_reports
from bundle.checks.runner import now, run_checks
from bundle.host import Host
from bundle.manifest import Release
from bundle.model import Secret
from bundle.plan import Plan

__all__ = ["CHECKS", "FORMATS", "Report", "check_form", "verify"]


def verify(
    plan: Plan,
    host: Host,
    release: Release,
    *,
    only: tuple[str, ...] = (),
    folder: Path | None = None,
) -> Report:
    """Probe the lines `only` (all when empty), write every form of the report to `folder`, and return it.

    `folder` is reports/ unless given; that of some lines only is reports/part/, so that it never hides a red line.

    Raises ConfigError for an unknown id; red lines raise nothing, they are in the report.
    """
    checks = chosen(only)
    stage = Stage(plan=plan, host=host, release=release, store=read_store(host))
    started = now()
    results, complete = run_checks(stage, checks)
    reports = "reports" if len(checks) == len(CHECKS) else "reports/part"
    report = Report(
        version=release.manifest.version,
        sha256=release.sha256,
        site=plan.site.domain,
        started=started,
        finished=now(),
        complete=complete,
        results=results,
        folder=folder or host.path(*reports.split("/")),
    )
    write_reports(report, PATH.read_text(encoding="utf-8"))
    return report


def read_store(host: Host) -> dict[str, Secret]:
    """Every stored secret that can be read; a probe that misses one is red."""
    folder = host.path("secrets", "store")
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.name: Secret(path.read_text(encoding="utf-8").strip())
        for path in files
        if path.is_file() and not path.name.startswith(".")
    }
