"""The site's own certificate for the gateway: the request for it, taking it in, and giving it up again.

Inside everything stays on the installation's own CA. What is taken in is switched by one rename.
"""

from __future__ import annotations

import secrets
import shutil
import ssl
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle.authority import site_folder, swap_link
from bundle.certificates import key_pem, make_key, make_request, pem
from bundle.chain import Files, Imported, examine
from bundle.errors import ConfigError
from bundle.host import Host, make_folder, write_file
from bundle.plan import Plan
from bundle.services.names import doors, public
from bundle.words import say


def names(plan: Plan) -> tuple[str, ...]:
    """The names that clients open, and that a certificate for the gateway must have."""
    return tuple(dict.fromkeys(public(plan.site, door) for door in doors(plan.site)))


def request(host: Host, plan: Plan, out: Path) -> Path:
    """Write a request for the doors' names to `out`; its key stays here, and stays the same until an import.

    Raises ConfigError when `out` is no place for a file.
    """
    target = out.expanduser().absolute()
    if not target.parent.is_dir() or target.is_dir():
        hint = say(
            "Give --out a file in a folder that exists.", "--out에 있는 폴더의 파일을 주십시오."
        )
        raise ConfigError(
            say("is not a place for a file", "파일을 둘 곳이 아닙니다"),
            where=str(target),
            hint=hint,
        )
    path = pending_key(host)
    if not path.exists():
        make_folder(path.parent, 0o700)
        write_file(path, key_pem(make_key()), mode=0o400)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    write_file(target, make_request(names(plan), plan.site.organisation, key), mode=0o644)
    return target


def pending_key(host: Host) -> Path:
    """The key of the request that was made last."""
    return host.path("pki", "request", "gateway.key")


def _check_named(host: Host, chain: str, key: str) -> None:
    if not chain:
        raise ConfigError(
            say("no chain was given", "체인을 주지 않았습니다"),
            where="--chain",
            hint=say(
                "Give --chain FILE: the server's certificate, then each intermediate.",
                "--chain FILE을 주십시오: 서버 인증서, 그 뒤에 중간 인증서.",
            ),
        )
    if not key and not pending_key(host).exists():
        raise ConfigError(
            say(
                "no key was given, and no request was made here",
                "키도 없고, 여기서 만든 요청도 없습니다",
            ),
            where="--key",
            hint=say(
                "Give --key FILE, or begin with invoke pki.csr.",
                "--key FILE을 주거나 invoke pki.csr부터 하십시오.",
            ),
        )


def read_files(host: Host, chain: str, key: str, root: str, passphrase: str) -> Files:
    """What the operator named, read; without a key that of the last request.

    Raises ConfigError when a file cannot be read, or there is no key.
    """
    _check_named(host, chain, key)

    def read(path: str, option: str) -> bytes:
        try:
            return Path(path).expanduser().read_bytes() if path else b""
        except OSError as error:
            raise ConfigError(
                str(error), where=option, hint="Name a file that can be read."
            ) from error

    key_path = key or str(pending_key(host))
    return Files(
        chain=read(chain, "--chain"),
        chain_path=chain,
        key=read(key_path, "--key"),
        key_path=key_path,
        root=read(root, "--ca"),
        root_path=root,
        passphrase=read(passphrase, "--passphrase-file").strip(b"\r\n"),
    )


def take_in(host: Host, plan: Plan, files: Files) -> None:
    """Have the gateway use what was given from the next `pki.issue` on; nothing is changed when it is refused.

    Raises ConfigError with every reason.
    """
    found, problems = examine(files, names(plan))
    if found is None:
        raise ConfigError.of(problems)
    pki = host.path("pki")
    name = f".site-{secrets.token_hex(4)}"
    folder = pki / name
    make_folder(folder, 0o700)
    try:
        _write(folder, found)
        prove(folder, names(plan))
    except BaseException:
        shutil.rmtree(folder)
        raise
    swap_link(pki / "site", name)
    clear(host)


def _write(folder: Path, found: Imported) -> None:
    key = found.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_file(folder / "tls.key", key, mode=0o400)
    write_file(folder / "root.crt", pem(found.root), mode=0o444)
    write_file(folder / "chain.crt", b"".join(map(pem, found.chain)), mode=0o444)


def clear(host: Host) -> None:
    """Remove what an import or its end left behind, the key of the request too."""
    pki, site = host.path("pki"), host.path("pki", "site")
    kept = site.resolve().name if site.is_symlink() else ""
    for path in pki.glob(".site*"):
        if path.is_symlink():
            path.unlink()
        elif path.name != kept:
            shutil.rmtree(path)
    if kept and pending_key(host).exists():
        shutil.rmtree(pending_key(host).parent)


def give_up(host: Host) -> None:
    """Have the gateway use a certificate of our own again."""
    if site_folder(host) is None:
        raise ConfigError(
            say("no certificate of the site's is in use", "사용 중인 사이트 인증서가 없습니다"),
            where="--remove",
            hint=say("There is nothing to remove.", "제거할 것이 없습니다."),
        )
    host.path("pki", "site").unlink()
    clear(host)


def prove(folder: Path, names: tuple[str, ...]) -> None:
    """A real handshake for each name, in memory, as strict as the strictest client.

    Raises ConfigError with what OpenSSL says.
    """
    problems = {}
    for name in names:
        try:
            handshake(folder, name)
        except ssl.SSLError as error:
            problems[name] = str(getattr(error, "verify_message", "") or error)
    if problems:
        said = "; ".join(f"{name}: {text}" for name, text in problems.items())
        raise ConfigError(
            say(f"no client could verify it: {said}", f"클라이언트가 검증할 수 없습니다: {said}"),
            where="--chain",
            hint=say("Ask the site's CA for another one.", "사이트 CA에 다시 요청하십시오."),
        )


def handshake(folder: Path, name: str) -> None:
    """TLS between two ends in this process: the server with the chain, the client with the root only.

    Raises ssl.SSLError when either end refuses.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "chain.crt", folder / "tls.key")
    client = ssl.create_default_context(cafile=str(folder / "root.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    )
    open_ends = list(ends)
    for _ in range(20):
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not open_ends:
            return
    raise ssl.SSLError("the handshake does not end")
