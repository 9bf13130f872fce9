"""Import the images of a bundle into an engine and tell as JSON how it went; run as a process that can be killed.

python -m tests.importer BUNDLE ENGINE KILL_AFTER SITE [MANIFEST …]: kills itself after so many seconds (0: never);
SITE is a site.toml, which may name a registry: its layers are told too.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bundle import config, delta, intake, manifest, push, registry, stock
from bundle.engine import Engine
from bundle.errors import BundleError, PreconditionError
from bundle.run import log


class Asked(logging.Handler):
    """What the engine asked the door for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the lines of the door."""
        self.lines.append(record.getMessage())


def peak_mb() -> float:
    """The most memory that this program had; the kernel's other number counts the process that it was forked from."""
    status = Path("/proc/self/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main(bundle: str, engine: str, kill_after: str, site: str, *known: str) -> None:
    """Import, and print what was done, asked for and needed."""
    asked, begin = Asked(), time.monotonic()
    log.addHandler(asked)
    log.setLevel(logging.DEBUG)
    path = Path(bundle)
    if float(kill_after):
        threading.Timer(float(kill_after), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    found: dict[str, Any] = {"error": "", "code": 0, "hint": "", "how": {}}
    try:
        before = [manifest.parse(Path(one).read_bytes()) for one in known]
        hub = registry.open_registry(config.parse_site(Path(site).read_text("utf-8"), site))
        if hub and (problem := push.trouble(hub, Engine(host=engine))):
            raise PreconditionError.of([problem])
        sealed = hub.rename(manifest.read(path)) if hub else manifest.read(path)
        rows = intake.import_images(path, sealed, Engine(host=engine), before, hub)
        if hub:
            found["inventory"] = delta.dump(stock.in_registry(hub, sealed)).decode()
        found["how"] = {row.name: row.how for row in rows}
    except BundleError as error:
        found |= {"error": str(error), "code": error.exit_code, "hint": error.problems[0].hint}
    found["blobs"] = [
        line.split("/blobs/")[1].split()[0]
        for line in asked.lines
        if line.startswith("door: ") and "GET" in line and "/blobs/" in line
    ]
    found["sent_mb"] = [line.split()[0] for line in asked.lines if "were not there" in line]
    found["seconds"] = time.monotonic() - begin
    found["peak_mb"] = peak_mb()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
