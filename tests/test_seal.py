"""The bundle file: same bytes from the same inputs, in place at last, with a signature and a trust sheet."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bundle import blobs, carry, seal, unseal
from bundle.blobs import Cache, Kept
from bundle.config import config_folder
from bundle.errors import BundleError, ConfigError, IntegrityError, PreconditionError
from bundle.manifest import CONFIG_TYPE, Member
from tests import bundles


def test_first_members_are_what_the_bootstrap_needs(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    with tarfile.open(made.path) as archive:
        names = archive.getnames()
    assert names[:5] == ["bootstrap.sh", "MANIFEST.json", "MANIFEST.sig", "key.pem", "unseal.py"]
    assert names.pop(5) == "small/bundle/parts.py"
    groups = [name.split("/")[0] for name in names[5:]]
    assert groups == sorted(groups, key=["small", "wheels", "blobs"].index)
    assert all(
        names[5:][i] < names[5:][i + 1]
        for i in range(len(groups) - 1)
        if groups[i] == groups[i + 1]
    )
    assert not [name for name in names if "pycache" in name or name.endswith(".pyc")]


def test_shared_layer_is_stored_once(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    shared = made.manifest.images[0].layers[0]
    assert shared == made.manifest.images[1].layers[0]
    assert sum(shared[7:] in member.path for member in made.manifest.members) == 1
    assert seal.size_table(made.manifest)["shared layers"] == 256 * 300


def test_same_inputs_give_the_same_bytes_but_for_the_signature(tmp_path: Path) -> None:
    key = tmp_path / "sign.key"
    made, before = [bundles.make(tmp_path / "one", key=key)], os.umask(0o077)
    try:
        made.append(bundles.make(tmp_path / "another place", key=key))
    finally:
        os.umask(before)
    first, second = (bundles.split(bundle.path) for bundle in made)
    differing = [a[0][:100].rstrip(b"\0") for a, b in zip(first, second, strict=True) if a != b]
    assert set(differing) <= {b"MANIFEST.sig"}


def test_signature_is_that_of_the_key_inside(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    data, places = made.path.read_bytes(), unseal.members(made.path)
    pem, raw, signature = (
        data[offset : offset + size]
        for offset, size in (places[name] for name in ("key.pem", "MANIFEST.json", "MANIFEST.sig"))
    )
    public = serialization.load_pem_public_key(pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, raw, ec.ECDSA(hashes.SHA256()))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = public.public_bytes(serialization.Encoding.DER, form)
    assert hashlib.sha256(der).hexdigest() == made.fingerprint


def test_trust_sheet_says_what_travels_apart(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    sheet = made.path.with_name(
        "tracking-bundle-1.0-amd64.trust.txt".replace("amd64", made.manifest.arch)
    )
    text = sheet.read_text("utf-8")
    assert hashlib.sha256(made.path.read_bytes()).hexdigest() in text
    assert made.manifest.members[0].sha256 in text
    assert f"sh bootstrap.sh {made.path.name} --fingerprint {made.fingerprint}" in text
    assert "확인서" in text


def test_damaged_cache_is_not_sealed(tmp_path: Path) -> None:
    sources = [
        seal.Source(
            member=Member(path="blobs/sha256/x", size=3, sha256="0" * 64),
            content=tmp_path / "blob",
        )
    ]
    (tmp_path / "blob").write_bytes(b"abc")
    with pytest.raises(IntegrityError, match="cached blob"):
        list(seal._chunks(sources, 0))


def test_failure_leaves_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "key").mkdir()
    with pytest.raises(OSError, match="No space"):
        bundles.make(tmp_path, key=_key(tmp_path / "key" / "k"))
    assert list((tmp_path / "dist").iterdir()) == []


def _key(path: Path, curve: ec.EllipticCurve | None = None) -> Path:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key = ec.generate_private_key(curve or ec.SECP256R1())
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    path.chmod(0o600)
    return path


def test_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "config" / "sign.key"
    first = seal.load_key(path, make=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert seal.load_key(path, make=True).fingerprint == first.fingerprint


def test_key_that_was_named_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reading the signing key"):
        seal.load_key(tmp_path / "absent")


def test_key_open_to_others_is_refused(tmp_path: Path) -> None:
    path = _key(tmp_path / "k")
    path.chmod(0o640)
    with pytest.raises(PreconditionError, match="open to others"):
        seal.load_key(path)


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not an ECDSA P-256 key"):
        seal.load_key(_key(tmp_path / "k", ec.SECP384R1()))
    (tmp_path / "j").write_text("no key")
    (tmp_path / "j").chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be read"):
        seal.load_key(tmp_path / "j")


def test_key_lies_outside_the_tree_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/h")
    assert config_folder() == Path("/h/.config/tracking-bundle")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert config_folder() == Path("/x/tracking-bundle")


LOCK = """\
# a comment
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
beta==2.0 ; python_full_version < '3.11' \\
    --hash=sha256:cc
gamma==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:dd
"""


def test_lock_is_read_for_the_python_that_will_run() -> None:
    assert carry.choose(LOCK, "3.12", "amd64") == "alpha==1.0 --hash=sha256:aa --hash=sha256:bb\n"
    assert "beta==2.0 --hash=sha256:cc" in carry.choose(LOCK, "3.10", "amd64")
    assert "gamma" not in carry.choose(LOCK, "3.10", "amd64")


@pytest.mark.parametrize("line", ["alpha==1.0", "=== --hash=sha256:aa"])
def test_line_without_a_lock_is_refused(line: str) -> None:
    with pytest.raises(BundleError) as caught:
        carry.choose(line, "3.12", "amd64", "tool.lock")
    assert "tool.lock: " in str(caught.value)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("a-1-py3-none-any.whl", "a-1-py3-none-any.whl"),
        (
            "a-1-cp310-cp310-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl",
            "a-1-cp310-cp310-manylinux_2_17_x86_64.whl",
        ),
        ("a-1-cp39-abi3-manylinux_2_28_aarch64.whl", "a-1-cp39-abi3-manylinux_2_28_aarch64.whl"),
    ],
)
def test_wheel_keeps_the_least_platform_that_it_asks_for(long: str, short: str) -> None:
    assert carry.short_name(long) == short


def test_cache_knows_a_layer_only_while_its_blob_is_there(tmp_path: Path) -> None:
    cache = Cache(root=tmp_path)
    blob = cache.keep(CONFIG_TYPE.encode())
    kept = Kept(blob=blob, diff_id="sha256:bb", size=3)
    cache.remember(cache.layers, "sha256:aa", kept)
    assert cache.layer("sha256:aa") == kept
    assert Cache(root=tmp_path, level=3).layer("sha256:aa") is None
    assert Cache(root=tmp_path, epoch=1).layer("sha256:aa") is None
    cache.blob(blob).unlink()
    assert cache.layer("sha256:aa") is None


def filled(root: Path, *ages: int) -> list[Path]:
    """A cache with a layer of 1000 bytes for each age, the blobs in the order of `ages`."""
    cache, found = Cache(root=root, epoch=7), []
    for number, age in enumerate(ages):
        blob = cache.keep(bytes([number]) * 1000)
        diff_id = f"sha256:{number:064d}"
        kept = Kept(blob=blob, diff_id=diff_id, size=1)
        cache.remember(cache.layers, diff_id, kept)
        os.utime(cache.blob(blob), (1e9 - age, 1e9 - age))
        found.append(cache.blob(blob))
    return found


def test_cache_has_a_bound_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    old, used, newer, newest = filled(tmp_path, 4, 3, 2, 1)
    (old.parent / ".layer-1-2").write_text("of a killed run")
    assert Cache(root=tmp_path, epoch=7).layer(f"sha256:{1:064d}"), "used just now"
    assert blobs.clean(tmp_path, 2500) == 2
    assert [path.exists() for path in (old, used, newer, newest)] == [False, True, False, True]
    assert sorted(p.name for p in old.parent.iterdir()) == sorted([used.name, newest.name])
    notes = list(tmp_path.glob("layers*/*.json"))
    assert sorted(path.stem[-1] for path in notes) == ["1", "3"]
    assert blobs.clean(tmp_path, 0) == 2
    assert not list(tmp_path.glob("layers*")), "a form of which nothing is left goes too"
    assert blobs.clean(tmp_path / "none", 0) == 0


def test_nothing_goes_while_somebody_holds_it(tmp_path: Path) -> None:
    (one,) = filled(tmp_path, 1)
    with blobs.held(tmp_path), blobs.held(tmp_path):
        assert blobs.clean(tmp_path, 0) == 0
        assert one.exists()
    assert blobs.clean(tmp_path, 0) == 1


def test_whoever_shares_the_blobs_alone_is_seen_too(tmp_path: Path) -> None:
    (one,) = filled(tmp_path / "a", 1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "blobs").symlink_to(tmp_path / "a" / "blobs")
    with blobs.held(tmp_path / "b"):
        assert blobs.clean(tmp_path / "a", 0) == 0
    assert one.exists()


def test_blob_that_vanished_is_said(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is gone since it was packed") as refused:
        list(seal._content(tmp_path / "none"))
    assert refused.value.exit_code == 5
