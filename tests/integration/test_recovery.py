"""Recovery kits by the real openssl: for whom, what is in them, every way in which one is not enough."""

from __future__ import annotations

import datetime
import json
import os
import random
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from bundle import authority, kit, pki, recovery, rotation, vault
from bundle.certificates import now
from bundle.config import parse_site
from bundle.errors import CheckFailedError, ConfigError, IntegrityError
from bundle.host import Host
from bundle.model import SecretSpec
from bundle.plan import make_plan
from bundle.run import run

PLAN = make_plan(
    parse_site('domain = "lab.internal"\nbind = "10.0.0.5"'), site_id="0a1b2c3d", version="1.2.3"
)
PHRASE = "operators-own-phrase"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Operator:
    """A person with a certificate and a key."""

    certificate: str
    key: Path


def operator(folder: Path, name: str, key: Key, *, days: int = 30, phrase: str = "") -> Operator:
    """An operator's self-signed certificate and key, as files."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now() - datetime.timedelta(days=40))
        .not_valid_after(now() + datetime.timedelta(days=days))
        .sign(key, algorithm)
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    lock = (
        serialization.BestAvailableEncryption(phrase.encode())
        if phrase
        else serialization.NoEncryption()
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(*form, lock))
    return Operator(str(folder / f"{name}.crt"), folder / f"{name}.key")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    made = Host(root=tmp_path / "root")
    made.root.mkdir()
    vault.hand_out(made, PLAN, vault.open_store(made, PLAN))
    authority.authorities(made, PLAN)
    made.path("site.toml").write_text('domain = "lab.internal"')
    made.path("site-id").write_text("0a1b2c3d\n")
    return made


@pytest.fixture
def two(tmp_path: Path) -> tuple[Operator, Operator]:
    """One with a P-256 key, one with an encrypted RSA key and a Korean name."""
    first = operator(tmp_path, "first", ec.generate_private_key(ec.SECP256R1()))
    key = rsa.generate_private_key(65537, 2048)
    return first, operator(tmp_path, "운영자 둘", key, phrase=PHRASE)


def make(host: Host, out: Path, *people: Operator) -> kit.Made:
    return recovery.create(host, PLAN, recovery.recipients([p.certificate for p in people]), out)


def test_each_operator_opens_it_and_it_is_enough(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    out = tmp_path / "a.kit"
    made = make(host, out, *two)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert made.recipients == ("CN=first", "CN=운영자 둘")
    assert not kit.state(host)[0], "never opened"
    (tmp_path / "phrase").write_text(PHRASE)
    for person, phrase in zip(two, ("", str(tmp_path / "phrase")), strict=True):
        opened = recovery.open_kit(out, person.key, phrase)
        held = recovery.prove(host, opened, "2026-11-21T00:00:00+00:00")
        assert {"site.toml", "pki/g1/root.key", "secrets/store/PHOENIX_SECRET"} <= {*held}
    assert kit.state(host)[0]
    assert opened.index["roots"].keys() == {"g1"}


def test_it_opens_without_this_tool_as_its_text_says(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    make(host, tmp_path / "a.kit", *two)
    line = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", str(tmp_path / "a.kit")]
    run([*line, "-inkey", str(two[0].key), "-binary", "-out", str(tmp_path / "k.tar")], timeout=60)
    with tarfile.open(tmp_path / "k.tar") as archive:
        text = archive.extractfile("README.txt")
        assert text
        assert "openssl cms -decrypt" in text.read().decode()
        archive.extractall(tmp_path / "again", filter="data")
    again = tmp_path / "again"
    store = host.path("secrets/store")
    assert {p.name: p.read_text() for p in (again / "secrets/store").iterdir()} == {
        p.name: p.read_text() for p in store.iterdir()
    }


def test_nothing_of_it_is_in_the_clear(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    make(host, tmp_path / "a.kit", *two)
    data = (tmp_path / "a.kit").read_bytes()
    values = [path.read_bytes() for path in host.path("secrets/store").iterdir()]
    assert not [value for value in values if value in data]
    noted = host.path(kit.NOTE)
    assert stat.S_IMODE(noted.stat().st_mode) == 0o600
    assert not [value for value in values if value in noted.read_bytes()]


def test_root_key_leaves_only_by_a_kit_that_holds_it(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    make(host, tmp_path / "old.kit", two[0])
    old = recovery.open_kit(tmp_path / "old.kit", two[0].key)
    pki.begin_rotation(host, PLAN)
    with pytest.raises(CheckFailedError, match=r"g2/root\.key"):
        recovery.put_root_key_away(host, old)
    assert not authority.root_key_is_away(host)
    make(host, tmp_path / "new.kit", two[0])
    new = recovery.open_kit(tmp_path / "new.kit", two[0].key)
    recovery.prove(host, new, "2026-11-21T00:00:00+00:00")
    gone = recovery.put_root_key_away(host, new)
    assert gone == [*("pki/g1/root.key", "pki/g2/root.key", "secrets/store/PKI_ROOT_PASSPHRASE")]
    assert authority.root_key_is_away(host)
    assert kit.state(host)[0], "the key's leaving makes no kit stale"
    for name in gone:
        host.path(name).write_bytes(new.files[name])
    authority.load_root(host, authority.current(host))


def test_later_kit_without_the_root_key_is_red_until_one_takes_it_from_the_older(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    for name in ("first.kit", "second.kit"):
        make(host, tmp_path / name, two[0])
        opened = recovery.open_kit(tmp_path / name, two[0].key)
        recovery.prove(host, opened, "2026-11-21T00:00:00+00:00")
        if not authority.root_key_is_away(host):
            with pytest.raises(ConfigError, match="is on this host"):
                recovery.root_key_of(host, opened)
            recovery.put_root_key_away(host, opened)
            first = opened
    good, line = kit.state(host)
    assert not good
    assert f"lacks the root's key, which is in the kit of {first.index['made'][:10]}" in line
    assert first.sha256[:16] in line
    with pytest.raises(CheckFailedError, match="does not hold the key of the root in use"):
        recovery.root_key_of(host, opened)
    out = tmp_path / "third.kit"
    recovery.create(
        host,
        PLAN,
        recovery.recipients([two[0].certificate]),
        out,
        recovery.root_key_of(host, first),
    )
    third = recovery.open_kit(out, two[0].key)
    recovery.prove(host, third, "2026-11-21T00:00:00+00:00")
    assert third.files.keys() == first.files.keys()
    assert authority.root_key_is_away(host)
    assert kit.state(host)[0]


def test_root_key_that_went_without_a_kit_is_red(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    authority.put_root_key_away(host)
    make(host, tmp_path / "a.kit", two[0])
    opened = recovery.open_kit(tmp_path / "a.kit", two[0].key)
    recovery.prove(host, opened, "2026-11-21T00:00:00+00:00")
    good, line = kit.state(host)
    assert not good
    assert "in no kit known here" in line


def rotated(host: Host) -> None:
    spec = SecretSpec(name="DB_PHOENIX")
    rotation.draw(host, [spec])
    rotation.commit(host, spec.name)
    rotation.finish(host, [spec.name], now())


def settings(host: Host) -> None:
    host.path("site.toml").write_text('domain = "lab.internal"\nbind = "10.0.0.5"')


def new_root(host: Host) -> None:
    pki.begin_rotation(host, PLAN)


@pytest.mark.parametrize("change", [rotated, settings, new_root])
def test_change_makes_it_stale(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator], change: object
) -> None:
    make(host, tmp_path / "a.kit", two[0])
    opened = recovery.open_kit(tmp_path / "a.kit", two[0].key)
    recovery.prove(host, opened, "2026-11-21T00:00:00+00:00")
    assert kit.state(host)[0]
    change(host)  # type: ignore[operator]
    good, line = kit.state(host)
    assert not good
    assert "stale" in line
    with pytest.raises(CheckFailedError, match="lacks, or has another"):
        recovery.prove(host, opened, "2026-11-21T00:00:00+00:00")


def test_other_key_damage_and_other_files_do_not_open(
    host: Host, tmp_path: Path, two: tuple[Operator, Operator], rng: random.Random
) -> None:
    out, bad = tmp_path / "a.kit", tmp_path / "bad.kit"
    make(host, out, two[0])
    with pytest.raises(IntegrityError, match="does not open with this key"):
        recovery.open_kit(out, two[1].key)
    data = out.read_bytes()
    damaged = [data[:-40], data[:100], b"", b"no kit at all"]
    for _ in range(8):
        at = rng.randrange(len(data))
        damaged.append(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for one in damaged:
        bad.write_bytes(one)
        try:
            recovery.open_kit(bad, two[0].key)
        except IntegrityError:
            continue
        # what may differ is what no key vouches for: the name of the recipient's certificate
        assert recovery.open_kit(bad, two[0].key).files == recovery.open_kit(out, two[0].key).files
    other = tmp_path / "other"
    other.write_text("hello")
    line = ["openssl", "cms", "-encrypt", "-binary", "-aes-256-gcm", "-outform", "DER"]
    run([*line, "-in", str(other), "-out", str(bad), two[0].certificate], timeout=60)
    with pytest.raises(IntegrityError, match="is no recovery kit"):
        recovery.open_kit(bad, two[0].key)


def test_recipients_that_cannot_be_are_told_all_at_once(
    tmp_path: Path, two: tuple[Operator, Operator]
) -> None:
    old = operator(tmp_path, "old", ec.generate_private_key(ec.SECP256R1()), days=-1)
    weak = operator(tmp_path, "weak", rsa.generate_private_key(65537, 1024))
    other = operator(tmp_path, "other", ed25519.Ed25519PrivateKey.generate())
    text = tmp_path / "text.crt"
    text.write_text("hello")
    given = [old.certificate, weak.certificate, other.certificate, str(text), "/nowhere.crt"]
    with pytest.raises(ConfigError) as refused:
        recovery.recipients([*given, str(two[0].key), two[1].certificate])
    found = [str(problem) for problem in refused.value.problems]
    reasons = [
        *("not valid now", "neither P-256", "neither P-256"),
        *("no certificate", "No such file", "private key"),
    ]
    assert len(found) == len(reasons)
    assert all(reason in line for reason, line in zip(reasons, found, strict=True))
    with pytest.raises(ConfigError, match="no recipient"):
        recovery.recipients([])


def test_note_that_is_damaged_is_no_kit(host: Host) -> None:
    for text in ("{", json.dumps({"last": {"sha256": "x"}}), "[]"):
        host.path(kit.NOTE).write_text(text)
        assert not kit.state(host)[0]
