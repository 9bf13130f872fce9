"""What TLS costs a client that logs runs: the installed stack against the same one in plain text.

Two closed hosts have the same bundle installed; on one of them every hop from the client to Postgres and MinIO is then
made plain, here and nowhere else: no template that a user gets knows how. Phoenix is on no hop of a run and is stopped
on both. Runs are logged by the stock client out of MLflow's own image, in turns.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from bundle import closed
from bundle.bench.context import Bench, Group
from bundle.bench.figures import Figure, Wanted, interleave
from bundle.bench.importing import IMPORT_SECONDS, ROOT, bootstrap
from bundle.closed import ClosedHost
from bundle.errors import CommandError
from bundle.model import OneOff
from bundle.plan import PROJECT
from bundle.services.names import STACK

RUNS = 60
WITHIN_S = 600.0
ON_THE_WAY = ("postgres", "minio", "mlflow", "guard", "gateway")
COST = Wanted(
    name="logging a run with TLS on every hop, p50",
    unit="×",
    goal=1.15,
    against="the same stack in plain text",
)
VERIFIED = "sslmode=verify-full&sslrootcert=/run/secrets/root.crt"
PLAIN_GUARD = (
    "import http.client as h, runpy; "
    "h.HTTPSConnection = lambda *a, context, **k: h.HTTPConnection(*a, **k); "
    "runpy.run_module('bundle.guard', run_name='__main__')"
)
PLAIN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "compose.yaml": (
        (f"/mlflow?{VERIFIED}", "/mlflow?sslmode=disable"),
        ("https://minio.svc.", "http://minio.svc."),
        ('GUARD_MLFLOW: "https:', 'GUARD_MLFLOW: "http:'),
        ("--ssl-keyfile /run/secrets/tls.key --ssl-certfile /run/secrets/tls.crt ", ""),
        ('- "-m"\n      - "bundle.guard"\n    pull', f'- "-c"\n      - "{PLAIN_GUARD}"\n    pull'),
        (
            '    user: "10002:10002"\n',
            '    user: "10002:10002"\n    entrypoint: [minio, server, /data, --address, ":9000"]\n',
        ),
    ),
    "mlflow/auth.ini": ((VERIFIED, "sslmode=disable"),),
    "postgres/postgresql.conf": (("ssl = on\n", "ssl = off\n"),),
    "postgres/pg_hba.conf": (("hostssl ", "hostnossl "),),
    "gateway/nginx.conf": (
        (" ssl;\n", ";\n"),
        (" ssl default_server;", " default_server;"),
        ("    proxy_ssl on;\n", ""),
    ),
}
"""What is written otherwise in the rendered tree, each of it at least once."""

CLIENT = r"""
import json, os, pathlib, sys, time
given = json.load(sys.stdin)
os.environ.update(given["environment"])
import mlflow, requests
address, trust = os.environ["MLFLOW_TRACKING_URI"], os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
while True:  # the servers start; nothing is counted yet
    try:
        if requests.get(address + "/health", verify=trust or True, timeout=10).ok:
            break
    except requests.RequestException:
        pass
    time.sleep(1)
mlflow.set_experiment("bench-tls")
made = pathlib.Path("/tmp/artifact.bin")
made.write_bytes(os.urandom(10_000))
params = {f"param-{n}": f"value-{n}" for n in range(10)}
metrics = {f"metric-{n}": n / 7 for n in range(10)}
tags = {f"tag-{n}": f"text-{n}" for n in range(3)}
found = []
for n in range(given["runs"] + 3):
    begin = time.monotonic()
    with mlflow.start_run(run_name=f"run-{n}"):
        mlflow.log_params(params)
        mlflow.log_metrics(metrics)
        mlflow.set_tags(tags)
        mlflow.log_artifact(str(made))
    found.append(time.monotonic() - begin)
json.dump(found[3:], sys.stdout)
"""


def make_plain(rendered: Path) -> None:
    """Write the rendered tree so that nothing on the way of a run uses TLS.

    Raises CommandError when it is not as this module knows it: a hop would stay as it is.
    """
    for name, pairs in PLAIN.items():
        path = rendered / name
        text = path.read_text("utf-8")
        for old, new in pairs:
            if old not in text:
                raise CommandError(
                    f"has no {old!r}", where=str(path), hint="See bundle/bench/tls.py."
                )
            text = text.replace(old, new)
        path.write_text(text, "utf-8")


@contextlib.contextmanager
def installed(bench: Bench, name: str) -> Iterator[ClosedHost]:
    """A closed host with the bundle installed; removed afterwards."""
    mirror = bench.config.mirrors_debian
    host = closed.create(bench.work / name, cache=bench.config.cache, mirror=mirror)
    try:
        host.start()
        host.engine_up()
        bootstrap(host, bench.bundle, bench.fingerprint, ROOT)
        line = f"cd {ROOT}/current && . .venv/bin/activate && exec invoke install --yes"
        host.run(["sh", "-c", line], timeout=IMPORT_SECONDS)
        yield host
    finally:
        host.remove()


def begin(host: ClosedHost) -> None:
    """Start what a run needs anew, as it is rendered now, and nothing else."""
    place = f"{ROOT}/rendered"
    compose = ["compose", "--project-name", PROJECT, "--project-directory", place]
    rendered = host.root / place.lstrip("/")
    off = "".join(f"  {name}: {{healthcheck: {{disable: true}}}}\n" for name in ON_THE_WAY)
    (rendered / "bench.yaml").write_text(
        f"services:\n{off}", "ascii"
    )  # probes of TLS, or of Phoenix
    for name in ("compose.yaml", "bench.yaml"):
        compose += ["--file", str(rendered / name)]
    host.engine.client([*compose, "stop"], timeout=WITHIN_S)
    words = ["up", "--detach", "--no-deps", "--force-recreate", *ON_THE_WAY]
    host.engine.client([*compose, *words], timeout=WITHIN_S)


def logging(bench: Bench, host: ClosedHost, scheme: str, runs: int = RUNS) -> float:
    """Log runs through the gateway: the median of their seconds."""
    store = host.root / ROOT.lstrip("/") / "secrets/store"
    settings = {
        "MLFLOW_TRACKING_URI": f"{scheme}://127.0.0.1:8444",
        "MLFLOW_TRACKING_USERNAME": STACK,
        "MLFLOW_TRACKING_PASSWORD": (store / "MLFLOW_STACK_PASSWORD").read_text("utf-8"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    settings |= {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.crt"} if scheme == "https" else {}
    client = OneOff(
        image=next(name for name in bench.references if "/mlflow:" in name),
        arguments=("-W", "ignore", "-c", CLIENT),
        user=10003,
        network="host",
        entrypoint="/opt/venv/bin/python",
        binds={f"{ROOT}/pki/clients.crt": "/ca.crt"},
        environment={"HOME": "/tmp", "GIT_PYTHON_REFRESH": "quiet"},
    )
    text = json.dumps({"environment": settings, "runs": runs})
    said = host.engine.one_off(client, text=text, timeout=WITHIN_S)
    seconds: list[float] = json.loads(said.splitlines()[-1])
    return statistics.median(seconds)


def tls(bench: Bench) -> list[Figure]:
    """Runs by both, in turns."""
    with installed(bench, "host") as secure, installed(bench, "plain") as plain:
        make_plain(plain.root / ROOT.lstrip("/") / "rendered")
        arms = {"https": secure, "http": plain}
        for scheme, host in arms.items():
            begin(host)
            logging(
                bench, host, scheme, runs=5
            )  # the servers have started, and read what they need
        found = interleave(
            {
                "with TLS": lambda: logging(bench, secure, "https"),
                "in plain text": lambda: logging(bench, plain, "http"),
            },
            bench.rounds,
        )
    note = f"{RUNS} runs a sample; 10 params, 10 metrics, 3 tags, an artifact of 10 kB each"
    return [COST.ratio(found["with TLS"], found["in plain text"], note=note)]


GROUPS = (Group(name="tls", wanted=(COST,), act=tls),)
