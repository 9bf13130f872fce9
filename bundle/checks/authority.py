"""The CA itself: nothing of it ends soon, and the root's key is not on this host."""

from __future__ import annotations

from bundle import expiring
from bundle.authority import generations
from bundle.checks.model import Check, Moot, Red, Stage, settle
from bundle.errors import ConfigError

LOOPBACK = "127.0.0.1"


def tls_authority(stage: Stage) -> list[str]:
    """Root, intermediate and the lists of revoked certificates are there and have time before them."""
    if not generations(stage.host):
        raise Red("no CA in pki/")
    try:
        entries = expiring.ca_entries(stage.host)
    except ConfigError as error:
        raise Red(str(error)) from error
    wrong: list[str] = []
    evidence: list[str] = []
    for entry in entries:
        line = f"{entry.name}: until {entry.until:%Y-%m-%d} ({entry.days} days)"
        (evidence if entry.good else wrong).append(line)
    return settle(wrong, evidence)


def tls_root_key(stage: Stage) -> list[str]:
    """The root's key is in a recovery kit; moot while nobody but this host can reach the doors."""
    if not generations(stage.host):
        raise Red("no CA in pki/")
    away, line = expiring.root_key_line(stage.host)
    if away:
        return [f"root key: {line}"]
    if stage.plan.site.bind == LOOPBACK:
        raise Moot("bind")
    raise Red(f"root key: {line}")


CHECKS = (
    Check(
        id="tls-authority",
        group="network",
        title={
            "ko": "CA: 루트, 중간 인증서, 폐기 목록의 만료 14일 초과",
            "en": "CA: root, intermediate and revocation lists have more than 14 days left",
        },
        hint={
            "ko": "invoke pki.renew가 목록과 인증서를, invoke pki.rotate가 루트를 새로 만듭니다.",
            "en": "invoke pki.renew makes lists and certificates anew, invoke pki.rotate the root.",
        },
        probe=tls_authority,
    ),
    Check(
        id="tls-root-key",
        group="network",
        title={
            "ko": "루트 키가 이 호스트에 없음 (복구 키트에 보관)",
            "en": "The root's key is not on this host (it is in the recovery kit)",
        },
        hint={
            "ko": "수신자를 정해 복구 키트를 만드십시오: invoke recovery.create --to 수신자.",
            "en": "Make a recovery kit for a recipient: invoke recovery.create --to RECIPIENT.",
        },
        probe=tls_root_key,
    ),
)
