"""What keeps secrets safe over the years: a site that calls itself prod is one, and a kit brings all of it back."""

from __future__ import annotations

from bundle import kit, prod
from bundle.checks.authority import LOOPBACK
from bundle.checks.model import Check, Moot, Red, Stage, settle
from bundle.checks.stage import inspected


def safe_profile(stage: Stage) -> list[str]:
    """Nothing that `profile = "prod"` refuses, neither as it is written nor as it runs."""
    if stage.plan.site.profile != "prod":
        raise Moot("profile")
    running = {
        name: dict(entry.partition("=")[::2] for entry in found["Config"].get("Env") or [])
        for name, found in inspected(stage).items()
    }
    wrong = [
        f"{problem.where}: {problem.message}"
        for problem in prod.refusals(stage.plan, stage.host, running)
    ]
    return settle(wrong, ["bind, root, passwords, hosts, accounts, telemetry, files"])


def safe_kit(stage: Stage) -> list[str]:
    """A recovery kit was opened and holds what is in use; moot while nobody but this host can reach the doors."""
    good, line = kit.state(stage.host)
    if good:
        return [line]
    if stage.plan.site.bind == LOOPBACK:
        raise Moot("bind")
    raise Red(line)


CHECKS = (
    Check(
        id="safe-profile",
        group="operations",
        title={
            "ko": "운영 프로필(prod)이 거부하는 설정이 없음",
            "en": "Nothing that the profile prod refuses",
        },
        hint={
            "ko": "invoke install이 각 항목의 조치를 모두 보여 줍니다.",
            "en": "Run invoke install: it lists each one with its fix.",
        },
        probe=safe_profile,
    ),
    Check(
        id="safe-kit",
        group="operations",
        title={
            "ko": "복구 키트: 열어 보았고 지금 쓰는 비밀이 들어 있음",
            "en": "Recovery kit: opened, and holds the secrets that are in use",
        },
        hint={
            "ko": "invoke recovery.create --to 수신자, 이어서 invoke recovery.test --kit 파일 --key 키.",
            "en": "Run invoke recovery.create --to RECIPIENT, then invoke recovery.test --kit FILE --key KEY.",
        },
        probe=safe_kit,
    ),
)
