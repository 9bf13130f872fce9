"""The last look before the seal: every class of what must not travel turns it red, wherever it is packed."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from bundle import hostfacts, leaks, scan
from bundle.errors import ConfigError, IntegrityError
from bundle.leaks import Allowed, Host
from bundle.scan import Travelling

NOTE = "a reviewed reason"
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
SCALAR = KEY.private_numbers().private_value.to_bytes(32, "big")
AUTHORITY = bytes(range(7, 250)) * 4 + hashlib.sha512(b"signature").digest() * 4
HOST = Host(
    names=leaks.telling(["build7.corp.example", "proxy.corp.example"]),
    paths=("/home/kim", "/srv/checkouts/bundle"),
    certificates=(AUTHORITY,),
    logins=("correct horse",),
    scalar=SCALAR,
)
RULES = leaks.rules(HOST)


def pem(
    key: object, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8
) -> bytes:
    """A private key as people leave it lying about."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain)  # type: ignore[attr-defined,no-any-return]


def wrapped(data: bytes, width: int) -> bytes:
    """base64 in lines."""
    text = base64.b64encode(data)
    return b"\n".join(text[i : i + width] for i in range(0, len(text), width))


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CANARIES = {
    "private key, PKCS 8": ("private key", pem(RSA)),
    "private key, traditional": (
        "private key",
        pem(RSA, serialization.PrivateFormat.TraditionalOpenSSL),
    ),
    "private key, OpenSSH": (
        "private key",
        pem(ed25519.Ed25519PrivateKey.generate(), serialization.PrivateFormat.OpenSSH),
    ),
    "private key, short": ("private key", pem(ed25519.Ed25519PrivateKey.generate())),
    "private key, in JSON": ("private key", pem(RSA).replace(b"\n", b"\\n")),
    "private key, encrypted with headers": (
        "private key",
        b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n"
        + b"A" * 64,
    ),
    "signing key, DER": ("signing key", b"\x30\x77\x02\x01\x01\x04\x20" + SCALAR),
    "signing key, PEM": ("signing key", b"\n".join(PEM.splitlines()[1:-1])),
    "signing key, base64": ("signing key", b"".join(PEM.splitlines()[1:-1])),
    "signing key, traditional": (
        "signing key",
        b"\n".join(pem(KEY, serialization.PrivateFormat.TraditionalOpenSSL).splitlines()[1:-1]),
    ),
    "signing key, hex": ("signing key", SCALAR.hex().encode()),
    "signing key, shifted": ("signing key", base64.b64encode(b"x" + SCALAR + b"y")),
    "host name": ("host name", b"built on build7.corp.example today"),
    "host name, short": ("host name", b"user@build7:~$"),
    "host name, upper": ("host name", b"\\\\BUILD7\\share"),
    "proxy's name": ("host name", b"http://proxy.corp.example:3128"),
    "home path": ("host path", b'File "/home/kim/x.py"'),
    "home path, option": ("host path", b"-I/home/kim/include"),
    "home path, prefix": ("host path", b"-ffile-prefix-map=/home/kim=."),
    "checkout path": ("host path", b"/srv/checkouts/bundle/images"),
    "proxy CA, DER": ("certificate authority of this host", AUTHORITY),
    "proxy CA, PEM": ("certificate authority of this host", wrapped(AUTHORITY, 64)),
    "proxy CA, MIME": ("certificate authority of this host", wrapped(AUTHORITY, 76)),
    "proxy CA, one line": ("certificate authority of this host", base64.b64encode(AUTHORITY)),
    "login": ("login", b"http://kim:correct horse@proxy"),
    "token, AWS": ("token", b'key = "AKIA' + b"QWERTYUIOPASDFG2" + b'"'),
    "token, GitHub": ("token", b"ghp_" + b"a1B2" * 9),
    "token, GitHub fine": ("token", b"github_pat_" + b"a1B2_" * 16),
    "token, GitLab": ("token", b"glpat-" + b"a1B2-" * 4),
    "token, Slack": ("token", b"xoxb-123456789012-" + b"a1B2" * 6),
    "token, PyPI": ("token", b"pypi-AgE" + b"IcHlwaS5vcmc" * 6),
    "token, npm": ("token", b"npm_" + b"a1B2" * 9),
    "token, Google": ("token", b"AIza" + b"Sy_-x" * 7),
    "token, Anthropic": ("token", b"sk-ant-" + b"a1B2" * 12),
    "token, Hugging Face": ("token", b"hf_" + b"aBcD" * 8 + b"aB"),
    "token, Stripe": ("token", b"sk_live_" + b"a1B2" * 6),
}
HARMLESS = {
    "the public key that belongs to it": KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ),
    "header of a key without one": b"-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "code that looks for keys": b'if text.startswith("-----BEGIN RSA PRIVATE KEY-----"):\n    return',
    "a public key": b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 64,
    "AWS' own example": b"AKIAIOSFODNN7EXAMPLE",
    "a longer word": b"rebuild7 build77 build7x build7_a",
    "a longer path": b"/home/kimberley /srv/checkouts/bundles",
    "a prefix alone": b"ghp_ glpat- xoxb- npm_config_cache AIza hf_hub_download sk_live_",
}


def in_nothing(data: bytes) -> tuple[bytes, str]:
    return data, ""


def in_zip(data: bytes) -> tuple[bytes, str]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pkg/other.py", "x = 1\n")
        archive.writestr("pkg/data.bin", data)
    return out.getvalue(), "pkg/data.bin"


def in_gzip(data: bytes) -> tuple[bytes, str]:
    return gzip.compress(data), ""


def in_tar_xz(data: bytes) -> tuple[bytes, str]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("deep/file")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return lzma.compress(out.getvalue()), ""


def in_zip_in_zip(data: bytes) -> tuple[bytes, str]:
    inner, name = in_zip(data)
    outer, place = in_zip(inner)
    return outer, f"{place}!{name}"


def finds(data: bytes, rules: tuple[leaks.Rule, ...] = RULES) -> set[tuple[str, str]]:
    member = Travelling(path="m", size=len(data), sha256="0" * 64, content=data)
    return {(find.rule, find.path) for find in scan.read_member(member, rules)}


@pytest.mark.parametrize("pack", [in_nothing, in_zip, in_gzip, in_tar_xz, in_zip_in_zip])
@pytest.mark.parametrize("name", CANARIES)
def test_every_canary_is_found_wherever_it_is(
    name: str, pack: Callable[[bytes], tuple[bytes, str]]
) -> None:
    rule, canary = CANARIES[name]
    data, path = pack(b"before \n" + canary + b"\n after")
    assert (rule, path) in finds(data)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_like_one_is_none(name: str) -> None:
    assert finds(HARMLESS[name]) == set()


@pytest.mark.parametrize(
    "name", ["private key, PKCS 8", "proxy CA, PEM", "host name", "token, GitHub"]
)
def test_canary_on_the_border_of_two_pieces_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "CHUNK", 64 << 10)
    rule, canary = CANARIES[name]
    for place in (scan.CHUNK - 1, scan.CHUNK - len(canary) // 2, scan.CHUNK - len(canary)):
        data = b"." * place + b" " + canary + b" " + b"." * 100
        assert (rule, "") in finds(data), place


def test_names_inside_archives_are_looked_at_too() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("home/build7/x", "")
    assert ("host name", "home/build7/x") in finds(out.getvalue())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/srv/checkouts/bundle/x"
        tar.addfile(info)
        owner = tarfile.TarInfo("owned")
        owner.uname = "build7"
        tar.addfile(owner)
    out.seek(0)
    with tarfile.open(fileobj=out, mode="r|") as tar:
        found = {(f.rule, f.path) for f in scan.look_into(tar, RULES)}
    assert found == {("host path", "link"), ("host name", "owned")}


def test_packed_member_on_disk_is_read_without_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, canary = CANARIES["token, GitHub"]
    data, inner = in_zip(canary)
    path = tmp_path / "extra.zip"
    path.write_bytes(data)

    def refuse(*_: object) -> int:
        raise AssertionError("a copy is made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", refuse)
    member = Travelling(path="extras/files/x.zip", size=len(data), sha256="0" * 64, content=path)
    assert {(f.rule, f.path) for f in scan.read_member(member, RULES)} == {(rule, inner)}
    with pytest.raises(AssertionError, match="a copy is made"):
        finds(in_zip(data)[0])  # what is packed in it needs one


def test_encrypted_entry_is_not_passed_over() -> None:
    data = bytearray(in_zip(b"x")[0])
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    assert any(rule == scan.CLOSED for rule, _ in finds(bytes(data)))


def test_bomb_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "LARGEST", 1 << 20)
    assert (scan.CLOSED, "") in finds(gzip.compress(bytes(2 << 20)))


def members(*contents: bytes) -> list[Travelling]:
    return [
        Travelling(path=f"m{n}", size=len(c), sha256=hashlib.sha256(c).hexdigest(), content=c)
        for n, c in enumerate(contents)
    ]


def test_refusal_names_member_and_file_and_never_the_secret(tmp_path: Path) -> None:
    canary = CANARIES["token, GitHub"][1]
    with pytest.raises(IntegrityError) as caught:
        scan.scan(members(b"fine", in_zip(canary)[0]), RULES, (), tmp_path)
    text = str(caught.value)
    assert caught.value.exit_code == 5
    assert "m1 → pkg/data.bin: token found, not sealed" in text
    assert canary.decode() not in text
    for note in tmp_path.rglob("*.json"):
        assert canary not in note.read_bytes()


def test_member_is_read_once_for_the_same_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = scan.read_member

    def noting(member: Travelling, rules: Sequence[leaks.Rule]) -> Iterator[leaks.Find]:
        read.append(member.path)
        return real(member, rules)

    monkeypatch.setattr(scan, "read_member", noting)
    bad = CANARIES["host name"][1]
    for _ in range(2):
        with pytest.raises(IntegrityError):
            scan.scan(members(b"fine", bad), RULES, (), tmp_path)
    assert read == ["m0", "m1"]
    scan.scan(members(b"fine", bad), leaks.rules(Host()), (), tmp_path)
    assert read == ["m0", "m1", "m0", "m1"]


def test_allowed_find_is_that_secret_under_that_rule_only(tmp_path: Path) -> None:
    data = in_zip(CANARIES["private key, short"][1])[0]
    ((_, inner),) = scan.hits(CANARIES["private key, short"][1], RULES)
    good = Allowed(rule="private key", path="pkg/*", sha256=inner, reason=NOTE)
    scan.scan(members(data), RULES, [good], tmp_path)
    for wrong in (
        Allowed(rule="token", path="pkg/*", sha256=inner, reason=NOTE),
        Allowed(rule="private key", path="other/*", sha256=inner, reason=NOTE),
        Allowed(rule="private key", path="pkg/*", sha256="0" * 64, reason=NOTE),
    ):
        with pytest.raises(IntegrityError):
            scan.scan(members(data), RULES, [wrong], tmp_path)


def test_reviewed_list_is_whole_and_gives_reasons() -> None:
    found = leaks.read_allowed(Path(__file__).parents[1] / "leaks" / "allowed.toml")
    assert found
    assert all(len(one.reason) > 20 for one in found)
    assert len({(a.rule, a.path, a.sha256) for a in found}) == len(found)


@pytest.mark.parametrize(
    "entry",
    [
        'rule = "x"',
        'rule="x"\npath="p"\nsha256="0"\nreason="r"',
        'rule="x"\npath="p"\nreason=""\nsha256="' + "0" * 64 + '"',
    ],
)
def test_list_with_a_gap_is_refused(tmp_path: Path, entry: str) -> None:
    (tmp_path / "allowed.toml").write_text(f"[[allowed]]\n{entry}\n")
    with pytest.raises(ConfigError):
        leaks.read_allowed(tmp_path / "allowed.toml")


@pytest.mark.parametrize("name", ["vm", "host", "localhost", "debian", "runner"])
def test_common_and_short_names_are_not_looked_for(name: str) -> None:
    assert leaks.telling([name]) == ()


def test_first_label_of_a_full_name_is_looked_for() -> None:
    assert leaks.telling(["build7.corp.example"]) == ("build7", "build7.corp.example")


def test_host_that_is_called_like_a_component_is_not_looked_for() -> None:
    assert leaks.telling(["MLflow", "phoenix.corp.example"], ["mlflow", "phoenix"]) == (
        "phoenix.corp.example",
    )


def test_many_finds_are_counted_and_not_all_told() -> None:
    finds = [("m", leaks.Find(rule="token", path=f"f{n}", sha256="0" * 64)) for n in range(99)]
    text = str(scan.refusal(finds))
    assert text.count("token found") == scan.MOST_SHOWN
    assert "and 59 more\n  hint:" in text


def test_hosts_own_authority_is_told_from_the_public_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in hostfacts.BUNDLES:
        monkeypatch.delenv(name, raising=False)
    public, own, added = (bytes([n]) * 600 for n in (1, 2, 3))
    folder = tmp_path / "mozilla"
    folder.mkdir()

    def certificate(der: bytes) -> bytes:
        return (
            b"-----BEGIN CERTIFICATE-----\n" + wrapped(der, 64) + b"\n-----END CERTIFICATE-----\n"
        )

    (folder / "Public.crt").write_bytes(certificate(public))
    digest = hashlib.md5(certificate(public), usedforsecurity=False).hexdigest()
    (tmp_path / "sums").write_text(f"{digest}  {str(folder / 'Public.crt').lstrip('/')}\n")
    (tmp_path / "added.crt").write_bytes(certificate(added))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(certificate(public) + certificate(own))
    monkeypatch.setattr(hostfacts, "DEBIAN", folder)
    monkeypatch.setattr(hostfacts, "DEBIAN_SUMS", tmp_path / "sums")
    monkeypatch.setattr(hostfacts, "ADDED", tmp_path)
    assert hostfacts.own_authorities(trusted, ()) == (own, added)
    (folder / "Public.crt").write_bytes(
        certificate(public) + b" "
    )  # no longer what the package brought
    assert hostfacts.own_authorities(trusted, ()) == (public, own, added)


def test_proxy_and_its_password_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in hostfacts.ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://kim:s3cr3t-word@inspect.corp.example:3128")
    host = hostfacts.gather(trusted=tmp_path / "none", packages=(), paths=(), public=(), scalar=b"")
    assert "inspect.corp.example" in host.names
    assert "s3cr3t-word" in host.logins


def test_paths_that_mean_this_host() -> None:
    given = [Path(p) for p in ("/root", "/app", "/home/runner", "/home/kim", "/work/trees/main")]
    assert hostfacts.telling_paths(given) == ("/home/kim", "/work/trees/main")


def test_passwords_in_settings_are_found_in_every_form() -> None:
    texts = [
        "http://kim:p%40ssword@proxy:3128",
        "machine x login y password netrc-secret\n",
        "index-url = https://u:${TOKEN}@index",
        "http://proxy:3128",
        "# http://kim:commented-out@proxy\n// login x password commented-too",
        "the password protects what it can; set a password somewhere1",
        "http://kim:password@proxy",
        "machine y\n  login z\n  password other-secret1\n",
    ]
    assert set(hostfacts.logins(texts)) == {
        "p%40ssword",
        "p@ssword",
        "netrc-secret",
        "other-secret1",
    }


def test_results_of_old_rules_go(tmp_path: Path) -> None:
    for number in range(scan.KEPT + 3):
        scan.scan(members(b"fine"), leaks.rules(Host(names=(f"build-{number}",))), (), tmp_path)
        os.utime(next(p for p in tmp_path.iterdir() if p.stat().st_mtime > 1e9), (number, number))
    scan.scan(members(b"fine"), RULES, (), tmp_path)
    assert len(list(tmp_path.iterdir())) == scan.KEPT
    assert scan.Scanner(rules=RULES, notes=tmp_path).folder.is_dir()
