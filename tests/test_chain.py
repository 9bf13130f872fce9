"""The site's own certificate: what is taken in, and every reason against one, each on a real certificate."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bundle import sitecert
from bundle.certificates import make_key, now, pem
from bundle.chain import Files, covers, examine
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.host import Host
from bundle.plan import Plan, make_plan

DAY = datetime.timedelta(days=1)
NAME = "lab.internal"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make one certificate; the defaults make a good one."""

    key: Any = field(default_factory=make_key)
    common: str = "x"
    ca: bool = False
    names: tuple[str, ...] | None = (NAME,)
    start: datetime.datetime = field(default_factory=lambda: now() - DAY)
    end: datetime.datetime = field(default_factory=lambda: now() + 90 * DAY)
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.SERVER_AUTH,)
    digest: Any = field(default_factory=hashes.SHA256)
    signs: bool = True
    critical: bool = True
    identifiers: bool = True


def certificate(recipe: Recipe, issuer: tuple[Recipe, x509.Certificate] | None) -> x509.Certificate:
    """The certificate of a recipe, by `issuer` or by itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, recipe.common)])
    signer = issuer[0].key if issuer else recipe.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[1].subject if issuer else name)
        .public_key(recipe.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(recipe.start)
        .not_valid_after(recipe.end)
        .add_extension(x509.BasicConstraints(recipe.ca, None), critical=recipe.critical)
        .add_extension(usage(recipe), critical=True)
    )
    if recipe.identifiers:
        own = x509.SubjectKeyIdentifier.from_public_key(recipe.key.public_key())
        theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(own, critical=False).add_extension(theirs, critical=False)
    if recipe.names is not None and not recipe.common.startswith("CA"):
        names = x509.SubjectAlternativeName([general(one) for one in recipe.names])
        builder = builder.add_extension(names, critical=False)
        if recipe.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(recipe.purposes), critical=False)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else recipe.digest
    return builder.sign(signer, digest)


def general(name: str) -> x509.GeneralName:
    """A name of a certificate."""
    if name[0].isdigit():
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def usage(recipe: Recipe) -> x509.KeyUsage:
    """What the key is for."""
    return x509.KeyUsage(
        digital_signature=not recipe.ca and recipe.signs,
        key_cert_sign=recipe.ca and recipe.signs,
        crl_sign=recipe.ca,
        content_commitment=False,
        key_encipherment=not recipe.ca and not recipe.signs,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, kw_only=True)
class Site:
    """A site's CA and the certificate that it gave us."""

    root: Recipe
    middle: Recipe
    leaf: Recipe

    def made(self) -> tuple[x509.Certificate, x509.Certificate, x509.Certificate]:
        """Leaf, intermediate and root."""
        root = certificate(self.root, None)
        middle = certificate(self.middle, (self.root, root))
        return certificate(self.leaf, (self.middle, middle)), middle, root

    def files(self) -> Files:
        """As an operator has them: leaf and intermediate in one file, the root in another."""
        leaf, middle, root = self.made()
        return Files(
            chain=pem(leaf) + pem(middle),
            chain_path="chain.pem",
            key=key_text(self.leaf.key),
            key_path="key.pem",
            root=pem(root),
            root_path="root.pem",
        )


def key_text(key: Any, passphrase: bytes = b"") -> bytes:
    """A private key as PEM."""
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase)
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    )


def site(**leaf: Any) -> Site:
    """A good site, but for what is said of its leaf."""
    return Site(
        root=Recipe(common="CA root", ca=True, end=now() + 3650 * DAY),
        middle=Recipe(common="CA middle", ca=True, end=now() + 900 * DAY),
        leaf=replace(Recipe(common=NAME), **leaf),
    )


def said(files: Files, *names: str) -> str:
    """Every reason against what was given, in one text."""
    found, problems = examine(files, names or (NAME,))
    assert (found is None) == bool(problems)
    assert all(problem.hint.endswith(".") and problem.where for problem in problems)
    return "\n".join(problem.message for problem in problems)


def test_good_chain_is_taken_with_its_root_apart_or_at_its_end() -> None:
    files = site().files()
    assert said(files) == ""
    assert said(replace(files, chain=files.chain + files.root, root=b"", root_path="")) == ""


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_is_taken(bits: int) -> None:
    assert said(site(key=rsa.generate_private_key(65537, bits)).files()) == ""


def rsa_1024() -> Any:
    """A key that is too short."""
    return rsa.generate_private_key(65537, 1024)


LEAVES: tuple[tuple[Callable[[], dict[str, Any]], str], ...] = (
    (lambda: {"end": now() - DAY / 2}, "expired at"),
    (lambda: {"start": now() + DAY}, "is not valid before"),
    (lambda: {"names": None}, "has no subject alternative name"),
    (lambda: {"names": ("other.internal",)}, "is not for lab.internal, but for other.internal"),
    (lambda: {"names": ("*.lab.internal",)}, "is not for lab.internal"),
    (lambda: {"names": ("127.0.0.1",)}, "is not for lab.internal"),
    (lambda: {"ca": True}, "is a CA's certificate"),
    (lambda: {"purposes": (ExtendedKeyUsageOID.CLIENT_AUTH,)}, "is not for servers"),
    (lambda: {"signs": False}, "may not sign"),
    (lambda: {"key": rsa_1024()}, "RSA key of 1024 bits"),
    (lambda: {"key": ec.generate_private_key(ec.SECP521R1())}, "browsers refuse: secp521r1"),
    (lambda: {"key": ed25519.Ed25519PrivateKey.generate()}, "browsers refuse: Ed25519"),
    (lambda: {"identifiers": False}, "no authority key identifier"),
)


@pytest.mark.parametrize(("leaf", "words"), LEAVES, ids=[words for _, words in LEAVES])
def test_bad_leaf_is_refused_with_the_reason(
    leaf: Callable[[], dict[str, Any]], words: str
) -> None:
    assert words in said(site(**leaf()).files())


MIDDLES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"ca": False}, "is no CA"),
    ({"critical": False}, "not critical"),
    ({"signs": False}, "may not sign certificates"),
    ({"identifiers": False}, "no subject key identifier"),
    ({"end": now() - DAY / 2}, "expired at"),
)


@pytest.mark.parametrize(("middle", "words"), MIDDLES, ids=[words for _, words in MIDDLES])
def test_bad_intermediate_is_refused_with_the_reason(middle: dict[str, Any], words: str) -> None:
    good = site()
    assert words in said(replace(good, middle=replace(good.middle, **middle)).files())


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_weak_hash_is_refused(digest: str) -> None:
    text = (Path(__file__).parent / "data" / f"{digest}.pem").read_bytes()
    files = replace(site().files(), chain=text, root=b"", root_path="")
    assert f"signed with {digest.upper()}" in said(files)


def test_everything_is_told_at_once() -> None:
    files = site(end=now() - DAY / 2, names=("a.internal",), key=rsa_1024()).files()
    found = said(replace(files, key=key_text(make_key()), root=b"", root_path=""))
    for words in ("not the key of", "expired", "not for lab", "RSA key", "incomplete chain"):
        assert words in found


def test_chain_must_be_whole_and_in_order() -> None:
    files = site().files()
    leaf, middle = x509.load_pem_x509_certificates(files.chain)
    assert "CN=CA middle is missing" in said(replace(files, chain=pem(leaf)))
    assert "CN=CA root is missing" in said(replace(files, root=b"", root_path=""))
    assert "wrong order" in said(replace(files, chain=pem(middle) + pem(leaf)))
    other = site().files()
    assert "CN=CA root is missing" in said(replace(files, root=other.root))


def test_key_must_be_readable_and_its_own() -> None:
    files = site().files()
    key = serialization.load_pem_private_key(files.key, None)
    locked = replace(files, key=key_text(key, b"secret"))
    assert "the key is encrypted" in said(locked)
    assert "no private key" in said(replace(locked, passphrase=b"wrong"))
    assert said(replace(locked, passphrase=b"secret")) == ""
    assert said(replace(files, passphrase=b"for nothing")) == ""
    assert "not the key of the first" in said(replace(files, key=key_text(make_key())))
    assert "no private key" in said(replace(files, key=b"nothing"))


@pytest.mark.parametrize("text", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_is_not_pem_is_refused(text: bytes) -> None:
    files = site().files()
    assert "no certificate in PEM" in said(replace(files, chain=text))
    assert "no certificate in PEM" in said(replace(files, root=text))
    der = x509.load_pem_x509_certificate(files.chain).public_bytes(serialization.Encoding.DER)
    assert "no certificate in PEM" in said(replace(files, chain=der))


def test_every_door_must_be_named() -> None:
    files = site(names=("*.lab.internal", NAME)).files()
    assert said(files, NAME, "mlflow.lab.internal", "phoenix.lab.internal") == ""
    assert "not for a.b.lab.internal" in said(files, "a.b.lab.internal")


@pytest.mark.parametrize(
    ("pattern", "name", "good"),
    [
        ("*.a.b", "x.a.b", True),
        ("*.a.b", "a.b", False),
        ("*.a.b", "x.y.a.b", False),
        ("A.b", "a.B", True),
    ],
)
def test_wildcard_is_one_label(pattern: str, name: str, good: bool) -> None:
    assert covers(pattern, name) is good


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "pki").mkdir()
    return Host(root=tmp_path)


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_site(f'domain = "{NAME}"'), site_id="0a1b2c3d", version="1.2.3")


def listed(host: Host) -> list[str]:
    return sorted(str(path.relative_to(host.root)) for path in host.root.rglob("*"))


def test_request_keeps_its_key_and_its_import_uses_it(host: Host, plan: Plan) -> None:
    out = sitecert.request(host, plan, host.root / "gateway.csr")
    again = sitecert.request(host, plan, host.root / "again.csr")
    asked = [x509.load_pem_x509_csr(path.read_bytes()) for path in (out, again)]
    assert asked[0].public_key() == asked[1].public_key()
    names = asked[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    key = serialization.load_pem_private_key(sitecert.pending_key(host).read_bytes(), None)
    given = site(key=key).files()
    (host.root / "chain.pem").write_bytes(given.chain + given.root)
    files = sitecert.read_files(host, str(host.root / "chain.pem"), "", "", "")
    sitecert.take_in(host, plan, files)
    assert (host.path("pki", "site", "root.crt")).read_bytes() == given.root
    assert not sitecert.pending_key(host).exists(), "its key lies with its certificate now"


def test_refused_import_changes_nothing(host: Host, plan: Plan) -> None:
    before = listed(host)
    with pytest.raises(ConfigError, match="expired"):
        sitecert.take_in(host, plan, site(end=now() - DAY / 2).files())
    with pytest.raises(ConfigError, match="no request was made"):
        sitecert.read_files(host, "x", "", "", "")
    with pytest.raises(ConfigError, match="No such file"):
        sitecert.read_files(host, "/nowhere", "/nowhere", "", "")
    assert listed(host) == before


def test_what_only_a_handshake_finds_is_refused_too(host: Host, plan: Plan) -> None:
    good = site()
    root = certificate(good.root, None)
    top = Recipe(common="CA top", ca=True, end=now() + 900 * DAY)
    builder_key = good.middle
    # The intermediate may have no CA below it, but has one.
    limited = certificate_with_path_length(builder_key, (good.root, root))
    below = certificate(top, (builder_key, limited))
    leaf = certificate(good.leaf, (top, below))
    files = Files(
        chain=pem(leaf) + pem(below) + pem(limited),
        chain_path="c",
        key=key_text(good.leaf.key),
        key_path="k",
        root=pem(root),
        root_path="r",
    )
    before = listed(host)
    with pytest.raises(ConfigError, match="path length constraint exceeded"):
        sitecert.take_in(host, plan, files)
    assert listed(host) == before


def certificate_with_path_length(
    recipe: Recipe, issuer: tuple[Recipe, x509.Certificate]
) -> x509.Certificate:
    """A CA that may only sign servers."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, recipe.common)])
    own = x509.SubjectKeyIdentifier.from_public_key(recipe.key.public_key())
    theirs = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[0].key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[1].subject)
        .public_key(recipe.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(recipe.start)
        .not_valid_after(recipe.end)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(usage(recipe), critical=True)
        .add_extension(own, critical=False)
        .add_extension(theirs, critical=False)
        .sign(issuer[0].key, hashes.SHA256())
    )


def test_second_import_replaces_the_first_and_remove_ends_it(host: Host, plan: Plan) -> None:
    first, second = site().files(), site().files()
    sitecert.take_in(host, plan, first)
    sitecert.take_in(host, plan, second)
    assert host.path("pki", "site", "tls.key").read_bytes() == second.key
    assert len([*host.path("pki").glob(".site-*")]) == 1
    sitecert.give_up(host)
    assert listed(host) == ["pki"]
    with pytest.raises(ConfigError, match="no certificate of the site's"):
        sitecert.give_up(host)
