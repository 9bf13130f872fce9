"""What `profile = "prod"` refuses: everything unsafe of a site at once, each with its fix.

Read from site.toml, from the plan, and from what lies on disk; nothing is changed and no secret is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography import x509

from bundle.authority import current, generations
from bundle.borrowed import borrow
from bundle.certificates import now, profiles
from bundle.errors import BundleError, ConfigError, Problem
from bundle.host import Host
from bundle.model import Secret, SecretSpec
from bundle.plan import Plan
from bundle.settings import SITE, default_domain
from bundle.words import say

SHORTEST = {"token": 32, "password": 12, "name": 8}
KNOWN = frozenset(
    (
        *("admin", "administrator", "changeit", "changeme", "default", "minioadmin", "mlflow"),
        *("password", "password1", "password123", "password1234", "phoenix", "postgres", "secret"),
    )
)
KNOWN_KEK = "mlflow-default-kek-passphrase-for-development-only"
LOCAL = re.compile(r"(?:^|[/@.])(?:localhost|127\.\d+\.\d+\.\d+|\[?::1\]?|0\.0\.0\.0)(?::|/|$)")
HOSTS = {
    "mlflow": ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"),
    "phoenix": ("PHOENIX_CSRF_TRUSTED_ORIGINS", "PHOENIX_ROOT_URL"),
}
AUTH = {
    "mlflow": {"MLFLOW_AUTH_CONFIG_PATH": "/etc/mlflow/auth.ini"},
    "phoenix": {"PHOENIX_ENABLE_AUTH": "true"},
}
TELEMETRY = {
    "mlflow": {"MLFLOW_DISABLE_TELEMETRY": "true"},
    "phoenix": {"PHOENIX_TELEMETRY_ENABLED": "false", "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false"},
    "minio": {"MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off"},
}
SITE_FILE = "site.toml"


def check(plan: Plan, host: Host) -> None:
    """See that a site that calls itself prod is safe to be one.

    Raises ConfigError with everything that is not.
    """
    if plan.site.profile == "prod" and (problems := refusals(plan, host)):
        raise ConfigError.of(problems)


def refusals(
    plan: Plan, host: Host, running: Mapping[str, Mapping[str, str]] | None = None
) -> list[Problem]:
    """Everything unsafe; `running`: the environment of each service's container, where it is to be looked at too."""
    settings = {service.name: service.environment for service in plan.services}
    looked = [settings, running] if running else [settings]
    return [
        *open_to_all(plan),
        *old_root(host),
        *weak(plan, host),
        *borrowed(plan),
        *dict.fromkeys(
            problem
            for found in looked
            for problem in (*local_hosts(found), *anonymous(found), *telling(found))
        ),
        *telling_extras(plan),
        *readable(host),
    ]


def open_to_all(plan: Plan) -> Iterator[Problem]:
    """On every interface, under a name that no DNS of the site has."""
    site = plan.site
    if site.bind == "0.0.0.0" and site.domain == default_domain():
        yield Problem(
            where=f"{SITE_FILE}: bind",
            message=say(
                f"listens on every interface as {site.domain}, which is only this host's own name",
                f"모든 인터페이스에서 이 호스트만의 이름 {site.domain}(으)로 엽니다",
            ),
            hint=say(
                "Set domain to the name in the site's DNS, or bind to one address.",
                "domain을 사이트 DNS의 이름으로 정하거나 bind를 주소 하나로 바꾸십시오.",
            ),
        )


def old_root(host: Host) -> Iterator[Problem]:
    """A root of our own that cannot sign a whole intermediate any more."""
    if not generations(host):
        return
    limit = profiles()["root"]["days"] - profiles()["intermediate"]["days"]
    path = current(host) / "root.crt"
    try:
        age = (now() - x509.load_pem_x509_certificate(path.read_bytes()).not_valid_before_utc).days
    except (OSError, ValueError) as error:
        yield Problem(where=str(path), message=f"cannot be read: {error}", hint=_AGAIN)
        return
    if age > limit:
        yield Problem(
            where=str(path),
            message=say(
                f"the installation's own root is {age} days old, its limit is {limit}",
                f"자체 루트가 {age}일 되었습니다. 한도는 {limit}일입니다",
            ),
            hint=say(
                "Make a new one with overlap: invoke pki.rotate, later invoke pki.rotate --finish.",
                "겹침을 두고 새로 만드십시오: invoke pki.rotate, 이후 invoke pki.rotate --finish.",
            ),
        )


_AGAIN = "Run invoke install again."


def weakness(spec: SecretSpec, value: Secret) -> str:
    """Why `value` is no secret; empty when it is one."""
    text = value.reveal()
    if text.lower() in KNOWN or text == KNOWN_KEK:
        return say("is a well-known password", "널리 알려진 암호입니다")
    if len(text) < SHORTEST[spec.kind]:
        count, least = len(text), SHORTEST[spec.kind]
        return say(
            f"has {count} characters, at least {least} are needed",
            f"{count}자입니다. 최소 {least}자가 필요합니다",
        )
    return ""


def weak(plan: Plan, host: Host) -> Iterator[Problem]:
    """Stored secrets that somebody else could know or guess."""
    for spec in (spec for service in plan.services for spec in service.secrets):
        path = host.path("secrets", "store", spec.name)
        try:
            wrong = weakness(spec, Secret(path.read_text("utf-8").strip()))
        except (OSError, UnicodeDecodeError):
            continue  # made, or told, by install
        if wrong:
            rotate = f"invoke secrets.rotate --only {spec.name}"
            yield Problem(
                where=str(path),
                message=wrong,
                hint=say(f"Give it a new value: {rotate}.", f"새 값으로 바꾸십시오: {rotate}."),
            )


def borrowed(plan: Plan) -> Iterator[Problem]:
    """What site.toml refers to: it must be there, for its owner only, and hard to guess."""
    for setting in (setting for setting in SITE if setting.secret):
        reference = getattr(plan.site, setting.attribute)
        if not reference:
            continue
        where = f"{SITE_FILE}: {setting.key}"
        try:
            wrong = weakness(
                SecretSpec(name=setting.key, kind="password"), borrow(reference, where)
            )
        except BundleError as error:
            yield from error.problems
            continue
        if wrong:
            hint = say("Give that account a longer one.", "그 계정에 더 긴 암호를 정하십시오.")
            yield Problem(where=where, message=wrong, hint=hint)


Environments = Mapping[str, Mapping[str, str]]


def local_hosts(found: Environments) -> Iterator[Problem]:
    """Hosts or origins that are this host itself: whatever runs on it could speak for a user."""
    for service, keys in HOSTS.items():
        for key in keys:
            local = [
                host
                for host in found.get(service, {}).get(key, "").split(",")
                if LOCAL.search(host)
            ]
            if local:
                yield Problem(
                    where=f"{service}: {key}",
                    message=say(
                        f"lets {', '.join(local)} in", f"{', '.join(local)}을(를) 허용합니다"
                    ),
                    hint=say(
                        "Set bind to this host's address and domain to its name in the DNS.",
                        "bind를 이 호스트의 주소로, domain을 DNS의 이름으로 정하십시오.",
                    ),
                )


def _otherwise(found: Environments, wanted: Environments) -> Iterator[tuple[str, str, str]]:
    for service in (service for service in wanted if service in found):
        for key, value in wanted[service].items():
            if found[service].get(key) != value:
                yield service, key, value


def anonymous(found: Environments) -> Iterator[Problem]:
    """A tracker that asks nobody who they are."""
    for service, key, value in _otherwise(found, AUTH):
        yield Problem(
            where=f"{service}: {key}",
            message=say("authentication is off", "인증이 꺼져 있습니다"),
            hint=say(
                f"It must be {value}: {_AGAIN}",
                f"{value}이어야 합니다. invoke install을 다시 실행하십시오.",
            ),
        )


def telling(found: Environments) -> Iterator[Problem]:
    """A server that would call home."""
    for service, key, value in _otherwise(found, TELEMETRY):
        yield _telling(f"{service}: {key}", value)


def _telling(where: str, value: str) -> Problem:
    return Problem(
        where=where,
        message=say("telemetry is on", "원격 측정이 켜져 있습니다"),
        hint=say(f"It must be {value}.", f"{value}이어야 합니다."),
    )


def telling_extras(plan: Plan) -> Iterator[Problem]:
    """A service of the site's own that switches a client's telemetry on."""
    wanted = {key: value for keys in TELEMETRY.values() for key, value in keys.items()}
    for extra in plan.extras:
        for key, value in extra.environment.items():
            if key in wanted and value.lower() != wanted[key]:
                yield _telling(f"{extra.slug}: {key}", wanted[key])


PUBLIC = (".crt", ".crl")


def readable(host: Host) -> Iterator[Problem]:
    """Secrets, keys and safety dumps that others can read; certificates are public."""
    for name in ("secrets", "pki", "safety"):
        top = host.path(name)
        if not top.is_dir():
            continue
        if top.stat().st_mode & 0o077:
            yield _open(top)
        for path in sorted(top.rglob("*")):
            if path.is_symlink() or (path.is_file() and path.suffix in PUBLIC):
                continue
            mask = 0o077 if path.is_file() else 0o022
            if path.stat().st_mode & mask:
                yield _open(path)


def _open(path: Path) -> Problem:
    mode = path.stat().st_mode & 0o7777
    fix = f"chmod {'700' if path.is_dir() else '400'} {path}"
    return Problem(
        where=str(path),
        message=say(
            f"others can get at it (mode {mode:04o})",
            f"다른 사용자가 접근할 수 있습니다 (권한 {mode:04o})",
        ),
        hint=say(
            f"{fix}; what was exposed needs a new value: invoke secrets.rotate.",
            f"{fix}. 노출된 것은 새 값이 필요합니다: invoke secrets.rotate.",
        ),
    )
