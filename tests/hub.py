"""A site's own registry for tests: Debian's program with TLS and a login, in the network of a closed host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bundle import certificates, closed
from bundle.closed import ClosedHost
from bundle.errors import CommandError

ADDRESS = "10.99.0.1:5443"
"""Not on loopback: engines take that for safe without a look at the certificate."""
UNTIL_UP = f"for i in $(seq 100); do openssl s_client -connect {ADDRESS} </dev/null && exit; sleep 0.2; done"
PASSWORD = "s3cret-pass"
HASHED = "$2b$05$abcdefghijklmnopqrstuuV7fpPozvyqJfnY19y0802WTlXUm6Rjy"


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A registry that can be stopped: its folder, its closed host, and what site.toml says of it."""

    folder: Path
    host: ClosedHost
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Run it in the network of its host."""
        line = [str(closed.SCRIPTS / "closed-host"), "beside", str(self.host.folder), "--"]
        line += ["docker-registry", "serve", str(self.folder / "registry.yml")]
        with (self.folder / "log").open("a") as log:
            self.running.append(subprocess.Popen(line, stdout=log, stderr=log))
        self.host.run(["sh", "-c", UNTIL_UP], timeout=30)

    def stop(self) -> None:
        """End it; what lies in it stays."""
        while self.running:
            child = self.running.pop()
            child.terminate()
            child.wait(20)

    def site(self, **changed: str) -> str:
        """A site.toml with this registry, some keys changed."""
        values = {
            "address": f"{ADDRESS}/ml",
            "user": "carrier",
            "password_file": str(self.folder / "password"),
            "ca": str(self.folder / "ca.pem"),
        } | changed
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value]
        return "\n".join(["[registry]", *lines, ""])

    def join(self) -> None:
        """Give its host the registry's address, which is gone after a power cut."""
        with suppress(CommandError):
            self.host.run(["ip", "address", "add", "10.99.0.1/32", "dev", "lo"], timeout=20)

    def trust(self, *, trusted: bool = True) -> None:
        """Make the engine trust the registry, or no longer."""
        place = self.host.root / f"etc/docker/certs.d/{ADDRESS}/ca.crt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if trusted:
            place.write_bytes((self.folder / "ca.pem").read_bytes())

    def names(self) -> list[str]:
        """Each image that lies in it, as folder and tag."""
        places = self.folder.glob("data/docker/registry/v2/repositories/**/tags/*/current/link")
        top = self.folder / "data/docker/registry/v2/repositories"
        return sorted(
            f"{'/'.join(p.relative_to(top).parts[:-5])}:{p.parts[-3]}".replace("/_manifests", "")
            for p in places
        )


@contextmanager
def serve(host: ClosedHost, folder: Path) -> Iterator[Hub]:
    """Run a registry in the network of `host`, and make its engine trust it."""
    root = certificates.make_root("0badcafe")
    leaf = certificates.make_leaf(root, ("registry.closed.internal", ADDRESS.partition(":")[0]), 30)
    (folder / "ca.pem").write_bytes(certificates.pem(root.certificate))
    (folder / "tls.crt").write_bytes(certificates.pem(leaf.certificate))
    (folder / "tls.key").write_bytes(certificates.key_pem(leaf.key))
    (folder / "htpasswd").write_text(f"carrier:{HASHED}\n")
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)
    settings = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {
            "addr": ADDRESS,
            "tls": {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key")},
        },
        "auth": {"htpasswd": {"realm": "closed", "path": str(folder / "htpasswd")}},
    }
    (folder / "registry.yml").write_text(json.dumps(settings))
    made = Hub(folder=folder, host=host)
    made.join()
    made.start()
    try:
        made.trust()
        yield made
    finally:
        made.stop()
