"""What tests of the import are given: closed hosts whose engines have one kind of image store each."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import closed, delta, intake, manifest, stock, store
from bundle.closed import ClosedHost
from bundle.delta import Inventory
from bundle.errors import CommandError
from bundle.manifest import Manifest
from bundle.workflows.connected import read_inventory
from tests import bundles

STORES = ("overlay2", "containerd")
UNPACK = re.compile(r'/snapshot/prepare \{"key":"[^"]*extract-\S+ (sha256:[0-9a-f]{64})"')


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A closed host whose engine has one kind of store, and a place for bundles."""

    host: ClosedHost
    kind: str
    folder: Path

    def restart_engine(self, *options: str) -> None:
        """End the engine of the closed host and start it with further options."""
        script = (
            "kill $(pidof dockerd); while pidof dockerd; do sleep 0.2; done;"
            ' setsid dockerd "$@" >>/var/log/dockerd.log 2>&1 </dev/null &'
        )
        self.host.run(["sh", "-c", script, "sh", *options], timeout=60)
        self.host.engine_up()

    def take(
        self,
        bundle: Path,
        known: Sequence[Manifest] = (),
        *,
        kill_after: float = 0,
        site: str = "",
    ) -> dict[str, Any]:
        """Import in a process of its own, in the closed host's network; an empty answer when it was killed."""
        files = []
        for number, one in enumerate(known):
            files.append(self.folder / f"known-{number}.json")
            files[-1].write_bytes(manifest.dump(one))
        (self.folder / "site.toml").write_text(site)
        engine = f"unix:///proc/{self.host.pid}/root/{closed.SOCKET}"
        command = [sys.executable, "-m", "tests.importer", str(bundle), engine, str(kill_after)]
        command.append(str(self.folder / "site.toml"))
        where = {**closed.ENVIRONMENT, "PYTHONPATH": str(bundles.TOP)}
        try:
            words = self.host.beside([*command, *map(str, files)], timeout=120, env=where)
        except CommandError:
            if not kill_after:
                raise
            self.revive()
            return {}
        return dict(json.loads(words.splitlines()[-1]))

    @contextlib.contextmanager
    def unpacking(self) -> Iterator[list[str]]:
        """The layers that containerd is told to unpack meanwhile, one entry for each time; there when it ends."""
        watch = "ctr --address /run/docker/containerd/containerd.sock events >/root/events 2>&1 </dev/null & echo $!"
        found: list[str] = []
        pid = self.host.run(["sh", "-c", watch], timeout=20).strip()
        time.sleep(1)
        try:
            yield found
            time.sleep(1)
            found += UNPACK.findall(self.host.run(["cat", "/root/events"], timeout=20))
        finally:
            self.host.run(["kill", pid], timeout=20, check=False)

    def revive(self) -> None:
        """Start the engine again if it died with the one that was killed: 26.1 can, as an init would see too."""
        alive = "sleep 0.5; pidof dockerd || setsid dockerd"
        self.host.run(
            ["sh", "-c", f"({alive}) >>/var/log/dockerd.log 2>&1 </dev/null &"], timeout=20
        )
        time.sleep(1)
        self.host.engine_up()

    def right(self, sealed: Manifest) -> bool:
        """Whether every image is exactly what was sealed."""
        return all(intake.is_right(self.host.engine, one) for one in sealed.images)

    def look(self, *known: Manifest) -> Inventory:
        """What the engine has, as the file that invoke inventory writes says it."""
        return self.written(stock.in_engine(self.host.engine, known[-1], known))

    def written(self, found: Inventory) -> Inventory:
        """An inventory as it is read again."""
        path = self.folder / "inventory.json"
        path.write_bytes(delta.dump(found))
        return read_inventory(path, bundles.unseal_arch())

    def empty(self) -> None:
        """Take every image out of the engine."""
        engine = self.host.engine
        for name in store.ids(engine):
            engine.api.api.remove_image(name, force=True)
        assert not store.ids(engine)
