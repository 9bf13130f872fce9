"""Every chain that we issue, and chains that are wrong, against six kinds of client: real handshakes on loopback."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import random
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from bundle import browse, certificates
from bundle.certificates import Authority, key_pem, now, pem
from tests.test_chain import Site, site

pytestmark = pytest.mark.timeout(900)
NAME = "a.lab.internal"
DAY = datetime.timedelta(days=1)
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
ALL = ("openssl", "python", "go", "gnutls", "libpq", "chromium")


@dataclass(frozen=True)
class Chain:
    """What a server presents, the root that clients trust, and the clients that must refuse it."""

    served: bytes
    key: bytes
    root: bytes
    refused_by: tuple[str, ...] = ()


def answer(connection: socket.socket, context: ssl.SSLContext) -> None:
    """Serve one client: a browser gets a page, libpq its own kind of error, after the handshake."""
    connection.settimeout(20)
    if connection.recv(8, socket.MSG_PEEK) == SSL_REQUEST:
        connection.recv(8)
        connection.sendall(b"S")
    with context.wrap_socket(connection, server_side=True) as secure:
        first = secure.recv(4096)
        if first.startswith(b"GET"):
            secure.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\naccepted"
            )
        elif first[:1] == b"\0":
            fields = b"SFATAL\0VFATAL\0C28000\0Maccepted\0\0"
            secure.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)


@contextlib.contextmanager
def serving(chain: Chain, folder: Path) -> Iterator[int]:
    """A server that presents a chain; its port."""
    (folder / "server.pem").write_bytes(chain.served + chain.key)
    (folder / "root.pem").write_bytes(chain.root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            answer(connection, context)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def ended(*command: str, env: dict[str, str] | None = None, timeout: float = 60) -> tuple[int, str]:
    """How a client ended, and what it said."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
        env=env,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def openssl(folder: Path, port: int) -> tuple[bool, str]:
    """OpenSSL in its strict mode."""
    line = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{port}",
        "-CAfile",
        str(folder / "root.pem"),
    ]
    line += ["-verify_return_error", "-x509_strict", "-verify_hostname", NAME, "-servername", NAME]
    code, said = ended(*line)
    return code == 0 and "Verify return code: 0 (ok)" in said, said


def python(folder: Path, port: int) -> tuple[bool, str]:
    """Python's default context, strict as 3.13 has it."""
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=NAME),
        ):
            return True, ""
    except ssl.SSLError as error:
        return False, str(error)


def gnutls(folder: Path, port: int) -> tuple[bool, str]:
    """GnuTLS' own client."""
    line = ["gnutls-cli", "--x509cafile", str(folder / "root.pem"), "--verify-hostname", NAME]
    code, said = ended(*line, "--sni-hostname", NAME, "--port", str(port), "127.0.0.1")
    return code == 0 and "certificate is trusted" in said, said


def libpq(folder: Path, port: int) -> tuple[bool, str]:
    """The library of every Postgres client, in its strictest mode."""
    text = f"host={NAME} hostaddr=127.0.0.1 port={port} user=u dbname=d sslmode=verify-full"
    _, said = ended("psql", f"{text} sslrootcert={folder / 'root.pem'}", "-c", "select 1")
    return "FATAL:  accepted" in said, said


def chromium(folder: Path, port: int) -> tuple[bool, str]:
    """A browser, with the root among those that it trusts."""
    home = folder / f"home-{port}"
    home.mkdir()
    browse.trust(home, folder / "root.pem")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += [
        f"--user-data-dir={home / 'profile'}",
        f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
    ]
    options += ["--no-proxy-server"]
    env = {**os.environ, "HOME": str(home)}
    _, said = ended("chromium", *options, "--dump-dom", f"https://{NAME}:{port}/", env=env)
    return "accepted" in said, said[-400:]


@pytest.fixture(scope="module")
def clients(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Callable[[Path, int], tuple[bool, str]]]:
    """The six kinds of client; Go's is built now, of the standard library only."""
    built = tmp_path_factory.mktemp("go") / "client"
    program = shutil.which("go") or "/usr/local/go/bin/go"
    env = {**os.environ, "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    source = Path(__file__).with_name("client.go")
    code, said = ended(program, "build", "-o", str(built), str(source), env=env, timeout=400)
    assert code == 0, said

    def go(folder: Path, port: int) -> tuple[bool, str]:
        code, said = ended(str(built), str(folder / "root.pem"), NAME, str(port))
        return code == 0, said

    return {
        "openssl": openssl,
        "python": python,
        "go": go,
        "gnutls": gnutls,
        "libpq": libpq,
        "chromium": chromium,
    }


def ours(
    names: tuple[str, ...] = (NAME,),
    *,
    domain: str = "lab.internal",
    days: int = 90,
    count: int = 1,
) -> Chain:
    """A chain as the product issues it."""
    root = certificates.make_root("0a1b2c3d", count)
    middle = certificates.make_intermediate(root, domain, "0a1b2c3d", count)
    leaf = certificates.make_leaf(middle, names, days)
    return presented(leaf, middle, root)


def presented(leaf: Authority, middle: Authority, root: Authority) -> Chain:
    served = pem(leaf.certificate) + pem(middle.certificate)
    return Chain(served, key_pem(leaf.key), pem(root.certificate))


def theirs(made: Site, refused_by: tuple[str, ...] = ()) -> Chain:
    """A chain of a site's CA."""
    files = made.files()
    return Chain(files.chain, files.key, files.root, refused_by)


def by(refused_by: tuple[str, ...] = ALL, **leaf: Any) -> Chain:
    """A chain of a site's CA with something said of its leaf."""
    return theirs(site(**{"names": (NAME,), **leaf}), refused_by)


def outside_constraint() -> Chain:
    """An intermediate of ours for one domain, a name in another."""
    return replace(ours(domain="other.internal"), refused_by=ALL)


def other_root() -> Chain:
    return replace(ours(), root=ours().root, refused_by=ALL)


def without_intermediate() -> Chain:
    one = ours()
    leaf = x509.load_pem_x509_certificate(one.served)
    return replace(one, served=pem(leaf), refused_by=ALL)


def overlap() -> Chain:
    """In a rotation: the new root's chain, by a client that trusts both."""
    one = ours(count=2)
    return replace(one, root=one.root + ours().root)


def crossed_middle(**middle: Any) -> Chain:
    good = site(names=(NAME,))
    return theirs(replace(good, middle=replace(good.middle, **middle)), ALL)


CHAINS: dict[str, Callable[[], Chain]] = {
    "own": ours,
    "own-gateway": lambda: ours(
        (NAME, "127.0.0.1", "10.1.2.3", "gateway.svc.lab.internal"), days=397
    ),
    "own-domain-itself": lambda: ours((NAME,), domain=NAME),
    "own-many-names": lambda: ours((NAME, *(f"n{i}.lab.internal" for i in range(60)))),
    "own-long-subject": lambda: ours((f"{'a' * 60}.{'b' * 60}.lab.internal", NAME)),
    "own-second-root": lambda: ours(count=2),
    "own-both-roots": overlap,
    "own-one-day": lambda: ours(days=1),
    "site-p256": lambda: by(()),
    "site-p384": lambda: by((), key=ec.generate_private_key(ec.SECP384R1())),
    "site-rsa-2048": lambda: by((), key=rsa.generate_private_key(65537, 2048)),
    "site-rsa-3072": lambda: by((), key=rsa.generate_private_key(65537, 3072)),
    "site-wildcard": lambda: by((), names=("*.lab.internal",)),
    "expired": lambda: by(end=now() - DAY / 2),
    "not-yet-valid": lambda: by(start=now() + DAY),
    "other-name": lambda: by(names=("b.lab.internal",)),
    "address-only": lambda: by(names=(str(ipaddress.ip_address("127.0.0.1")),)),
    "client-only": lambda: by(purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
    "no-names": lambda: by(("go", "chromium"), names=None, common=NAME),
    "middle-is-no-ca": lambda: crossed_middle(ca=False),
    "middle-expired": lambda: crossed_middle(end=now() - DAY / 2),
    "outside-constraint": outside_constraint,
    "other-root": other_root,
    "no-intermediate": without_intermediate,
}
FIRST = ("own", "own-gateway", "outside-constraint")


def chosen(config: pytest.Config, rng: random.Random) -> list[str]:
    """All in the nightly run; else those that matter most and one by chance."""
    if config.option.nightly:
        return list(CHAINS)
    return [*FIRST, rng.choice([name for name in CHAINS if name not in FIRST])]


def test_clients_agree_with_what_is_expected(
    clients: dict[str, Callable[[Path, int], tuple[bool, str]]],
    request: pytest.FixtureRequest,
    rng: random.Random,
    tmp_path: Path,
) -> None:
    assert len(CHAINS) >= 20
    wrong = []
    for name in chosen(request.config, rng):
        chain, folder = CHAINS[name](), tmp_path / name
        folder.mkdir()
        with serving(chain, folder) as port:
            for kind, client in clients.items():
                accepted, said = client(folder, port)
                if accepted is (kind in chain.refused_by):
                    verb = "accepted" if accepted else "refused"
                    wrong.append(f"{name}: {kind} {verb} it: {said[-300:]}")
    assert not wrong, "\n".join(wrong)
