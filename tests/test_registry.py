"""What site.toml may say of the site's registry, and the login: by password, by token, and never without TLS."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx
import pytest

from bundle import push
from bundle.config import parse_site
from bundle.errors import ConfigError, IntegrityError, PreconditionError
from bundle.model import Secret
from bundle.plan import make_plan
from bundle.registry import Login, Registry, open_registry
from tests import bundles


@pytest.mark.parametrize(
    "address",
    ["images.example.kr", "images:5000", "10.0.0.1:5000/a/b_c/d-e.f", "localhost", "localhost/x"],
)
def test_address_of_a_registry_is_taken(address: str) -> None:
    site = parse_site(f'[registry]\naddress = "{address}"')
    plan = make_plan(site, site_id="0", version="1.0")
    assert plan.image("ops") == f"{address}/tracking-bundle/ops:1.0"


@pytest.mark.parametrize(
    "address",
    [
        "images",
        "https://images.example.kr",
        "Images.example.kr",
        "a.b/",
        "a.b//c",
        "a.b/C",
        "a b:1",
    ],
)
def test_other_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"is not host:port or host:port/prefix"):
        parse_site(f'[registry]\naddress = "{address}"')


def test_user_and_password_go_together() -> None:
    with pytest.raises(ConfigError, match="go together"):
        parse_site('[registry]\naddress = "a.b"\nuser = "x"')
    with pytest.raises(ConfigError, match="not an absolute path"):
        parse_site('[registry]\naddress = "a.b"\nuser = "x"\npassword_file = "pw"')


def test_without_a_registry_there_is_none() -> None:
    assert open_registry(parse_site("")) is None


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [(None, 0, "No such file"), ("x", 0o644, "open to everybody"), ("\n", 0o600, "is empty")],
)
def test_password_file_that_cannot_be_used_is_told(
    tmp_path: Path, content: str | None, mode: int, words: str
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    text = f'[registry]\naddress = "a.b"\nuser = "x"\npassword_file = "{path}"'
    with pytest.raises(ConfigError, match=words) as refused:
        open_registry(parse_site(text))
    assert refused.value.problems[0].where == "site.toml: registry.password_file"


def test_ca_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    for content in (None, "no certificate"):
        path = tmp_path / "ca.pem"
        if content:
            path.write_text(content)
        with pytest.raises(ConfigError, match=r"ca\.pem") as refused:
            open_registry(parse_site(f'[registry]\naddress = "a.b"\nca = "{path}"'))
        assert refused.value.problems[0].where == "site.toml: registry.ca"


def talking(
    answers: dict[str, httpx.Response], user: str = "me"
) -> tuple[Registry, list[httpx.Request]]:
    """A registry that gives `answers` by path, and what it was asked."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path.startswith("/v2/") and request.headers.get("Authorization") != TOKEN:
            return answers["challenge"]
        return answers.get(request.url.path, httpx.Response(404))

    login = Login(user, Secret("pw" if user else ""))
    client = httpx.Client(transport=httpx.MockTransport(answer), auth=login)
    return Registry(address="r.example:5000", prefix="ml", login=login, client=client), asked


TOKEN = "Bearer t0ken"
REALM = 'Bearer realm="{}://auth.example/token",service="images",scope="ignored"'


def test_token_is_fetched_by_password_once_and_used(tmp_path: Path) -> None:
    challenge = httpx.Response(401, headers={"WWW-Authenticate": REALM.format("https")})
    given = httpx.Response(200, json={"token": "t0ken"})
    hub, asked = talking({"challenge": challenge, "/token": given, "/v2/": httpx.Response(200)})
    assert not hub.has("ops", "sha256:00")
    assert not hub.has("ops", "sha256:01")
    assert [request.url.host for request in asked] == [
        "r.example",
        "auth.example",
        "r.example",
        "r.example",
    ]
    assert asked[1].url.params["scope"] == "repository:ml/tracking-bundle/ops:pull,push"
    assert asked[1].url.params["service"] == "images"
    assert base64.b64decode(asked[1].headers["Authorization"][6:]) == b"me:pw"


def test_password_does_not_go_to_a_realm_without_tls() -> None:
    challenge = httpx.Response(401, headers={"WWW-Authenticate": REALM.format("http")})
    hub, asked = talking({"challenge": challenge})
    with pytest.raises(PreconditionError, match="login as me was refused"):
        hub.check()
    assert {request.url.host for request in asked} == {"r.example"}


def test_engine_is_told_the_login_and_nobody_none() -> None:
    hub, _ = talking({})
    known = json.loads(base64.urlsafe_b64decode(hub.header.reveal()))
    assert known == {"username": "me", "password": "pw", "serveraddress": "r.example:5000"}
    nobody, _ = talking({}, user="")
    assert json.loads(base64.urlsafe_b64decode(nobody.header.reveal())) == {
        "serveraddress": "r.example:5000"
    }
    assert "pw" not in repr(hub)


def test_missing_layer_that_the_file_lacks_is_an_error(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    with pytest.raises(IntegrityError, match="the file does not carry it"):
        push._place({}, made.manifest.images[0].layers[0], made.path)
