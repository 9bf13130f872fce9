"""profile = "prod": each unsafe thing is refused with its fix, in both languages, and all of them at once."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle import authority, certificates, prod, vault, words
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.host import Host, write_file
from bundle.model import ExtraService
from bundle.plan import Plan, make_plan
from bundle.settings import default_domain

GOOD = 'profile = "prod"\ndomain = "tracking.lab.kr"\nbind = "10.0.0.5"\n'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    made = Host(root=tmp_path)
    vault.hand_out(made, plan_of(), vault.open_store(made, plan_of()))
    vault.close(made, plan_of())
    authority.authorities(made, plan_of())
    return made


def plan_of(text: str = GOOD) -> Plan:
    return make_plan(parse_site(text), site_id="0a1b2c3d", version="1.2.3")


def with_environment(service: str, key: str, value: str | None) -> Plan:
    """The plan with one setting of a service changed, or without it."""
    plan = plan_of()
    made = {name: v for name, v in plan.service(service).environment.items() if name != key}
    if value is not None:
        made[key] = value
    changed = [
        dataclasses.replace(s, environment=made) if s.name == service else s for s in plan.services
    ]
    return dataclasses.replace(plan, services=tuple(changed))


def with_extra(key: str, value: str) -> Plan:
    extra = ExtraService(name="judge", image="judge", user=2000, environment={key: value})
    return dataclasses.replace(plan_of(), extras=(extra,))


def store(host: Host, name: str, value: str) -> Plan:
    write_file(host.path("secrets", "store", name), value.encode(), mode=0o400)
    return plan_of()


def opened(host: Host, *parts: str, mode: int) -> Plan:
    host.path(*parts).chmod(mode)
    return plan_of()


def referred(tmp_path: Path, value: str, mode: int = 0o600) -> Plan:
    path = tmp_path.parent / "registry-password"
    path.write_text(value)
    path.chmod(mode)
    text = f'[registry]\naddress = "r.lab"\nuser = "u"\npassword = "secret://file{path}"\n'
    return plan_of(GOOD + text)


UNSAFE: dict[str, tuple[Callable[[Host], Plan], str]] = {
    "every interface without a name": (
        lambda _: plan_of(f'profile = "prod"\nbind = "0.0.0.0"\ndomain = "{default_domain()}"'),
        "site.toml: bind: listens on every interface",
    ),
    "default password": (
        lambda host: store(host, "MLFLOW_AUTH_ADMIN_PASSWORD", "password1234"),
        "MLFLOW_AUTH_ADMIN_PASSWORD: is a well-known password",
    ),
    "default data key": (
        lambda host: store(host, "MLFLOW_CRYPTO_KEK_PASSPHRASE", prod.KNOWN_KEK),
        "MLFLOW_CRYPTO_KEK_PASSPHRASE: is a well-known",
    ),
    "short password": (
        lambda host: store(host, "DB_PHOENIX", "hunter2-hunter2-hunter2"),
        "DB_PHOENIX: has 23 characters, at least 32",
    ),
    "short password by reference": (
        lambda host: referred(host.root, "hunter2"),
        "site.toml: registry.password: has 7 characters",
    ),
    "reference to a file for everybody": (
        lambda host: referred(host.root, "a-long-enough-password", 0o644),
        "open to everybody",
    ),
    "loopback as a client": (
        lambda _: plan_of(GOOD.replace("10.0.0.5", "127.0.0.1")),
        "mlflow: MLFLOW_SERVER_ALLOWED_HOSTS: lets 127.0.0.1",
    ),
    "localhost as an origin": (
        lambda _: with_environment(
            "phoenix", "PHOENIX_CSRF_TRUSTED_ORIGINS", "https://a.b,https://localhost:8445"
        ),
        "PHOENIX_CSRF_TRUSTED_ORIGINS: lets https://localhost:8445 in",
    ),
    "name that is localhost": (
        lambda _: plan_of(GOOD.replace("tracking.lab.kr", "tracking.localhost")),
        "tracking.localhost, tracking.localhost:*",
    ),
    "Phoenix without accounts": (
        lambda _: with_environment("phoenix", "PHOENIX_ENABLE_AUTH", "false"),
        "phoenix: PHOENIX_ENABLE_AUTH: authentication is off",
    ),
    "MLflow without accounts": (
        lambda _: with_environment("mlflow", "MLFLOW_AUTH_CONFIG_PATH", None),
        "mlflow: MLFLOW_AUTH_CONFIG_PATH: authentication is off",
    ),
    "telemetry of MLflow": (
        lambda _: with_environment("mlflow", "MLFLOW_DISABLE_TELEMETRY", "false"),
        "mlflow: MLFLOW_DISABLE_TELEMETRY: telemetry is on",
    ),
    "telemetry of Phoenix": (
        lambda _: with_environment("phoenix", "PHOENIX_TELEMETRY_ENABLED", None),
        "phoenix: PHOENIX_TELEMETRY_ENABLED: telemetry is on",
    ),
    "telemetry of an extra": (
        lambda _: with_extra("MLFLOW_DISABLE_TELEMETRY", "false"),
        "extra-judge: MLFLOW_DISABLE_TELEMETRY: telemetry is on",
    ),
    "readable secret": (
        lambda host: opened(host, "secrets", "store", "DB_MLFLOW", mode=0o404),
        "store/DB_MLFLOW: others can get at it (mode 0404)",
    ),
    "readable folder": (
        lambda host: opened(host, "secrets", mode=0o755),
        "secrets: others can get at it (mode 0755)",
    ),
    "readable key": (
        lambda host: opened(host, "pki", "g1", "intermediate.key", mode=0o440),
        "intermediate.key: others can get at it (mode 0440)",
    ),
}


def told(plan: Plan, host: Host) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        prod.check(plan, host)
    assert refused.value.exit_code == 2
    return [str(problem) for problem in refused.value.problems]


def test_safe_site_is_taken(host: Host) -> None:
    assert prod.refusals(plan_of(), host) == []
    prod.check(plan_of(), host)


def test_first_install_has_nothing_to_be_refused(tmp_path: Path) -> None:
    prod.check(plan_of(), Host(root=tmp_path))


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_is_refused_with_its_fix_in_both_languages(name: str, host: Host) -> None:
    make, named = UNSAFE[name]
    plan = make(host)
    english = told(plan, host)
    assert named in "\n".join(english)
    assert all("hint: " in line for line in english)
    words.choose("ko")
    try:
        korean = told(plan, host)
    finally:
        words.choose("en")
    assert len(korean) == len(english)
    assert all(re.search("[가-힣]", line) for line in korean)


@pytest.mark.parametrize("name", UNSAFE)
def test_first_look_is_not_refused(name: str, host: Host) -> None:
    plan = UNSAFE[name][0](host)
    site = dataclasses.replace(plan.site, profile="dev")
    prod.check(dataclasses.replace(plan, site=site), host)


def test_old_root_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    later = certificates.now() + datetime.timedelta(days=3650 - 1095 + 1)
    monkeypatch.setattr(prod, "now", lambda: later)
    (line,) = told(plan_of(), host)
    assert "own root is 2557 days old, its limit is 2555" in line
    assert "invoke pki.rotate" in line


def test_everything_is_told_at_once_and_no_secret(host: Host) -> None:
    store(host, "DB_PHOENIX", "hunter2")
    opened(host, "pki", "g1", "intermediate.key", mode=0o444)
    opened(host, "secrets", "store", "DB_MLFLOW", mode=0o404)
    text = f'profile = "prod"\nbind = "0.0.0.0"\ndomain = "{default_domain()}"'
    found = told(plan_of(text), host)
    assert len(found) == 4
    assert "hunter2" not in json.dumps(found)


def test_what_runs_is_looked_at_too(host: Host) -> None:
    plan = plan_of()
    running = {s.name: dict(s.environment) for s in plan.services}
    assert prod.refusals(plan, host, running) == []
    running["phoenix"]["PHOENIX_ENABLE_AUTH"] = "false"
    (problem,) = prod.refusals(plan, host, running)
    assert problem.message == "authentication is off"


def test_production_knows_no_loopback_among_its_hosts() -> None:
    hosts = plan_of().service("mlflow").environment["MLFLOW_SERVER_ALLOWED_HOSTS"]
    assert "127.0.0.1" not in hosts
    assert "10.0.0.5" in hosts
