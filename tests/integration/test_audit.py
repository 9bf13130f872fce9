"""The audit log and real processes: writers killed at any moment, many at once, and a stranger who checks it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundle import audit, auditlog, chained
from bundle.host import Host

TOP = Path(__file__).parents[2]
COLLECT = """
import sys
from pathlib import Path
from bundle import audit
from bundle.host import Host
audit.BATCH = 4000
host = Host(root=Path(sys.argv[1]))
print("ready", flush=True)
audit.collect(host)
"""
APPEND = """
import sys
from pathlib import Path
from bundle import auditlog
from bundle.host import Host
host = Host(root=Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    auditlog.append(host, [{"at": "t", "kind": "task", "what": f"{sys.argv[2]}-{number}"}])
"""


def start(script: str, *words: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-c", script, *words]
    return subprocess.Popen(line, cwd=TOP, stdout=subprocess.PIPE)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(root=tmp_path)
    auditlog.prepare(made, 0)
    return made


def asked(number: int) -> bytes:
    entry = {
        "at": "1763731200.125",
        "id": f"{number:x}",
        "door": "mlflow",
        "method": "POST",
        "path": "/api/2.0/mlflow/runs/create",
        "status": "200",
        "from": "10.0.0.7",
    }
    return json.dumps(entry).encode() + b"\n"


def test_collector_that_is_killed_again_and_again_takes_each_line_once(
    host: Host, rng: random.Random
) -> None:
    path = auditlog.folder(host, auditlog.SPOOL, "2999-01-01T10.jsonl")
    written, kills = 0, 0
    for _ in range(12):
        with open(path, "ab") as file:
            file.write(b"".join(asked(number) for number in range(written, written + 500)))
        written += 500
        child = start(COLLECT, str(host.root))
        assert child.stdout
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.06))
        kills += child.poll() is None
        child.kill()
        child.wait()
        child.stdout.close()
    audit.collect(host)
    found = [int(e["request"], 16) for e in auditlog.entries(host) if e["kind"] == "request"]
    assert found == list(range(written))
    assert auditlog.examine(host, {}).wrong == ""
    assert kills > 3, "the moment of the kill was never in the middle"


def test_many_writers_at_once_lose_no_line(host: Host) -> None:
    children = [start(APPEND, str(host.root), str(name), "40") for name in range(8)]
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0] * 8
    found = [entry["what"] for entry in auditlog.entries(host)]
    assert sorted(found) == sorted(f"{name}-{number}" for name in range(8) for number in range(40))
    assert auditlog.examine(host, {}).wrong == ""


def stranger(host: Host) -> str:
    """What the commands of docs/audit.md say, typed where the log was copied to."""
    text = (TOP / "docs/audit.md").read_text("utf-8")
    block = text.partition("## Checking it without this product")[2].split("```")[1]
    done = subprocess.run(
        ["sh", "-c", block], cwd=auditlog.folder(host), capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_stranger_can_check_it_with_openssl_and_python(host: Host) -> None:
    for number in range(5):
        auditlog.append(host, [{"at": "t", "kind": "task", "user": "김", "what": f'"{number}"'}])
    said = stranger(host)
    assert chained.fingerprint(auditlog.open_key(host)) in said
    assert "Verified OK" in said
    assert "links hold up to line 5" in said
    path = auditlog.files(host)[0]
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'\\"2\\"', b'\\"9\\"'))
    assert "links hold" not in stranger(host)
    path.write_bytes(whole.replace(b'\\"4\\"', b'\\"9\\"'))
    assert "Verified OK" not in stranger(host)
