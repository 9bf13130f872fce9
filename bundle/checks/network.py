"""Network and security: the doors, what is published, names and certificates; ways out are in egress."""

from __future__ import annotations

import datetime
import re
import socket
import ssl

from bundle.checks.model import Check, Red, Stage, settle
from bundle.checks.stage import in_each, inspected, look
from bundle.gateway_client import Door, door, trust
from bundle.model import Service
from bundle.services import forward, gateway
from bundle.services.names import DOORS, doors, internal

DAYS_LEFT = 14
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned/0/0/artifacts/x"

_FIND = 'for n in %s; do set -- $(timeout 3 getent ahostsv4 "$n"); echo "$n ${1:-none}"; done'


def _days_left(until: datetime.datetime) -> int:
    return (until - datetime.datetime.now(datetime.timezone.utc)).days


def tls_gateway(stage: Stage) -> list[str]:
    """Each door presents a certificate of our CA for its name that does not end soon."""
    wrong: list[str] = []
    evidence: list[str] = []
    for name in doors(stage.plan.site):
        target = door(stage.plan, stage.host, name)
        place = f"{name} https://{target.authority}"
        try:
            until = _certificate_end(stage, target)
        except OSError as error:
            wrong.append(f"{place}: {error}")
            continue
        left = _days_left(until)
        line = f"{place}: chain and name verified, until {until:%Y-%m-%d} ({left} days)"
        (evidence if left > DAYS_LEFT else wrong).append(line)
    return settle(wrong, evidence)


def _certificate_end(stage: Stage, target: Door) -> datetime.datetime:
    with (
        socket.create_connection((target.address, target.port), timeout=10) as plain,
        trust(stage.host).wrap_socket(plain, server_hostname=target.name) as secure,
    ):
        end = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
    return datetime.datetime.fromtimestamp(end, datetime.timezone.utc)


def tls_hops(stage: Stage) -> list[str]:
    """Each service inside presents a certificate of our CA for its internal name; Postgres takes nothing plain."""
    answer = look(stage)
    wrong: list[str] = []
    evidence: list[str] = []
    for name, part in answer["hops"].items():
        hop = f"{_clients(stage, name)} → {name}"
        if "error" in part:
            wrong.append(f"{hop}: {part['error']}")
            continue
        until = datetime.datetime.fromisoformat(part["found"]["until"])
        left = _days_left(until)
        line = f"{hop}: {part['found']['protocol']}, verified, until {until:%Y-%m-%d} ({left} days)"
        (evidence if left > DAYS_LEFT else wrong).append(line)
    plain = answer["plain"]
    if "error" in plain:
        wrong.append(f"postgres without TLS: {plain['error']}")
    else:
        evidence.append(f"postgres without TLS: {plain['found']}")
    return settle(wrong, evidence)


def _clients(stage: Stage, name: str) -> str:
    """Who connects to the server of that name."""
    # The site's own S3 is no service here: the forwarder leads there.
    ours = [service.name for service in stage.plan.services if name in service.names]
    server = ours[0] if ours else forward.NAME
    return ", ".join(one.name for one in stage.plan.services if server in one.needs)


def net_plain(stage: Stage) -> list[str]:
    """No door serves plain HTTP."""
    wrong: list[str] = []
    evidence: list[str] = []
    for name in doors(stage.plan.site):
        target = door(stage.plan, stage.host, name)
        said = _plain_answer(target)
        status = re.match(r"HTTP/1\.[01] (\d{3})", said)
        line = f"http://{target.authority}: {said or 'connection closed'}"
        (wrong if status and status[1] < "400" else evidence).append(line)
    return settle(wrong, evidence)


def _plain_answer(target: Door) -> str:
    with socket.create_connection((target.address, target.port), timeout=10) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {target.authority}\r\n\r\n".encode())
        try:
            said = plain.recv(200)
        except ConnectionResetError:
            said = b""
    return said.decode("latin-1").partition("\r\n")[0]


def net_published(stage: Stage) -> list[str]:
    """Only the gateway is published, on the site's address and ports, and nothing runs with the host's rights."""
    site = stage.plan.site
    wrong: list[str] = []
    evidence: list[str] = []
    for service in stage.plan.services:
        attributes = inspected(stage).get(service.name)
        if attributes is None:
            raise Red(f"{service.name}: no container")
        host = attributes["HostConfig"]
        bound = sorted(
            f"{entry['HostIp']}:{entry['HostPort']}"
            for entries in (attributes["NetworkSettings"]["Ports"] or {}).values()
            for entry in entries or ()
        )
        published = gateway.published(site) if service.name == "gateway" else ()
        wanted = sorted(f"{site.bind}:{outside}" for outside, _ in published)
        if bound != wanted:
            wrong.append(f"{service.name}: published on {bound or 'nothing'}, not on {wanted}")
        if host["Privileged"] or host["NetworkMode"] == "host" or host["CapAdd"]:
            wrong.append(f"{service.name}: runs with rights of the host")
        evidence.append(f"{service.name}: {', '.join(bound) or 'not published'}")
    return settle(wrong, evidence)


def _peers(stage: Stage, service: Service) -> list[str]:
    """The private names of those that a service shares a network with, its own among them."""
    return [
        internal(stage.plan.site, other.name)
        for other in stage.plan.services
        if set(other.networks) & set(service.networks) - {"edge"}
    ]


def net_names(stage: Stage) -> list[str]:
    """Each service resolves the private names of those it shares a network with."""
    wrong: list[str] = []
    evidence: list[str] = []
    answers = in_each(stage, lambda s: _FIND % " ".join(_peers(stage, s)), timeout=25)
    for service in stage.plan.services:
        found = dict(line.split(" ", 1) for line in answers[service.name])
        peers = _peers(stage, service)
        missing = [name for name in peers if found.get(name, "none") == "none"]
        wrong += [f"{service.name}: does not resolve {name}" for name in missing]
        evidence.append(f"{service.name}: resolves {len(peers) - len(missing)} of {len(peers)}")
    return settle(wrong, evidence)


def net_presigned(stage: Stage) -> list[str]:
    """Clients are not sent to the object store, which has no door of its own."""
    mlflow = door(stage.plan, stage.host, "mlflow")
    facts = mlflow.ask("GET", "/api/3.0/mlflow/server-info")
    told = facts.text.replace(" ", "")
    offered = re.findall(r'"(multipart_\w+_enabled)":true', told)
    if facts.status_code != 200 or offered or '"multipart_downloads_enabled":false' not in told:
        raise Red(
            f"server-info, status {facts.status_code}: offers {offered or 'nothing readable'}"
        )
    login = ("verify", stage.store["VERIFY_MLFLOW_PASSWORD"].reveal())
    status = mlflow.ask("GET", PRESIGNED, auth=login).status_code
    if status != 404:
        raise Red(f"{PRESIGNED}: status {status}, not 404")
    return ["server-info offers no direct downloads or uploads", f"{PRESIGNED}: 404"]


def net_pages(stage: Stage) -> list[str]:
    """Each door tells browsers what its pages may do, and what would load from or ask outside is closed."""
    wrong: list[str] = []
    for name in DOORS:
        target = door(stage.plan, stage.host, name)
        told = target.ask("GET", "/", headers={"Accept": "text/html"}).headers
        lacking = [key for key, text in gateway.POLICIES.items() if text not in told.get(key, "")]
        wrong += [f"{name}: lacks {key}" for key in lacking]
        for path in gateway.CLOSED.get(name, ()):
            status = target.ask("GET", path, headers={"Accept": "text/html"}).status_code
            wrong += [f"{name}: {path}: status {status}, not 404"] if status != 404 else []
    closed = sum(map(len, gateway.CLOSED.values()))
    return settle(wrong, [f"{len(gateway.POLICIES)} policies at each door; {closed} paths: 404"])


CHECKS = (
    Check(
        id="net-published",
        group="network",
        title={"ko": "게이트웨이만 공개됨", "en": "Only the gateway is published"},
        hint={
            "ko": "invoke install을 다시 실행하십시오. 다른 공개 포트는 직접 만든 것입니다.",
            "en": "Run invoke install again; any other published port was made by hand.",
        },
        probe=net_published,
    ),
    Check(
        id="net-plain",
        group="network",
        title={"ko": "평문 HTTP를 받지 않음", "en": "Plain HTTP is refused"},
        hint={
            "ko": "rendered/gateway/nginx.conf를 invoke install로 되돌리십시오.",
            "en": "Put rendered/gateway/nginx.conf back by invoke install.",
        },
        probe=net_plain,
    ),
    Check(
        id="net-names",
        group="network",
        title={"ko": "내부 이름이 내부에서 해석됨", "en": "Private names resolve inside"},
        hint={
            "ko": "invoke stop, invoke start로 네트워크를 다시 만드십시오.",
            "en": "Make the networks anew by invoke stop and invoke start.",
        },
        probe=net_names,
    ),
    Check(
        id="net-presigned",
        group="network",
        title={
            "ko": "클라이언트를 오브젝트 저장소로 직접 보내지 않음",
            "en": "Clients are never sent to the object store",
        },
        hint={
            "ko": "rendered/gateway/nginx.conf를 invoke install로 되돌리십시오.",
            "en": "Put rendered/gateway/nginx.conf back by invoke install.",
        },
        probe=net_presigned,
    ),
    Check(
        id="net-pages",
        group="network",
        title={
            "ko": "페이지는 자기 문에서만 불러오고, 밖을 찾는 경로는 닫힘",
            "en": "Pages load from their own door only; what asks outside is closed",
        },
        hint={
            "ko": "rendered/gateway/nginx.conf를 invoke install로 되돌리십시오.",
            "en": "Put rendered/gateway/nginx.conf back by invoke install.",
        },
        probe=net_pages,
    ),
    Check(
        id="tls-gateway",
        group="network",
        title={
            "ko": "공개 주소의 TLS 인증서: 사설 CA, 이름, 만료 14일 초과",
            "en": "TLS at the doors: own CA, right name, more than 14 days left",
        },
        hint={
            "ko": "invoke pki.renew가 만료가 가까운 인증서를, 사이트 인증서는 pki.csr과 pki.import가 바꿉니다.",
            "en": "invoke pki.renew issues anew what ends soon; the site's own: invoke pki.csr, then pki.import.",
        },
        probe=tls_gateway,
    ),
    Check(
        id="tls-hops",
        group="network",
        title={
            "ko": "내부 구간의 TLS: 사설 CA, 이름, 만료 14일 초과; Postgres는 평문 거부",
            "en": "TLS on every inner hop: own CA, right name, more than 14 days left; Postgres takes nothing plain",
        },
        hint={
            "ko": "invoke install이 인증서를 새로 발급하고, 그것을 읽는 서비스를 새로 띄웁니다.",
            "en": "Run invoke install: it issues what is due or wrong anew, and renews those services.",
        },
        probe=tls_hops,
        timeout=40,
    ),
)
