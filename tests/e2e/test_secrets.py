"""The secrets of the installed stack: nowhere but where they belong, changed class by class, killed in between."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from bundle import rehearse
from bundle.errors import CommandError
from bundle.turnover import PHOENIX_FIRST
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(900)
STACK_ROOT = rehearse.PRODUCT_ROOT
PLAIN = "a-value-that-was-there-before"
PLANT_MLFLOW = """
import os, pathlib, psycopg2, uuid
from urllib.parse import urlsplit
from mlflow.utils.crypto import KEKManager, _encrypt_secret
name = f"planted-{uuid.uuid4().hex[:6]}"
key = KEKManager(passphrase=pathlib.Path("/run/secrets/MLFLOW_CRYPTO_KEK_PASSPHRASE").read_text())
made = _encrypt_secret({"api_key": VALUE}, key, name, name)
url = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("postgresql+psycopg2", "postgresql")
with psycopg2.connect(url) as c:
    c.cursor().execute(
        "insert into secrets (secret_id, secret_name, encrypted_value, wrapped_dek, kek_version, masked_value,"
        " created_at, last_updated_at, workspace) values (%s,%s,%s,%s,%s,'***',0,0,'default')",
        (name, name, made.encrypted_value, made.wrapped_dek, made.kek_version))
"""
READ_MLFLOW = """
import os, pathlib, psycopg2
from mlflow.utils.crypto import KEKManager, _decrypt_secret
key = KEKManager(passphrase=pathlib.Path("/run/secrets/MLFLOW_CRYPTO_KEK_PASSPHRASE").read_text())
url = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("postgresql+psycopg2", "postgresql")
with psycopg2.connect(url) as c:
    cursor = c.cursor()
    cursor.execute("select encrypted_value, wrapped_dek, secret_id, secret_name from secrets")
    for value, wrapped, id, name in cursor.fetchall():
        print(_decrypt_secret(bytes(value), bytes(wrapped), key, id, name)["api_key"])
"""
READ_PHOENIX = """
import asyncio, asyncpg, os, pathlib
from pydantic import SecretStr
from phoenix.server.encryption import EncryptionService
own = EncryptionService(SecretStr(pathlib.Path("/run/secrets/PHOENIX_SECRET").read_text()))
async def main():
    c = await asyncpg.connect(os.environ["PHOENIX_SQL_DATABASE_URL"])
    for row in await c.fetch("select value from secrets"):
        print(own.decrypt(row["value"]).decode())
asyncio.run(main())
"""


def values(stack: Stack) -> dict[str, str]:
    """Every stored secret."""
    return {p.name: p.read_text("utf-8") for p in (stack.root / "secrets/store").iterdir()}


def inside(stack: Stack, service: str, code: str) -> list[str]:
    """What `code` prints, run by the server's own Python in its container."""
    name = stack.containers()[service].name
    line = ["docker", "exec", "-i", name, "/opt/venv/bin/python", "-W", "ignore", "-"]
    return stack.host.run(line, timeout=120, text=code).split()


def phoenix(stack: Stack, method: str, path: str, body: Any = None, bearer: str = "") -> int:
    """The status that Phoenix answers at its door."""
    code = (
        "import json,ssl,sys,urllib.request,urllib.error;r=json.load(sys.stdin);"
        "q=urllib.request.Request('https://127.0.0.1:8445'+r['path'],method=r['method'],"
        "data=json.dumps(r['body']).encode() if r['body'] else None,"
        "headers={'Content-Type':'application/json'}|"
        "({'Authorization':'Bearer '+r['bearer']} if r['bearer'] else {}));"
        "c=ssl.create_default_context(cafile=r['ca'])\n"
        "try: print(urllib.request.urlopen(q,context=c,timeout=20).status)\n"
        "except urllib.error.HTTPError as e: print(e.code)"
    )
    request = {"path": path, "method": method, "body": body, "bearer": bearer}
    request["ca"] = f"{STACK_ROOT}/pki/clients.crt"
    return int(stack.host.run(["python3", "-c", code], timeout=60, text=json.dumps(request)))


def settled(stack: Stack, *names: str) -> None:
    """See that no rotation is under way, that files are for their owners, and that what was changed works."""
    rows = {
        row["name"]: row
        for row in json.loads(stack.invoke("secrets.status", "--format", "json", timeout=60))
    }
    assert not [row for row in rows.values() if row["state"]]
    assert all(rows[name]["rotated"] for name in names)
    assert not list((stack.root / "secrets/next").glob("*"))
    assert not list((stack.root / "secrets/old").glob("*"))
    chosen = ("run-mlflow", "run-phoenix-http", "access-secrets", "store-separate", "svc-postgres")
    stack.invoke("verify", *[w for name in chosen for w in ("--only", name)], timeout=300)


FEW = (
    pytest.param(("DB_HEALTH", "S3_EXPORTS_SECRET", "VERIFY_MLFLOW_PASSWORD"), id="no tracker"),
    pytest.param(
        ("DB_MLFLOW", "S3_MLFLOW_SECRET", "MLFLOW_STACK_PASSWORD"),
        id="MLflow restarts",
        marks=pytest.mark.nightly,
    ),
)


@pytest.mark.parametrize("names", FEW)
def test_some_secrets_are_changed_and_the_former_ones_refused(
    stack: Stack, names: tuple[str, ...]
) -> None:
    before = values(stack)
    chosen = [word for name in names for word in ("--only", name)]
    said = stack.invoke("secrets.rotate", *chosen, "--yes", timeout=400)
    after = values(stack)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {*names, names[1].replace("_SECRET", "_KEY")}
    assert said.strip() == ", ".join(sorted(changed))
    settled(stack, *changed)
    stack.invoke("install", "--yes", timeout=300)
    assert values(stack) == after, "install finds nothing to do"


def test_unknown_secret_is_an_argument_error(stack: Stack) -> None:
    for word, named in (("DB_MLFLO", "Did you mean DB_MLFLOW"), ("kit", "invoke pki.rotate")):
        with pytest.raises(CommandError, match=rf"(?s)exit code 2.*{named}"):
            stack.invoke("secrets.rotate", "--only", word, "--yes", timeout=60)


def test_without_an_agreement_nothing_changes(stack: Stack) -> None:
    before = values(stack)
    with pytest.raises(CommandError, match=r"(?s)exit code 2.*every API key of Phoenix"):
        stack.invoke("secrets.rotate", "--only", "data", timeout=60)
    assert values(stack) == before


def test_unsafe_production_is_refused_all_at_once_and_nothing_changes(stack: Stack) -> None:
    path, kept = stack.root / "secrets/store/DB_MLFLOW", (stack.root / "site.toml").read_bytes()
    given = stack.host.root / "root/prod.toml"
    given.write_text('profile = "prod"\n' + kept.decode("utf-8"), "utf-8")
    path.chmod(0o404)
    try:
        with pytest.raises(CommandError) as refused:
            stack.invoke("install", "--site", "/root/prod.toml", "--yes", timeout=120)
    finally:
        path.chmod(0o400)
        given.unlink()
    said = str(refused.value)
    assert "exit code 2" in said
    for named in (
        "MLFLOW_SERVER_ALLOWED_HOSTS: lets 127.0.0.1",
        "PHOENIX_CSRF_TRUSTED_ORIGINS",
        "DB_MLFLOW: others can get at",
    ):
        assert named in said
    assert (stack.root / "site.toml").read_bytes() == kept


def test_recovery_kit_is_made_opened_and_lets_the_root_key_leave(stack: Stack) -> None:
    folder = "/root/operators"
    req = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
    each = f"{req} -subj /CN=$n -keyout $n.key -out $n.crt"
    make = f"mkdir -p {folder} && cd {folder} && for n in kim lee; do {each}; done"
    stack.host.run(["sh", "-c", make], timeout=60)
    out = f"{folder}/site.kit"
    to = [word for name in ("kim", "lee") for word in ("--to", f"{folder}/{name}.crt")]
    said = stack.invoke("recovery.create", *to, "--out", out, timeout=120)
    assert said.split()[-1] == out
    test = ("recovery.test", "--kit", out, "--key")
    with pytest.raises(CommandError, match="exit code 2"):
        stack.invoke(*test, "/nowhere.key", timeout=60)
    stack.invoke(*test, f"{folder}/lee.key", "--put-root-key-away", timeout=60)
    gone = json.loads(stack.invoke("pki.status", "--format", "json", timeout=60))
    assert gone["root_key_away"] is True
    assert "✓ good" in stack.invoke("status", timeout=60)
    opens = (*to, "--test-with", f"{folder}/lee.key", "--out")
    stack.invoke("recovery.create", *opens, f"{folder}/short.kit", timeout=120)
    assert "lacks the root's key" in stack.invoke("status", timeout=60)
    stack.invoke("recovery.create", *opens, f"{folder}/next.kit", "--root-from", out, timeout=120)
    assert "✓ good" in stack.invoke("status", timeout=60)
    out = f"{folder}/next.kit"
    back = f"openssl cms -decrypt -inform DER -binary -in {out} -inkey {folder}/kim.key"
    names = "pki/g1/root.key secrets/store/PKI_ROOT_PASSPHRASE"
    stack.host.run(["sh", "-c", f"{back} | tar -xf - -C {STACK_ROOT} {names}"], timeout=60)
    there = json.loads(stack.invoke("pki.status", "--format", "json", timeout=60))
    assert there["root_key_away"] is False
    stack.invoke("verify", "--only", "access-secrets", timeout=120)
    stack.host.run(["rm", "-r", folder], timeout=20)


def test_rotation_makes_the_kit_stale(stack: Stack) -> None:
    stack.invoke("secrets.rotate", "--only", "SUPERUSER_PASSWORD", "--yes", timeout=300)
    assert "is stale" in stack.invoke("status", timeout=60)


@pytest.mark.nightly
def test_all_that_is_free_and_all_that_logs_out(stack: Stack) -> None:
    before = values(stack)
    login = {"email": "admin@localhost", "password": before[PHOENIX_FIRST]}
    first = phoenix(stack, "POST", "/auth/login", login) == 204  # else its owner has changed it
    stack.invoke("secrets.rotate", "--only", "free", "--only", "logout", "--yes", timeout=600)
    after = values(stack)
    kept = {name for name in before if before[name] == after.get(name)}
    assert kept - (set() if first else {PHOENIX_FIRST}) == {
        *("MLFLOW_CRYPTO_KEK_PASSPHRASE", "PHOENIX_SECRET", "PKI_ROOT_PASSPHRASE")
    }
    settled(stack, *({*before} - kept))
    old = before["PHOENIX_ADMIN_SECRET"]
    assert phoenix(stack, "GET", "/v1/users", bearer=old) == 401
    assert phoenix(stack, "GET", "/v1/users", bearer=after["PHOENIX_ADMIN_SECRET"]) == 200


def plant(stack: Stack) -> None:
    """Put an encrypted value into each tracker, by its own code."""
    inside(stack, "mlflow", PLANT_MLFLOW.replace("VALUE", repr(PLAIN)))
    body = {"secrets": [{"key": "PLANTED", "value": PLAIN}]}
    bearer = values(stack)["PHOENIX_ADMIN_SECRET"]
    assert phoenix(stack, "PUT", "/v1/secrets", body, bearer) == 200


def opened(stack: Stack) -> None:
    """See that each tracker's own code opens what was planted, by the key that it runs with now."""
    assert set(inside(stack, "mlflow", READ_MLFLOW)) == {PLAIN}
    assert inside(stack, "phoenix", READ_PHOENIX) == [PLAIN]


@pytest.mark.nightly
def test_data_keys_are_changed_and_what_they_encrypt_still_opens(stack: Stack) -> None:
    plant(stack)
    before = values(stack)
    stack.invoke("secrets.rotate", "--only", "data", "--yes", timeout=600)
    after = values(stack)
    assert {name for name in before if before[name] != after[name]} == {
        *("MLFLOW_CRYPTO_KEK_PASSPHRASE", "PHOENIX_SECRET", "VERIFY_PHOENIX_API_KEY")
    }
    opened(stack)
    assert phoenix(stack, "GET", "/v1/user", bearer=before["VERIFY_PHOENIX_API_KEY"]) == 401
    settled(stack, "MLFLOW_CRYPTO_KEK_PASSPHRASE", "PHOENIX_SECRET")
    dumps = sorted(path.name for path in (stack.root / "safety").glob("*/*"))
    assert dumps == [
        *("MLFLOW_CRYPTO_KEK_PASSPHRASE", "PHOENIX_SECRET", "mlflow.dump", "phoenix.dump")
    ]


@pytest.mark.nightly
def test_row_that_opens_by_no_key_stops_the_change_before_anything(stack: Stack) -> None:
    """The rotation goes on when it has been deleted."""
    sql = (
        "insert into secrets (secret_id, secret_name, encrypted_value, wrapped_dek, kek_version,"
        " masked_value, created_at, last_updated_at, workspace) values"
        " ('lost', 'lost', 'x', repeat('y', 60)::bytea, 1, '', 0, 0, 'default')"
    )
    postgres = stack.containers()["postgres"].name
    psql = ["docker", "exec", postgres, "psql", "-h", "/tmp", "-U", "postgres", "-d", "mlflow"]
    words = ("secrets.rotate", "--only", "MLFLOW_CRYPTO_KEK_PASSPHRASE", "--yes")
    before = values(stack)
    stack.host.run([*psql, "-c", sql], timeout=30)
    try:
        with pytest.raises(CommandError, match=r"(?s)exit code 4.*1 encrypted rows"):
            stack.invoke(*words, timeout=400)
        assert values(stack) == before
    finally:
        stack.host.run([*psql, "-c", "delete from secrets where secret_id = 'lost'"], timeout=30)
    stack.invoke(*words, timeout=400)
    settled(stack, "MLFLOW_CRYPTO_KEK_PASSPHRASE")


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [3, 6, 9, 12, 16, 20, 25, 30, 40, 55, 70, 90])
def test_killed_anywhere_is_finished_by_the_next(seconds: int, stack: Stack) -> None:
    """After the kill the next run goes on with the same values until it is done."""
    plant(stack)
    words = "secrets.rotate --only free --only logout --only data --yes"
    inner = f"cd {STACK_ROOT}/current && timeout --signal=KILL"
    before = values(stack)
    line = f"{inner} {seconds} setsid --wait .venv/bin/invoke {words}"
    stack.host.run(["sh", "-c", line], timeout=200, check=False)
    pending = list((stack.root / "secrets/next").glob("*"))
    stack.invoke(*shlex.split(words), timeout=700)
    after = values(stack)
    same = {name for name in before if before[name] == after.get(name)}
    assert same - {PHOENIX_FIRST} == {"PKI_ROOT_PASSPHRASE"}, pending  # the one may be its owner's
    opened(stack)
    settled(stack)
