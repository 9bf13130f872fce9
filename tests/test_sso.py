"""Single sign-on: the settings of Phoenix, what is refused, and where the client's secret does not stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundle import sso
from bundle.certificates import make_key, now, pem
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.host import Host
from bundle.plan import Plan, make_plan
from bundle.templates import render
from tests.test_chain import DAY, Recipe, certificate

SECRET = "s3cret-of-the-client"
FULL = """domain = "closed.internal"
allow = ["idp.example.internal:9443"]
[oidc]
url = "https://idp.example.internal:9443/.well-known/openid-configuration"
client = "tracking"
secret = "secret://file{folder}/secret"
ca = "{folder}/ca.crt"
title = "회사 계정"
scopes = ["groups"]
groups_path = "groups"
groups = ["evaluation", "platform"]
role_path = "role"
roles = {{leads = "admin", staff = "editor", guests = "viewer"}}
"""
PREFIX = "PHOENIX_OAUTH2_SITE_"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)  # only root may give files away
    (tmp_path / "root/secrets/phoenix").mkdir(parents=True)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    ca(tmp_path, Recipe(common="CA idp", ca=True))
    return Host(root=tmp_path / "root")


def ca(folder: Path, recipe: Recipe) -> None:
    (folder / "ca.crt").write_bytes(pem(certificate(recipe, None)))


def plan_of(folder: Path, text: str = FULL) -> Plan:
    site = parse_site(text.format(folder=folder))
    return make_plan(site, site_id="0a1b2c3d", version="1.2.3")


def files(host: Host) -> dict[str, str]:
    return {p.name: p.read_text() for p in host.path("secrets/phoenix").iterdir()}


def test_phoenix_is_told_everything_but_the_secret(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    found = plan.service("phoenix").environment
    assert {key.removeprefix(PREFIX): value for key, value in found.items() if PREFIX in key} == {
        "CLIENT_ID": "tracking",
        "OIDC_CONFIG_URL": "https://idp.example.internal:9443/.well-known/openid-configuration",
        "DISPLAY_NAME": "회사 계정",
        "ALLOW_SIGN_UP": "true",
        "USE_PKCE": "true",
        "SCOPES": "groups",
        "GROUPS_ATTRIBUTE_PATH": "groups",
        "ALLOWED_GROUPS": "evaluation,platform",
        "ROLE_ATTRIBUTE_PATH": "role",
        "ROLE_MAPPING": "leads:ADMIN,staff:MEMBER,guests:VIEWER",
        "ROLE_ATTRIBUTE_STRICT": "true",
    }
    assert found["SSL_CERT_FILE"] == "/run/secrets/idp.crt"
    assert found["PHOENIX_CSRF_TRUSTED_ORIGINS"].endswith(",https://idp.example.internal:9443")
    assert "PHOENIX_DISABLE_BASIC_AUTH" not in found, "the password stays a way in"
    texts = {str(file.path): file.text for file in render(plan)}
    assert not any(SECRET in text for text in texts.values())
    assert "@no_identity_provider" in texts["rendered/gateway/nginx.conf"]


def test_without_a_provider_nothing_is_said_of_one(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 'domain = "closed.internal"')
    assert not any(
        "OAUTH2_SITE" in key or "SSL_CERT" in key for key in plan.service("phoenix").environment
    )
    assert not any("identity_provider" in file.text for file in render(plan))


def test_secret_and_ca_are_files_of_phoenix_and_go_with_the_provider(
    host: Host, tmp_path: Path
) -> None:
    sso.prepare(plan_of(tmp_path), host)
    assert files(host) == {
        "PHOENIX_OAUTH2_SITE_CLIENT_SECRET": SECRET,
        "idp.crt": (tmp_path / "ca.crt").read_text(),
    }
    modes = {path.stat().st_mode & 0o777 for path in host.path("secrets/phoenix").iterdir()}
    assert modes == {0o400}
    before = {path: path.stat().st_ino for path in host.path("secrets/phoenix").iterdir()}
    sso.prepare(plan_of(tmp_path), host)
    assert before == {path: path.stat().st_ino for path in host.path("secrets/phoenix").iterdir()}
    (tmp_path / "secret").write_text("another")
    sso.prepare(plan_of(tmp_path), host)
    assert files(host)["PHOENIX_OAUTH2_SITE_CLIENT_SECRET"] == "another"
    sso.prepare(plan_of(tmp_path, 'domain = "closed.internal"'), host)
    assert files(host) == {}


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(common="CA idp", ca=True, end=now() - DAY, start=now() - 9 * DAY), "expired on"),
        (Recipe(common="idp.example.internal"), "the certificate of a server"),
        (Recipe(common="CA other", ca=True, key=make_key()), ""),
    ],
)
def test_ca_that_cannot_be_trusted_is_refused(
    host: Host, tmp_path: Path, recipe: Recipe, said: str
) -> None:
    ca(tmp_path, recipe)
    if not said:
        sso.prepare(plan_of(tmp_path), host)
        return
    with pytest.raises(ConfigError, match=rf"oidc\.ca(?s:.*){said}"):
        sso.prepare(plan_of(tmp_path), host)


def test_ca_or_secret_that_is_not_there_is_refused(host: Host, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("hello")
    with pytest.raises(ConfigError, match="cannot be read as PEM"):
        sso.prepare(plan_of(tmp_path), host)
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(ConfigError, match=r"oidc\.ca"):
        sso.prepare(plan_of(tmp_path), host)
    (tmp_path / "secret").unlink()
    with pytest.raises(ConfigError, match=r"oidc\.secret"):
        sso.prepare(plan_of(tmp_path), host)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('client = "tracking"', "", "Set oidc.client too"),
        ('secret = "secret://file{folder}/secret"', "", "Set oidc.secret too"),
        (
            'secret = "secret://file{folder}/secret"',
            'secret = "hunter2"',
            "must refer to the secret",
        ),
        ('ca = "{folder}/ca.crt"', "", "Set oidc.ca too"),
        ('groups_path = "groups"', "", "Set oidc.groups_path too"),
        ('role_path = "role"', "", "Set oidc.role_path too"),
        ("https://idp", "http://idp", "is not like https://"),
        ('"idp.example.internal:9443"', '"idp.example.internal:443"', "9443 is not in allow"),
        ("internal:9443/", "internal/", "idp.example.internal:443 is not in allow"),
        ('leads = "admin"', 'leads = "boss"', "is not THEIRS=ROLE"),
        ('"evaluation"', '"a,b"', "cannot be a group"),
        ('scopes = ["groups"]', 'scopes = ["a b"]', "is not a scope"),
        ('ca = "{folder}/ca.crt"', 'ca = "ca.crt"', "not an absolute path"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in FULL
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, FULL.replace(old, new))
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
