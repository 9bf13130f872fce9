"""Single sign-on on the installed stack: a real identity provider, a real browser, and each way in which it fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bundle import browse
from bundle.certificates import key_pem, pem
from bundle.run import run
from tests.e2e.outside import THERE, Outside, outside
from tests.e2e.stack import Stack
from tests.e2e.test_audit import entries, last
from tests.test_chain import Recipe, certificate

pytestmark = [pytest.mark.timeout(900), pytest.mark.nightly]
HERE = Path(__file__).with_name("idp")
FOLDER = Path("/var/tmp/tracking-bundle-tests/idp")
NAME, PORT = "idp.example.internal", 9443
ISSUER = f"https://{NAME}:{PORT}"
SECRET, TITLE = "s3cret-of-the-client-0123456789", "회사 계정"
ROOT, OTHER = Recipe(common="CA idp", ca=True), Recipe(common="CA other", ca=True)
PEOPLE = {
    "kim": {"email": "kim@example.internal", "name": "kim sso", "groups": ["lab"], "role": "staff"},
    "guest": {
        "email": "guest@example.internal",
        "name": "guest",
        "groups": ["others"],
        "role": "staff",
    },
    "boss": {
        "email": "boss@example.internal",
        "name": "boss",
        "groups": ["lab"],
        "role": "unheard-of",
    },
}
ALLOW = f'allow = ["{NAME}:{PORT}={THERE}"]\n'
SETTINGS = f"""
[oidc]
url = "{ISSUER}/.well-known/openid-configuration"
client = "tracking"
secret = "secret://file/root/idp/secret"
ca = "/root/idp/ca.crt"
title = "{TITLE}"
scopes = ["groups"]
groups_path = "groups"
groups = ["lab"]
role_path = "role"
roles = {{staff = "editor", leads = "admin"}}
"""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """The identity provider's program, the stack that it is for, and the network outside in which it stands."""

    stack: Stack
    outside: Outside
    folder: Path

    @contextmanager
    def up(self, *, secret: str = SECRET, root: Recipe = ROOT) -> Iterator[None]:
        """It runs."""
        leaf = Recipe(common=NAME, names=(NAME,))
        chain = pem(certificate(leaf, (root, certificate(root, None))))
        wanted = {
            "issuer": ISSUER,
            "port": PORT,
            "secret": secret,
            "redirect": "https://closed.internal:8445/oauth2/site/tokens",
            "people": PEOPLE,
            "key": key_pem(leaf.key).decode(),
            "certificate": chain.decode(),
        }
        line = ["nsenter", "--target", str(self.outside.pid), "--net", "--"]
        child = subprocess.Popen(
            [*line, "node", str(self.folder / "server.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(wanted))
        child.stdin.close()
        assert child.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            child.kill()
            child.wait()
            child.stdout.close()

    def visit(self, who: str) -> dict[str, Any]:
        """Somebody logs in by the button; where that led."""
        with tempfile.TemporaryDirectory(prefix="browse-") as home:
            browse.trust(Path(home), self.stack.root / "pki/clients.crt")
            ca = Path(home) / "idp.crt"
            ca.write_bytes(pem(certificate(ROOT, None)))
            database = f"sql:{home}/.pki/nssdb"
            run(
                ["certutil", "-A", "-n", "idp", "-t", "C,,", "-i", str(ca), "-d", database],
                timeout=30,
            )
            wanted = {
                "chromium": browse.find_chromium(),
                "title": TITLE,
                "issuer": ISSUER,
                "address": THERE,
                "login": who,
                "picture": str(self.folder / f"{who}.png"),
            }
            said = self.stack.host.beside(
                [sys.executable, str(HERE / "browser.py")],
                timeout=200,
                env={"HOME": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
                text=json.dumps(wanted),
            )
        found: dict[str, Any] = json.loads(said)
        return found


@pytest.fixture(scope="module")
def program() -> Path:
    """The identity provider with its locked packages, kept between runs."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "server.js"):
        shutil.copy(HERE / name, FOLDER)
    if not (FOLDER / "node_modules/oidc-provider").exists():
        run(["npm", "ci", "--no-audit", "--no-fund"], timeout=300, cwd=FOLDER)
    return FOLDER


@pytest.fixture(scope="module")
def provider(
    stack: Stack, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Provider]:
    """The stack that knows an identity provider, which does not run yet."""
    folder, settings = stack.host.root / "root/idp", stack.root / "site.toml"
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(pem(certificate(ROOT, None)))
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    before = settings.read_bytes()
    with outside(stack.host, tmp_path_factory.mktemp("outside")) as beyond:
        assert b"\n[oidc]\n" in before, "the sample has the section"
        filled = before.replace(b"\n[oidc]\n", SETTINGS.encode(), 1)
        settings.write_bytes(ALLOW.encode() + filled)
        try:
            stack.invoke("install", "--yes", timeout=600)
            yield Provider(stack=stack, outside=beyond, folder=program)
        finally:
            settings.write_bytes(before)
            stack.invoke("install", "--yes", timeout=600)


def ask(stack: Stack, *words: str) -> str:
    """What curl on the closed host says."""
    line = [
        "curl",
        "--silent",
        "--show-error",
        "--cacert",
        "/var/lib/tracking-bundle/pki/clients.crt",
    ]
    line += ["--resolve", "closed.internal:8445:127.0.0.1", "--write-out", "\n%{http_code}"]
    return run_curl(stack, [*line, *words])


def run_curl(stack: Stack, line: list[str]) -> str:
    """curl of this host in the closed host's network (that one has none)."""
    index = line.index("--cacert") + 1
    line[index] = str(stack.root / "pki/clients.crt")
    return stack.host.beside(line, timeout=90, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})


LOGIN = "https://closed.internal:8445/oauth2/site/login"


def test_provider_that_is_down_or_another_one_is_told_in_words(provider: Provider) -> None:
    said = ask(provider.stack, LOGIN)
    assert said.endswith("\n502")
    assert "the identity provider does not answer" in said
    assert "비밀번호로 로그인" in said
    with provider.up(root=replace(OTHER)):
        said = ask(provider.stack, LOGIN)
        assert said.endswith("\n502")
        log = provider.stack.invoke("logs", "--service", "phoenix", "--since", "1m")
        assert "CERTIFICATE_VERIFY_FAILED" in log
    with provider.up():
        assert ask(provider.stack, LOGIN).endswith("\n302")


def test_person_logs_in_with_the_role_of_the_provider_and_is_in_the_audit_log(
    provider: Provider,
) -> None:
    before = last(provider.stack)
    with provider.up():
        found = provider.visit("kim")
        assert found.get("viewer"), found
        assert found["viewer"]["email"] == "kim@example.internal"
        assert found["viewer"]["role"]["name"] == "MEMBER"
    changes = [
        e
        for e in entries(provider.stack)
        if e["seq"] > before and e.get("mutation") == "createDataset"
    ]
    assert [(e["user"], e["result"]) for e in changes] == [(found["viewer"]["username"], 200)]


@pytest.mark.parametrize("who", ["guest", "boss"])
def test_person_of_no_group_or_role_of_ours_is_refused(provider: Provider, who: str) -> None:
    with provider.up():
        found = provider.visit(who)
    assert "error=auth_failed" in found["url"], found
    assert "viewer" not in found


def test_wrong_client_secret_is_told(provider: Provider) -> None:
    with provider.up(secret="another-secret-of-the-client-123"):
        found = provider.visit("kim")
    assert "error=oauth_error" in found["url"], found
    assert "invalid_client" in provider.stack.invoke(
        "logs", "--service", "phoenix", "--since", "1m"
    )


def test_password_stays_a_way_in(provider: Provider) -> None:
    secret = (provider.stack.root / "secrets/store/PHOENIX_ADMIN_SECRET").read_text("utf-8").strip()
    said = ask(
        provider.stack,
        "-H",
        f"Authorization: Bearer {secret}",
        "https://closed.internal:8445/v1/users",
    )
    assert said.endswith("\n200")
    body = '{"email": "admin@localhost", "password": "wrong-one"}'
    said = ask(
        provider.stack,
        *("-H", "Content-Type: application/json", "-d", body),
        "https://closed.internal:8445/auth/login",
    )
    assert said.endswith("\n401"), "it is asked for, and refused as wrong only"


def test_secret_of_the_client_is_in_no_file_of_the_engine_nor_of_ours(provider: Provider) -> None:
    host = provider.stack.host
    name = provider.stack.containers()["phoenix"].name
    assert SECRET not in host.run(["docker", "inspect", name], timeout=30)
    for folder in ("rendered", "reports", "audit"):
        for path in (provider.stack.root / folder).rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes()
