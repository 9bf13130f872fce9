"""The certificates of the installed stack: renewed, rotated and replaced while clients loop, and refused when bad."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bundle import rehearse
from bundle.certificates import now, pem
from bundle.errors import CommandError
from tests.e2e.stack import Stack
from tests.test_chain import certificate, site

pytestmark = pytest.mark.timeout(600)
LOOPS = Path(__file__).with_name("loops.py")
STACK_ROOT = rehearse.PRODUCT_ROOT
SLOW = ("mlflow", "phoenix")


def ids(stack: Stack) -> dict[str, str]:
    """The id of each service's container."""
    line = ["docker", "ps", "--no-trunc", "--format", "{{.Names}} {{.ID}}"]
    rows = stack.host.run(line, timeout=30).split("\n")
    return {row.split()[0].split("-")[1]: row.split()[1] for row in rows if row.strip()}


def served(stack: Stack, service: str) -> bytes:
    """The file that a service presents."""
    return (stack.root / "secrets" / service / "tls.crt").resolve().read_bytes()


@contextmanager
def looping(stack: Stack, *more: str) -> Iterator[dict[str, dict[str, Any]]]:
    """Clients at 20 requests a second against the fast three and `more`; what they met is there at the end."""
    store, found = stack.root / "secrets/store", dict[str, dict[str, Any]]()
    image = stack.containers()["gateway"].image.replace("/gateway:", "/ops:")
    request = {
        "password": (store / "DB_HEALTH").read_text("utf-8"),
        "key": (store / "MINIO_ROOT_USER").read_text("utf-8"),
        "secret": (store / "MINIO_ROOT_PASSWORD").read_text("utf-8"),
        "ca": {
            "inside": (stack.root / "pki/root.crt").read_text("ascii"),
            "doors": (stack.root / "pki/clients.crt").read_text("ascii"),
        },
    }
    stop, host = stack.host.root / "tmp/stop-loops", stack.host
    stop.unlink(missing_ok=True)
    mount = "type=bind,source=/tmp,target=/outside,readonly"
    trust = f"type=bind,source={STACK_ROOT}/pki,target=/pki,readonly"
    command = ["docker", "run", "--rm", "-i", "--user", "0", "--mount", mount, "--mount", trust]

    def loop(network: str, *kinds: str) -> None:
        line = [*command, "--network", network, image, "-c", LOOPS.read_text("utf-8"), *kinds]
        said = host.run(line, timeout=400, text=json.dumps(request), check=False)
        found.update(json.loads(said))

    threads = [
        Thread(target=loop, args=("host", "gateway-kept", "gateway-new", *more)),
        Thread(target=loop, args=("tracking_data", "postgres-kept", "postgres-new", "minio-new")),
    ]
    for thread in threads:
        thread.start()
    time.sleep(4)
    yield found
    time.sleep(2)
    stop.touch()
    for thread in threads:
        thread.join()


def unharmed(found: dict[str, dict[str, Any]]) -> None:
    """See that no request failed, and that there were many."""
    assert len(found) >= 5, found
    assert not [(name, one) for name, one in found.items() if one["failed"]]
    assert all(one["done"] > 100 for one in found.values()), found


FAST = ("gateway", "postgres", "minio")


def test_renewal_of_what_is_due_drops_no_request(stack: Stack) -> None:
    before, old = ids(stack), {name: served(stack, name) for name in FAST}
    with looping(stack) as found:
        for name in FAST:  # a lost link is as good as an old certificate
            (stack.root / "secrets" / name / "tls.crt").unlink()
        stack.invoke("pki.renew", timeout=120)
    unharmed(found)
    assert ids(stack) == before
    assert all(served(stack, name) != old[name] for name in FAST)


@pytest.mark.nightly
def test_renewal_of_everything_drops_no_request(stack: Stack) -> None:
    before = ids(stack)
    old = {name: served(stack, name) for name in (*FAST, *SLOW)}
    with looping(stack, *SLOW) as found:
        stack.invoke("pki.renew", "--all", timeout=300)
    sys.stdout.write(f"{found}\n")
    unharmed(found)
    after = ids(stack)
    assert {name for name in before if before[name] != after[name]} == set(SLOW)
    assert all(served(stack, name) != old[name] for name in old)
    stack.invoke("pki.renew", timeout=120)
    assert ids(stack) == after, "nothing is due"
    stack.invoke("install", "--yes", timeout=300)
    assert ids(stack) == after, "install finds nothing to do"


@pytest.mark.nightly
def test_rotation_drops_no_request_until_its_end(stack: Stack) -> None:
    """The doors' clients have the old root only, from before the rotation to its end."""
    with looping(stack) as found:
        stack.invoke("pki.rotate", timeout=400)
    unharmed(found)
    with looping(stack) as found:  # these have both
        stack.invoke("pki.rotate", "--finish", "--yes", timeout=400)
    unharmed(found)
    status = json.loads(stack.invoke("pki.status", "--format", "json", timeout=60))
    assert status["older"] == []
    stack.invoke("verify", timeout=300)


@pytest.mark.nightly
@pytest.mark.parametrize("words", [("pki.renew", "--all"), ("pki.rotate",)])
def test_killed_anywhere_is_finished_by_the_next(stack: Stack, words: tuple[str, ...]) -> None:
    inside = f"cd {STACK_ROOT}/current && timeout --signal=KILL"
    for seconds in (0.7, 1.2, 2, 4, 20, 40):
        line = f"{inside} {seconds} setsid --wait .venv/bin/invoke {' '.join(words)}"
        stack.host.run(["sh", "-c", line], timeout=120, check=False)
        stack.invoke(*words, timeout=400)
        stack.invoke("verify", "--only", "tls-hops", "--only", "tls-gateway", timeout=120)
    stack.invoke("pki.rotate", "--finish", "--yes", timeout=400)
    assert json.loads(stack.invoke("pki.status", "--format", "json", timeout=60))["older"] == []


def test_sites_own_certificate_is_asked_for_taken_in_and_given_up(stack: Stack) -> None:
    place = stack.host.root / "root"
    before, old = ids(stack), (stack.root / "pki/clients.crt").read_bytes()
    stack.invoke("pki.csr", "--out", "/root/gateway.csr", timeout=60)
    asked = x509.load_pem_x509_csr((place / "gateway.csr").read_bytes())
    key = serialization.load_pem_private_key(
        (stack.root / "pki/request/gateway.key").read_bytes(), None
    )
    assert asked.public_key() == key.public_key()
    good = site(key=key, names=("closed.internal",))
    leaf, middle, root = good.made()
    (place / "chain.pem").write_bytes(pem(leaf) + pem(middle) + pem(root))
    late = replace(good.leaf, names=("other.internal",), end=now())
    bad = certificate(late, (good.middle, middle))
    (place / "bad.pem").write_bytes(pem(bad))
    with pytest.raises(CommandError, match=r"(?s)exit code 2.*other\.internal.*expired"):
        stack.invoke("pki.import", "--chain", "/root/bad.pem", timeout=60)
    assert (stack.root / "pki/clients.crt").read_bytes() == old
    try:
        stack.invoke("pki.import", "--chain", "/root/chain.pem", timeout=200)
        assert (stack.root / "pki/clients.crt").read_bytes() == pem(root)
        doors = ("--only", "tls-gateway", "--only", "svc-gateway", "--only", "access-secrets")
        stack.invoke("verify", *doors, timeout=300)
        assert ids(stack) == before, "only the gateway has something new, and it reloads"
    finally:
        stack.invoke("pki.import", "--remove", timeout=200)
    assert (stack.root / "pki/clients.crt").read_bytes() == old
    stack.invoke("verify", "--only", "tls-gateway", timeout=120)


def test_plain_request_for_another_form_is_an_argument_error(stack: Stack) -> None:
    with pytest.raises(CommandError, match="exit code 2"):
        stack.invoke("pki.status", "--format", "xml", timeout=60)
