"""TLS on every inner hop, proven by breaking it: with another certificate at its end no hop passes anything on."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from bundle import certificates
from bundle.authority import load_intermediate
from bundle.certificates import Authority, key_pem, make_leaf, pem
from bundle.host import Host
from bundle.pki import put_pair
from bundle.rehearse import PRODUCT_ROOT
from bundle.services.names import internal
from bundle.site import read_plan
from tests.e2e.stack import Stack, healthy
from tests.e2e.test_forms_of_a_store import ask_by_http2

pytestmark = pytest.mark.timeout(600)
DOMAIN = "closed.internal"
NAMES = {"postgres": 10001, "minio": 10002, "mlflow": 10003, "phoenix": 10004}
DEFAULT_CASES = 2


@dataclass(frozen=True, kw_only=True)
class Hop:
    """From `client` to `server`; `ask` is a request that needs the hop, and says what came of it."""

    client: str
    server: str
    ask: Callable[[Stack], str]

    @property
    def slow(self) -> bool:
        """Whether the server must be started anew to present another certificate."""
        return self.server in ("mlflow", "phoenix")

    def __str__(self) -> str:
        return f"{self.client}-{self.server}"


def curl(stack: Stack, port: int, path: str, *options: str, auth: str) -> str:
    """Ask a door from inside the gateway: status, and the head of what it said."""
    name = stack.containers()["gateway"].name
    line = ["docker", "exec", "-i", name, "curl", "--silent", "--config", "-", *options]
    line += ["--resolve", f"{DOMAIN}:{port}:127.0.0.1", "--cacert", "/run/secrets/clients.crt"]
    line += ["--max-time", "60", "--write-out", " %{http_code}", f"https://{DOMAIN}:{port}{path}"]
    said = stack.host.run(line, timeout=90, text=auth, check=False)
    body, _, status = said.rpartition(" ")
    return f"{status} {body[:200]}"


def secret(stack: Stack, name: str) -> str:
    """A stored secret."""
    return (stack.root / "secrets/store" / name).read_text("utf-8").strip()


def mlflow(stack: Stack, *options: str, path: str = "") -> str:
    """A question to MLflow through its door, which needs its database."""
    auth = f'user = "admin:{secret(stack, "MLFLOW_AUTH_ADMIN_PASSWORD")}"\n'
    path = path or "/api/2.0/mlflow/experiments/search?max_results=1"
    return curl(stack, 8444, path, *options, auth=auth)


def phoenix(stack: Stack) -> str:
    """A question to Phoenix through its door, which needs its database."""
    auth = f'header = "Authorization: Bearer {secret(stack, "VERIFY_PHOENIX_API_KEY")}"\n'
    return curl(stack, 8445, "/v1/projects", auth=auth)


def artifact(stack: Stack) -> str:
    """An artifact that goes through MLflow into the object store."""
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/hop-{time.monotonic_ns()}/artifacts/a.txt"
    return mlflow(stack, "--request", "PUT", "--data-binary", "through the hop", path=path)


LIST = """
import sys, urllib3
from minio import Minio
from minio.error import MinioException, S3Error
pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs="/pki/clients.crt", retries=False, timeout=20)
key, secret, bucket = sys.stdin.read().split()
door = Minio("127.0.0.1:8446", key, secret, http_client=pool)
try:
    sys.stdout.write(f"200 {[one.object_name for one in door.list_objects(bucket)]}")
except S3Error as error:
    sys.stdout.write(f"{error.response.status} {error.code}")
except MinioException as error:
    sys.stdout.write(str(error).partition("code: ")[2])
"""


def listing(stack: Stack, bucket: str = "backups") -> str:
    """A listing of a bucket through the store's door, which needs the hop."""
    image = stack.containers()["gateway"].image.replace("/gateway:", "/ops:")
    trust = f"type=bind,source={PRODUCT_ROOT}/pki,target=/pki,readonly"
    line = ["docker", "run", "--rm", "-i", "--network", "host", "--user", "0", "--mount", trust]
    text = " ".join([secret(stack, "S3_BACKUPS_KEY"), secret(stack, "S3_BACKUPS_SECRET"), bucket])
    return stack.host.run([*line, image, "-c", LIST], timeout=90, text=text, check=False)


HOPS = (
    Hop(client="gateway", server="mlflow", ask=mlflow),
    Hop(client="gateway", server="phoenix", ask=phoenix),
    Hop(client="mlflow", server="postgres", ask=mlflow),
    Hop(client="phoenix", server="postgres", ask=phoenix),
    Hop(client="mlflow", server="minio", ask=artifact),
)


def issuer(stack: Stack) -> Authority:
    """The installation's own intermediate."""
    return load_intermediate((stack.root / "pki/current").resolve())


def other_ca(stack: Stack, name: str) -> tuple[Authority, Authority]:
    """For the right name, by a CA of the same kind and name that nobody knows."""
    strange = certificates.make_intermediate(certificates.make_root("0a1b2c3d"), DOMAIN, "0a1b2c3d")
    return make_leaf(strange, (name,), 90), strange


def expired(stack: Stack, name: str) -> tuple[Authority, Authority]:
    """By the right CA for the right name, ten days ago."""
    own, present = issuer(stack), certificates.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "now", lambda: present() - datetime.timedelta(days=100))
        return make_leaf(own, (name,), 90), own


def other_name(stack: Stack, name: str) -> tuple[Authority, Authority]:
    """By the right CA, for the name of another service."""
    own = issuer(stack)
    return make_leaf(own, (f"other.{name.partition('.')[2]}",), 90), own


KINDS = (other_ca, expired, other_name)
CASES = tuple(itertools.product(HOPS, KINDS))


def present(stack: Stack, service: str) -> None:
    """Have a server present what lies in its folder now, on connections that are all new."""
    name = stack.containers()[service].name
    if service == "postgres":
        roles = "usename in ('mlflow', 'mlflow_auth', 'phoenix')"
        end = f"select pg_terminate_backend(pid) from pg_stat_activity where {roles}"
        psql = ["psql", "-h", "/tmp", "-U", "postgres", "-qAtc"]
        stack.host.run(["docker", "exec", name, "bash", "-c", "kill -HUP 1"], timeout=30)
        time.sleep(0.5)
        stack.host.run(["docker", "exec", name, *psql, end], timeout=30)
    else:
        stack.host.run(["docker", "restart", "--time", "10", name], timeout=60)


def wait(done: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, what
        time.sleep(1)


@contextlib.contextmanager
def presenting(stack: Stack, hop: Hop, leaf: Authority, middle: Authority) -> Iterator[None]:
    """The hop's server has another certificate; it gets its own back, and everything is well again."""
    folder, uid = stack.root / "secrets" / hop.server, NAMES[hop.server]
    before = [(folder / name).resolve().read_bytes() for name in ("tls.key", "tls.crt")]
    put_pair(folder, key_pem(leaf.key), pem(leaf.certificate) + pem(middle.certificate), uid)
    try:
        present(stack, hop.server)
        yield
    finally:
        put_pair(folder, before[0], before[1], uid)
        present(stack, hop.server)
        wait(lambda: healthy(stack.containers()), f"{hop.server} is not well again")


def listening(stack: Stack, hop: Hop) -> bool:
    """Whether the hop's server takes connections."""
    port = {"mlflow": 5000, "phoenix": 6006, "postgres": 5432, "minio": 9000}[hop.server]
    line = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo open"
    name = stack.containers()[hop.server].name
    command = ["docker", "exec", name, "bash", "-c", line]
    return "open" in stack.host.run(command, timeout=30, check=False)


def hops_line(stack: Stack) -> tuple[str, str]:
    """What verify says of the hops: status and evidence."""
    stack.invoke("verify", "--only", "tls-hops", timeout=120, check=False)
    report = json.loads((stack.root / "reports/part/verify.json").read_text("utf-8"))
    found = next(r for r in report["results"] if r["id"] == "tls-hops")
    return found["status"], "\n".join(found["evidence"])


def broken(
    stack: Stack, hop: Hop, kind: Callable[[Stack, str], tuple[Authority, Authority]]
) -> None:
    """One case: the hop passes, fails closed, is named by verify, and passes again."""
    assert hop.ask(stack).startswith("200"), "the hop works before"
    with presenting(stack, hop, *kind(stack, f"{hop.server}.svc.{DOMAIN}")):
        wait(lambda: listening(stack, hop), f"{hop.server} does not come up")
        said = hop.ask(stack)
        assert said[:1] == "5", said
        status, evidence = hops_line(stack)
        assert status == "failed"
        assert any(
            hop.client in line
            and f"→ {hop.server}." in line
            and "CERTIFICATE_VERIFY_FAILED" in line
            for line in evidence.splitlines()
        ), evidence
    wait(lambda: hop.ask(stack).startswith("200"), f"{hop} does not pass again")


def test_some_hops_fail_closed(stack: Stack, rng: random.Random) -> None:
    """A seeded pair of the cases whose servers reload."""
    quick = [case for case in CASES if not case[0].slow]
    for hop, kind in rng.sample(quick, DEFAULT_CASES):
        broken(stack, hop, kind)
    assert hops_line(stack)[0] == "passed"


@pytest.mark.nightly
@pytest.mark.parametrize(("hop", "kind"), CASES, ids=[f"{h}-{k.__name__}" for h, k in CASES])
def test_hop_fails_closed(
    hop: Hop, kind: Callable[..., tuple[Authority, Authority]], stack: Stack
) -> None:
    broken(stack, hop, kind)
    assert hops_line(stack)[0] == "passed"


PLAIN = r"""
import json, socket, sys
found = {}
for name, port in json.load(sys.stdin):
    said = b""
    try:
        with socket.create_connection((name, port), timeout=5) as plain:
            plain.settimeout(5)
            plain.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
            said = plain.recv(200)
    except OSError as error:
        said = type(error).__name__.encode()
    found[f"{name}:{port}"] = said.decode("latin-1")[:100]
json.dump(found, sys.stdout)
"""
# The ports on which something listens beside the loopback, in hexadecimal as the kernel has them.
LOOPBACK = "0100007F|0B00007F|00000000000000000000000001000000"
PORTS = (
    f"cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" && $2 !~ /^({LOOPBACK})/ {{print $2}}'"
)
TLS_PORTS = {
    "postgres": {5432},
    "minio": {9000},
    "mlflow": {5000},
    "phoenix": {6006, 4317},
    "gateway": {8443, 8444, 8445},
    "guard": set(),
}


@pytest.mark.parametrize("service", TLS_PORTS)
def test_only_the_ports_of_tls_are_there(service: str, stack: Stack) -> None:
    """Whatever listens in a container is known, so the next test leaves no port out."""
    name = stack.containers()[service].name
    said = stack.host.run(["docker", "exec", name, "bash", "-c", PORTS], timeout=30)
    found = {int(line.rpartition(":")[2], 16) for line in said.split()}
    assert found == TLS_PORTS[service]


@pytest.mark.parametrize("network", ["data", "app"])
def test_no_port_answers_without_tls(network: str, stack: Stack) -> None:
    plan = read_plan(Host(root=stack.root), "0")
    ports = [
        (internal(plan.site, service.name), port)
        for service in plan.services
        for port in sorted(TLS_PORTS.get(service.name, ()))
        if network in service.networks
    ]
    image = stack.containers()["gateway"].image.replace("/gateway:", "/ops:")
    line = ["docker", "run", "--rm", "-i", "--network", f"tracking_{network}", image, "-c", PLAIN]
    found = json.loads(stack.host.run(line, timeout=60, text=json.dumps(ports)))
    assert len(found) == len(ports) > 3
    answered = {place: said for place, said in found.items() if said.startswith("HTTP/1")}
    assert all(" 400 " in said.partition("\r")[0] for said in answered.values()), answered


def test_object_store_has_no_hop_from_the_gateway(stack: Stack) -> None:
    """The S3 port is on a network where the gateway is not."""
    name = stack.containers()["gateway"].name
    look = f"getent hosts minio.svc.{DOMAIN} || echo none"
    assert (
        stack.host.run(["docker", "exec", name, "bash", "-c", look], timeout=30).strip() == "none"
    )


@contextlib.contextmanager
def exposed(stack: Stack) -> Iterator[None]:
    """The gateway has a door to the object store."""
    file = stack.root / "site.toml"
    before = file.read_text("utf-8")
    file.write_text(before.replace("\n[s3]\n", "\n[s3]\nexpose = true\n"), "utf-8")
    try:
        stack.invoke("install", "--yes", timeout=400)
        yield
    finally:
        file.write_text(before, "utf-8")
        stack.invoke("install", "--yes", timeout=400)


STORE = Hop(client="gateway", server="minio", ask=listing)


@pytest.mark.nightly
def test_door_of_the_object_store_is_a_hop_like_the_others(stack: Stack) -> None:
    """With the door: its hop fails closed in each way, a key gets its own bucket only, the holes are shut again."""
    with exposed(stack):
        for kind in KINDS:
            broken(stack, STORE, kind)
        assert listing(stack, "mlflow-artifacts") == "403 AccessDenied"
        for path, options in {
            "/minio/admin/v3/info": (),
            "/minio/health/live": (),
            "/": ("--request", "POST"),
            "/backups/a?select&select-type=2": ("--request", "POST"),
            "/backups": ("--form", "key=a"),
            "/backups/a": ("--request", "PUT", "--header", "X-Minio-Force-Delete: true"),
            "/backups/b": ("--header", "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            "/backups/c?X-Amz-Credential=b": (
                "--header",
                "Authorization: AWS4-HMAC-SHA256 Credential=a",
            ),
            "/backups/d?select%2Dtype=2": (),
            "/backups/e": ("--header", "X-Minio-Source-Mtime: 2000-01-01T00:00:00Z"),
        }.items():
            assert curl(stack, 8446, path, *options, auth="")[:3] in ("400", "404"), path
        for headers in (
            {"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
            {"Content-Type": "multipart/form-data; boundary=x"},
        ):
            assert ask_by_http2(stack, 8446, ("/backups", headers, "POST")) == 400, headers
        assert curl(stack, 8446, "/backups/a", auth="").startswith("403")
        lines = (
            "net-published",
            "net-plain",
            "tls-gateway",
            "net-egress",
            "net-names",
            "net-pages",
        )
        stack.invoke("verify", *(w for line in lines for w in ("--only", line)), timeout=200)
    test_object_store_has_no_hop_from_the_gateway(stack)
