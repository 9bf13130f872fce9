"""The audit log: whole, being collected, and its head out of reach of this host's root."""

from __future__ import annotations

import datetime
import time

from bundle import auditlog
from bundle.checks.model import Check, Moot, Red, Stage, settle
from bundle.errors import BundleError

LOOPBACK = "127.0.0.1"
NEWEST = 16
"""Files of the log that are read, 16 MiB each: seconds, however long the log is; audit.verify reads all."""
LATE_S = 900
"""The job runs each minute; what has waited longer than this is not being collected."""


def audit_chain(stage: Stage) -> list[str]:
    """Every line of the newest files follows the one before it, and the gateway's lines are collected."""
    if not auditlog.begun(stage.host):
        raise Red("no audit log in audit/")
    try:
        heads = auditlog.copied_heads(stage.plan.site)
        found = auditlog.examine(stage.host, heads, newest=NEWEST)
    except BundleError as error:
        raise Red(str(error)) from error
    wrong = [found.wrong] if found.wrong else []
    evidence = [f"lines {found.first} to {found.head.seq}, sha256 {found.head.digest}"]
    evidence += ["older ones: invoke audit.verify"] if found.first > 1 else []
    evidence += [f"half a line was cut away before line {seq}" for seq in found.repairs]
    spool = auditlog.folder(stage.host, auditlog.SPOOL)
    state = auditlog.folder(stage.host, "state.json")
    waiting = [path for path in spool.glob("*.jsonl") if path.stat().st_size]
    since = (
        state.stat().st_mtime
        if state.exists()
        else min((path.stat().st_mtime for path in waiting), default=time.time())
    )
    if waiting and time.time() - since > LATE_S:
        at = datetime.datetime.fromtimestamp(since, datetime.timezone.utc)
        wrong.append(f"the gateway's lines wait since {at:%Y-%m-%d %H:%M} to be collected")
    return settle(wrong, evidence)


def audit_head(stage: Stage) -> list[str]:
    """The newest head has been copied away; moot while nobody but this host can reach the doors."""
    site, host = stage.plan.site, stage.host
    if not (site.audit_folder or site.audit_command):
        if site.bind == LOOPBACK:
            raise Moot("bind")
        raise Red("none is set: audit.folder, audit.command")
    if not auditlog.begun(host):
        raise Red("no audit log in audit/")
    path, copied = auditlog.folder(host, "copied.json"), auditlog.copied(host)
    if not copied.seq:
        raise Red("no head has been copied yet")
    age = time.time() - path.stat().st_mtime
    newest = max((file.stat().st_mtime for file in auditlog.files(host)), default=0.0)
    if newest - path.stat().st_mtime > LATE_S:
        raise Red(f"line {copied.seq} was the last one, {age / 60:.0f} minutes ago")
    return [f"line {copied.seq}, {age / 60:.0f} minutes ago"]


CHECKS = (
    Check(
        id="audit-chain",
        group="network",
        title={
            "ko": "감사 로그: 모든 줄이 이어지고, 게이트웨이의 줄이 수집됨",
            "en": "Audit log: every line follows the one before, the gateway's lines are collected",
        },
        hint={
            "ko": "invoke audit.verify가 첫 번째 잘못된 줄을 알려줍니다. docs/audit.md를 따르십시오.",
            "en": "invoke audit.verify names the first bad line; go on by docs/audit.md.",
        },
        probe=audit_chain,
        timeout=60,
    ),
    Check(
        id="audit-head",
        group="network",
        title={
            "ko": "감사 로그의 헤드가 다른 호스트에 복사됨",
            "en": "The audit log's head is copied to another host",
        },
        hint={
            "ko": "site.toml의 audit.folder나 audit.command를 지정하고 invoke audit.collect를 실행하십시오.",
            "en": "Set audit.folder or audit.command in site.toml, then run invoke audit.collect.",
        },
        probe=audit_head,
        needs=("audit-chain",),
    ),
)
