"""The worst day: the host is gone. Bundle, copy of the backups and kit alone bring it back on an empty one (L4)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bundle import rehearse
from bundle.closed import ClosedHost
from tests.e2e.stack import Stack
from tests.e2e.test_backup import tell

pytestmark = pytest.mark.nightly
COPY = "/srv/copy"
OPERATOR = "/root/operator"
KIT = "/root/site.kit"


def rows(stack: Stack) -> str:
    """How much MLflow and Phoenix hold."""
    ask = (
        "cd /var/lib/tracking-bundle/rendered; for d in mlflow phoenix; do"
        " docker compose -p tracking -f compose.yaml exec -T postgres psql -h /tmp -U postgres -d $d"
        " -XAtc \"select relname, (xpath('/row/c/text()', query_to_xml('select count(*) as c from '"
        " || quote_ident(relname), false, true, '')))[1] from pg_class where relkind = 'r'"
        " and relnamespace = 'public'::regnamespace order by 1\"; done"
    )
    return stack.host.run(["sh", "-c", ask], timeout=120)


def test_empty_host_comes_back_with_bundle_backup_and_kit_alone(
    stack: Stack, closed_hosts: Path
) -> None:
    stack.invoke("schedule", "--remove")
    own = stack.root / "site.toml"
    text = own.read_text()
    try:
        assert "\n[backup]\n" in text
        own.write_text(text.replace("\n[backup]\n", f'\n[backup]\ncopy_to = "{COPY}"\n'))
        stack.host.run(["mkdir", "-p", COPY], timeout=20)
        stack.invoke("verify", "--only", "run-mlflow", timeout=300, check=False)
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
        make += f" -subj /CN=kim -keyout {OPERATOR}.key -out {OPERATOR}.crt"
        stack.host.run(["sh", "-c", make], timeout=60)
        stack.invoke("recovery.create", "--to", f"{OPERATOR}.crt", "--out", KIT, timeout=120)
        before = rows(stack)
        code, said = tell(stack, "backup")
        assert code == 0, said
        made = json.loads(stack.invoke("points", "--format", "json"))[-1]
    finally:
        own.write_text(text)
        stack.invoke("schedule", "--install")
    empty = make_empty(stack, closed_hosts / "recovery")
    try:
        other = Stack(host=empty, sealed=stack.sealed, record={})
        domain = next(path.name for path in (stack.host.root / COPY.lstrip("/")).iterdir())
        shutil.copytree(
            stack.host.root / COPY.lstrip("/") / domain, other.root / "backups", symlinks=True
        )
        for name in (KIT, f"{OPERATOR}.key", f"{OPERATOR}.crt"):
            shutil.copy(stack.host.root / name.lstrip("/"), empty.root / name.lstrip("/"))
        words = ("restore", "--kit", KIT, "--key", f"{OPERATOR}.key", "--yes")
        code, said = tell(other, *words, timeout=1500)
        assert code == 0, said
        assert said.strip().splitlines()[-1] == made["id"]
        assert rows(other) == before
        code, said = tell(other, "backup")
        assert code == 0, said
        code, said = tell(other, "prove", "--level", "3")
        assert code == 0, said
        assert (
            json.loads(other.invoke("points", "--format", "json"))[-1]["objects"] == made["objects"]
        )
        code, said = tell(other, "verify", timeout=600)
        assert code == 0, said
        code, said = tell(other, *words)
        assert code == 2, said
        for rest in (
            ("backup", "--full"),
            ("recovery.create", "--to", f"{OPERATOR}.crt", "--out", "/root/new.kit"),
            ("points",),
            ("restore", "--scratch", "--point", made["id"]),
            ("restore", "--point", made["id"], "--yes"),
        ):
            code, said = tell(other, *rest, timeout=900)
            assert code == 0, (rest, said)
        assert rows(other) == before
    finally:
        empty.remove()


def make_empty(stack: Stack, folder: Path) -> ClosedHost:
    """An empty host on which the bundle was bootstrapped and nothing else done."""
    wanted = rehearse.Rehearsal(
        bundle=stack.sealed.path,
        fingerprint=stack.sealed.fingerprint,
        folder=folder,
        cache=stack.sealed.cache,
        reports=folder / "reports",
    )
    host = rehearse.make_host(wanted)
    rehearse.bootstrap(host, wanted)
    return host
