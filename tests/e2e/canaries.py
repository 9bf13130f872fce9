"""Look for the installation's own secrets everywhere on its closed host; a find is a name and a place, never a value.

The values that are looked for are those that really protect this stack, in the clear and in base64 at each offset.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from bundle import rehearse
from tests.e2e.stack import Stack

PRODUCT = rehearse.PRODUCT_ROOT.lstrip("/")
HOMES = tuple(f"{PRODUCT}/{name}/" for name in ("secrets", "pki", "safety"))
"""Where secrets belong: root's own, 0700."""
USERS = "var/lib/docker/volumes/tracking_minio/_data/.minio.sys/config/iam/"
"""Where the object store keeps its users: its own volume, which nobody else mounts."""
NAMES = ("_KEY", "_USER")
SHORTEST = 20
SERVICE = "com.docker.compose.service"
STOP = "/tmp/stop-looking"
LOOK = """
import json, os, sys, time
needles, allowed = (lambda r: (r["needles"], r["allowed"]))(json.load(sys.stdin))
found, seen, rounds = set(), set(), 0
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == str(os.getpid()):
            continue
        try:
            texts = {part: open(f"/proc/{pid}/{part}", "rb").read() for part in ("cmdline", "environ")}
            group = open(f"/proc/{pid}/cgroup").read()
        except OSError:
            continue
        key = hash((pid, *texts.values()))
        if key in seen:
            continue
        seen.add(key)
        own = next((names for container, names in allowed.items() if container in group), [])
        program = texts["cmdline"].split(b"\\0")[0].decode("utf-8", "replace")
        for name, forms in needles.items():
            for part, text in texts.items():
                if any(form.encode() in text for form in forms) and not (part == "environ" and name in own):
                    found.add(f"{name} in {part} of {program}")
    rounds += 1
    if os.path.exists(sys.argv[1]):
        break
    time.sleep(0.05)
json.dump({"found": sorted(found), "rounds": rounds, "processes": len(seen)}, sys.stdout)
"""


def forms(value: str) -> list[str]:
    """How a value may stand somewhere: itself, and what base64 makes of it at each of the three offsets."""
    found = [value]
    for offset in range(3):
        code = base64.b64encode(b"x" * offset + value.encode()).decode()
        inner = code[4 if offset else 0 :].rstrip("=")
        found.append(inner[: len(inner) - len(inner) % 4 - 4])
    return found


def needles(stack: Stack) -> dict[str, list[str]]:
    """Every secret value and private key of the installation by name, in all its forms."""
    store = {
        path.name: path.read_text("utf-8").strip()
        for path in (stack.root / "secrets/store").iterdir()
        if not path.name.startswith("S3_") or not path.name.endswith(NAMES)
    }
    found = {name: forms(value) for name, value in store.items() if len(value) >= SHORTEST}
    keys = [*(stack.root / "pki").glob("g*/*.key"), *(stack.root / "secrets").glob("*.key")]
    for path in [*keys, *(stack.root / "secrets").glob("*/tls/tls.key")]:
        found[str(path.relative_to(stack.root))] = [path.read_text("ascii").split("\n")[1]]
    return found


def own_of(stack: Stack, wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """Which secrets the processes of a container may have in their environment: those in its service's folder."""
    ids = stack.host.run(
        ["docker", "ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"], timeout=30
    )
    found = {}
    for line in ids.splitlines():
        container, name = line.split()
        folder = stack.root / "secrets" / name.split("-")[1] if "-" in name else stack.root / "none"
        texts = [path.read_text("utf-8") for path in folder.glob("[A-Z]*")]
        found[container] = [n for n, (value, *_) in wanted.items() if value in texts]
    return found


@contextmanager
def watching(stack: Stack, wanted: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Meanwhile look at every process again and again; what was found is there at the end."""
    found: dict[str, Any] = {}
    request = json.dumps({"needles": wanted, "allowed": own_of(stack, wanted)})
    stack.host.run(["rm", "-f", STOP], timeout=20)

    def look() -> None:
        line = ["python3", "-c", LOOK, STOP]
        found.update(json.loads(stack.host.run(line, timeout=400, text=request)))

    watcher = Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        stack.host.run(["touch", STOP], timeout=20)
        watcher.join()
        stack.host.run(["rm", "-f", STOP], timeout=20)


def in_engine(stack: Stack, wanted: dict[str, list[str]]) -> list[str]:
    """What the engine says of containers, images, volumes and networks, and every container's log."""
    script = (
        "docker inspect $(docker ps -aq) $(docker images -q | sort -u) $(docker volume ls -q)"
        " $(docker network ls -q); for i in $(docker images -q | sort -u); do docker history --no-trunc $i; done;"
        " for c in $(docker ps -aq); do docker logs $c 2>&1; done"
    )
    said = stack.host.run(["sh", "-c", script], timeout=120)
    assert len(said) > 100_000, "nothing was looked at"
    return [f"{name} in the engine's answers" for name in seen(said, wanted)]


def seen(text: str, wanted: dict[str, list[str]]) -> list[str]:
    """The names of the secrets that stand in `text`."""
    return [name for name, forms in wanted.items() if any(form in text for form in forms)]


def on_disk(
    stack: Stack, wanted: dict[str, list[str]], places: tuple[str, ...] = (".",)
) -> list[str]:
    """Files of the closed host (images, logs, reports, the bundle, data) where a secret stands and does not belong."""
    lines = "\n".join(form for forms in wanted.values() for form in forms) + "\n"
    top = stack.host.root
    # a process of its own, since the list must not stand in an argument
    done = subprocess.run(
        ["grep", "-rlaF", "--devices=skip", "-f", "-", *places],
        input=lines,
        cwd=top,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode in (0, 1, 2), done.stderr[-500:]
    found = []
    homes = 0
    for place in (line.removeprefix("./") for line in done.stdout.splitlines()):
        if place.startswith(HOMES):
            homes += 1
            continue
        names = seen(Path(top, place).read_bytes().decode("latin-1"), wanted)
        if place.startswith(USERS):
            names = [name for name in names if not name.startswith("S3_")]
        found += [f"{name} in {place}" for name in names]
    assert homes > 20, "what lies in its own place was not found either"
    return found
