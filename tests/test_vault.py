"""Secrets: strong, made once, handed to their service only, and never text by accident."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pickle
from pathlib import Path

import pytest

from bundle import certificates, vault
from bundle.bootstrap import database_sql, scram
from bundle.config import parse_site
from bundle.errors import ConfigError
from bundle.host import Host
from bundle.model import Secret, SecretSpec
from bundle.plan import Plan, make_plan
from bundle.templates import environment


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_site('domain = "a.b"'), site_id="0a1b2c3d", version="0.1.0")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(os, "chown", lambda *_: None)  # only root may give files away
    return Host(root=tmp_path)


@pytest.mark.parametrize(
    "leak",
    [
        str,
        "{}".format,
        lambda s: f"{s}",
        lambda s: "a" + s,
        lambda s: s + "a",
        lambda s: ", ".join([s]),
        json.dumps,
        pickle.dumps,
        bytes,
        list,
        lambda s: "%s" % s,  # noqa: UP031
        lambda s: environment().from_string("{{ s }}").render(s=s),
    ],
)
def test_secret_cannot_become_text(leak: object) -> None:
    with pytest.raises(TypeError):
        leak(Secret("hunter2"))  # type: ignore[operator]


def test_secret_hides_in_representations() -> None:
    assert "hunter2" not in repr([Secret("hunter2")])


@pytest.mark.parametrize("kind", ["token", "password", "name"])
def test_generated_value_pleases_every_server(kind: str) -> None:
    for _ in range(50):
        value = vault.generate(SecretSpec(name="X", kind=kind)).reveal()  # type: ignore[arg-type]
        assert any(map(str.isdigit, value))
        assert any(map(str.islower, value))
        assert value[0].isalnum()
        assert value[-1].isalnum()
        assert len(value) >= 16
        assert not set(value) & set(":\\'\"$% \n")  # pgpass, shells, ini files


def test_store_is_made_once_and_kept(host: Host, plan: Plan) -> None:
    first = vault.open_store(host, plan)
    assert first == vault.open_store(host, plan)
    assert len({value.reveal() for value in first.values()}) == len(first)


def test_missing_secret_is_made_and_the_others_stay(host: Host, plan: Plan) -> None:
    first = vault.open_store(host, plan)
    host.path("secrets", "store", "DB_PHOENIX").unlink()
    second = vault.open_store(host, plan)
    assert {name for name in first if first[name] != second[name]} == {"DB_PHOENIX"}


def test_empty_secret_is_refused(host: Host, plan: Plan) -> None:
    vault.open_store(host, plan)
    path = host.path("secrets", "store", "DB_PHOENIX")
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        vault.open_store(host, plan)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(host: Host, plan: Plan, umask: int) -> None:
    old = os.umask(umask)
    try:
        vault.hand_out(host, plan, vault.open_store(host, plan))
        vault.close(host, plan)
    finally:
        os.umask(old)
    folders = [host.path("secrets"), *[p for p in host.path("secrets").iterdir() if p.is_dir()]]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folders)
    files = [p for p in host.path("secrets").rglob("*") if p.is_file()]
    assert len(files) > 20
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in files)


def test_service_sees_only_its_own(host: Host, plan: Plan) -> None:
    store = vault.open_store(host, plan)
    vault.hand_out(host, plan, store)
    mine = " ".join(p.read_text() for p in host.path("secrets", "phoenix").iterdir())
    for name in (
        "DB_MLFLOW",
        "MINIO_ROOT_PASSWORD",
        "MLFLOW_AUTH_ADMIN_PASSWORD",
        "SUPERUSER_PASSWORD",
    ):
        assert store[name].reveal() not in mine
    assert store["DB_PHOENIX"].reveal() in mine


def test_statements_carry_no_password(host: Host, plan: Plan) -> None:
    store = vault.open_store(host, plan)
    text = database_sql(plan.databases, store)
    assert not [name for name, value in store.items() if value.reveal() in text]
    assert text.count("SCRAM-SHA-256$4096:") == 7


def test_scram_verifier_answers_the_exchange_of_rfc_7677(monkeypatch: pytest.MonkeyPatch) -> None:
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    exchange = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}".encode()
    monkeypatch.setattr(os, "urandom", lambda _: base64.b64decode(salt))
    _, head, keys = scram(Secret("pencil")).split("$")
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    assert head == f"4096:{salt}"
    signature = hmac.digest(server, exchange, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    mask = hmac.digest(stored, exchange, "sha256")
    client = bytes(x ^ y for x, y in zip(proof, mask, strict=True))
    assert hashlib.sha256(client).digest() == stored


def test_value_of_ours_comes_back_when_the_site_takes_its_own_away(
    host: Host, plan: Plan, tmp_path: Path
) -> None:
    """Each service has a key of its own again, the one that its user in our store has."""
    ours = {name: value.reveal() for name, value in vault.open_store(host, plan).items()}
    for name in ("key", "secret"):
        (tmp_path / name).write_text(f"the-sites-own-{name}", "utf-8")
        (tmp_path / name).chmod(0o600)
    text = (
        'domain = "a.b"\nallow = ["s3.a.kr:443=10.0.0.9"]\n[s3]\nendpoint = "https://s3.a.kr"\n'
        f'key = "secret://file{tmp_path}/key"\nsecret = "secret://file{tmp_path}/secret"\n'
        f'ca = """\n{certificates.pem(certificates.make_root("a.kr").certificate).decode()}"""\n'
    )
    theirs = make_plan(parse_site(text), site_id="0a1b2c3d", version="0.1.0")
    for _ in range(2):
        store = vault.open_store(host, theirs)
        assert store["S3_MLFLOW_KEY"].reveal() == "the-sites-own-key"
        assert store["S3_BACKUPS_KEY"].reveal() == "the-sites-own-key"
    for _ in range(2):
        back = {name: value.reveal() for name, value in vault.open_store(host, plan).items()}
        assert back == ours
    assert not list(host.path("secrets/store").glob(".*"))


def test_key_that_was_only_ever_the_sites_is_drawn(host: Host, plan: Plan, tmp_path: Path) -> None:
    made = vault.open_store(host, plan)
    path = host.path("secrets", "store", "S3_MLFLOW_KEY")
    path.with_name(".S3_MLFLOW_KEY.own").write_bytes(b"")
    drawn = vault.open_store(host, plan)["S3_MLFLOW_KEY"].reveal()
    assert drawn != made["S3_MLFLOW_KEY"].reveal()
    assert vault.open_store(host, plan)["S3_MLFLOW_KEY"].reveal() == drawn
