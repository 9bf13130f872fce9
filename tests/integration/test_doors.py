"""The lines that ask the published doors, against small servers behind real TLS: green, and red for each defect."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import authority, certificates
from bundle.checks import CHECKS
from bundle.checks.model import Stage
from bundle.checks.runner import probe
from bundle.config import parse_site
from bundle.errors import CommandError
from bundle.gateway_client import Door, door
from bundle.host import Host
from bundle.model import Secret
from bundle.plan import Plan, make_plan
from bundle.services.gateway import CLOSED, POLICIES
from bundle.services.names import door_hosts
from tests.checks.doors import DOORED
from tests.checks.stages import SECRETS, make_release

SENT = dict(POLICIES)
BY_ID = {check.id: check for check in CHECKS}
Answer = Callable[[str, str, str], tuple[int, str]]
"""What a server says to (method, path, authorization)."""

INFO = '{"multipart_downloads_enabled": false, "multipart_uploads_enabled": false}'
NOBODY = "Basic " + base64.b64encode(b"nobody:x").decode()
OWN = "Basic " + base64.b64encode(b"verify:s3cret").decode()


def right_mlflow(_: str, path: str, authorization: str) -> tuple[int, str]:
    """MLflow behind our gateway."""
    if path == "/api/3.0/mlflow/server-info":
        return 200, INFO
    if path in CLOSED["mlflow"]:
        return 404, ""
    if authorization != OWN:
        return 403 if authorization == NOBODY else 401, "no"
    return (404, "") if "/presigned/" in path else (200, "{}")


def right_phoenix(method: str, path: str, authorization: str) -> tuple[int, str]:
    """Phoenix behind our gateway."""
    if method == "GET" and path in CLOSED["phoenix"]:
        return 404, ""
    if authorization == NOBODY:
        return 403, "no"
    return (200, "{}") if authorization == "Bearer s3cret" else (401, path)


def handler_of(answer: Answer) -> type[http.server.BaseHTTPRequestHandler]:
    """A handler that says what `answer` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = self.headers.get("Authorization", "")
            status, text = answer(self.command, self.path, given)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            for name, policy in SENT.items():
                self.send_header(name, policy)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = reply  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    return Handler


class Server(http.server.ThreadingHTTPServer):
    """A server whose connections may break: a probe that speaks plain HTTP does that."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve(port: int, answer: Answer, certificate: Path | None) -> Iterator[None]:
    """A server on `port`, behind TLS when it has a certificate."""
    server = Server(("127.0.0.1", port), handler_of(answer))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@pytest.fixture
def plan() -> Plan:
    portal, mlflow, phoenix = free_ports(3)
    text = f'domain = "lab.internal"\n[ports]\nportal = {portal}\nmlflow = {mlflow}\nphoenix = {phoenix}\n'
    return make_plan(parse_site(text), site_id="0a1b2c3d", version="1.2.3")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(root=tmp_path / "뿌리 하나")


def make_certificate(
    host: Host, plan: Plan, *, names: tuple[str, ...] = (), days: int = 90
) -> Path:
    """A certificate for the doors with its chain and key, in one file."""
    host.root.mkdir(exist_ok=True)
    _, issuer = authority.authorities(host, plan)
    leaf = certificates.make_leaf(issuer, names or door_hosts(plan.site, "portal"), days)
    path = host.root / f"leaf-{days}-{len(names)}.pem"
    chain = certificates.pem(leaf.certificate) + certificates.pem(issuer.certificate)
    path.write_bytes(chain + certificates.key_pem(leaf.key))
    return path


def stage_of(plan: Plan, host: Host) -> Stage:
    store = {name: Secret("s3cret") for name in SECRETS}
    return Stage(plan=plan, host=host, release=make_release(plan), store=store)


@contextlib.contextmanager
def stand(
    plan: Plan,
    certificate: Path | None,
    mlflow: Answer = right_mlflow,
    phoenix: Answer = right_phoenix,
) -> Iterator[None]:
    """All three doors open."""
    site = plan.site
    with (
        serve(site.ports_portal, lambda *_: (200, "<html>"), certificate),
        serve(site.ports_mlflow, mlflow, certificate),
        serve(site.ports_phoenix, phoenix, certificate),
    ):
        yield


@pytest.mark.parametrize("name", DOORED)
def test_right_doors_are_green(name: str, plan: Plan, host: Host) -> None:
    with stand(plan, make_certificate(host, plan)):
        verdict = probe(stage_of(plan, host), BY_ID[name])
    assert verdict.status == "passed", verdict.evidence


def open_to(path: str, answer: Answer, status: int = 200, text: str = "{}") -> Answer:
    """A server that answers `path` to anybody."""

    def changed(method: str, asked: str, authorization: str) -> tuple[int, str]:
        return (status, text) if asked == path else answer(method, asked, authorization)

    return changed


def well_known(_: str, path: str, authorization: str) -> tuple[int, str]:
    """MLflow whose administrator has a well-known password."""
    known = "Basic " + base64.b64encode(b"admin:password1234").decode()
    return (200, "{}") if authorization == known else right_mlflow("", path, authorization)


INFO_PATH = "/api/3.0/mlflow/server-info"
DEFECTS: tuple[tuple[str, Answer, Answer, str], ...] = (
    ("access-mlflow", open_to("/v1/traces", right_mlflow), right_phoenix, "POST /v1/traces: status 200"),
    ("access-mlflow", open_to("/", right_mlflow, 302), right_phoenix, "GET /: status 302"),
    ("access-phoenix", right_mlflow, open_to("/graphql", right_phoenix), "/graphql: status 200"),
    ("access-phoenix", right_mlflow, open_to("/v1/projects", right_phoenix, 500), "status 500"),
    ("access-denied", open_to("/version", right_mlflow, 401), right_phoenix, "mlflow: status 401 for nobody"),
    ("access-denied", right_mlflow, open_to("/v1/user", right_phoenix), "phoenix: status 200 for nobody"),
    ("access-defaults", well_known, right_phoenix, "'password1234'"),
    ("access-defaults", right_mlflow, open_to("/auth/login", right_phoenix, 204), "answers 204"),
    ("net-presigned", open_to(INFO_PATH, right_mlflow, 200, INFO.replace("false", "true")), right_phoenix, "offers"),
    ("net-pages", right_mlflow, open_to("/docs", right_phoenix), "phoenix: /docs: status 200"),
    ("net-pages", open_to("/gateway/mlflow/v1/models", right_mlflow, 401), right_phoenix, "v1/models: status 401"),
    ("net-presigned", open_to(INFO_PATH, right_mlflow, 503), right_phoenix, "503"),
    ("net-presigned", lambda *a: (200, INFO if a[1] == INFO_PATH else ""), right_phoenix, "not 404"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mlflow", "phoenix", "named"), DEFECTS, ids=[f"{d[0]}-{d[3]}" for d in DEFECTS]
)
def test_open_door_is_red(
    name: str, mlflow: Answer, phoenix: Answer, named: str, plan: Plan, host: Host
) -> None:
    with stand(plan, make_certificate(host, plan), mlflow, phoenix):
        verdict = probe(stage_of(plan, host), BY_ID[name])
    assert verdict.status == "failed"
    assert named in "\n".join(verdict.evidence)


@pytest.mark.parametrize("name", POLICIES)
def test_page_without_a_policy_is_red(
    name: str, plan: Plan, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SENT, name, "")
    with stand(plan, make_certificate(host, plan)):
        verdict = probe(stage_of(plan, host), BY_ID["net-pages"])
    assert verdict.evidence == tuple(f"{d}: lacks {name}" for d in ("portal", "mlflow", "phoenix"))


@pytest.mark.parametrize(
    ("names", "days", "named"),
    [
        (("other.lab.internal",), 90, "doesn't match|not valid for"),
        ((), 10, r"\(9 days\)|\(10 days\)"),
    ],
)
def test_wrong_certificate_is_red(
    names: tuple[str, ...], days: int, named: str, plan: Plan, host: Host
) -> None:
    with stand(plan, make_certificate(host, plan, names=names, days=days)):
        verdict = probe(stage_of(plan, host), BY_ID["tls-gateway"])
    assert verdict.status == "failed"
    assert re.search(named, "\n".join(verdict.evidence))


def test_foreign_certificate_is_red(plan: Plan, host: Host, tmp_path: Path) -> None:
    foreign = make_certificate(Host(root=tmp_path / "foreign"), plan)
    make_certificate(host, plan)
    with stand(plan, foreign):
        verdict = probe(stage_of(plan, host), BY_ID["tls-gateway"])
    assert verdict.status == "failed"
    assert "CERTIFICATE_VERIFY_FAILED" in verdict.evidence[0]


def test_door_without_tls_is_red(plan: Plan, host: Host) -> None:
    make_certificate(host, plan)
    with stand(plan, None):
        stage = stage_of(plan, host)
        verdicts = {name: probe(stage, BY_ID[name]) for name in ("net-plain", "tls-gateway")}
    assert {verdict.status for verdict in verdicts.values()} == {"failed"}
    assert "HTTP/1.1 200" in "\n".join(verdicts["net-plain"].evidence)


@pytest.mark.parametrize("name", DOORED)
def test_absent_door_is_red(name: str, plan: Plan, host: Host) -> None:
    make_certificate(host, plan)
    verdict = probe(stage_of(plan, host), BY_ID[name])
    assert verdict.status == "failed"
    assert "refused" in "\n".join(verdict.evidence)


def test_door_ignores_a_proxy(plan: Plan, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with stand(plan, make_certificate(host, plan)):
        assert door(plan, host, "portal").ask("GET", "/").status_code == 200


def test_door_sends_the_public_name(plan: Plan, host: Host) -> None:
    seen = []

    def note(method: str, path: str, authorization: str) -> tuple[int, str]:
        seen.append((method, path, authorization))
        return 200, json.dumps({})

    with stand(plan, make_certificate(host, plan), mlflow=note):
        target: Door = door(plan, host, "mlflow")
        target.ask("POST", "/x", bearer="k", json={})
        wrong = replace(target, name="elsewhere.internal")
        with pytest.raises(CommandError, match="CERTIFICATE_VERIFY_FAILED"):
            wrong.ask("GET", "/x")
    assert seen == [("POST", "/x", "Bearer k")]
