"""The stack's own account in MLflow: what became of it there, and how it becomes again what the store says.

Who administers MLflow can change or delete any account. When it is this one nobody can log in any more to mend it, so
it is looked at and mended in the database, over the superuser's socket: with a hash, never with the password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from bundle.host import Host
from bundle.inside import superuser
from bundle.model import Secret
from bundle.plan import Plan
from bundle.services.names import STACK
from bundle.words import say

DATABASE, PASSWORD = "mlflow_auth", "MLFLOW_STACK_PASSWORD"
SCRYPT = (32768, 8, 1)
LOOK = f"""\\set ON_ERROR_STOP on
\\pset format unaligned
\\pset tuples_only on
SELECT to_regclass('public.users') IS NOT NULL AS made \\gset
\\if :made
SELECT 'somebody' FROM users LIMIT 1;
SELECT E'own\\t' || coalesce(password_hash, '') || E'\\t' || coalesce(is_admin, false)
  FROM users WHERE username = '{STACK}';
\\endif
"""


def stored(host: Host) -> Secret | None:
    """The password that the account shall have; None before the first install."""
    path = host.path("secrets", "store", PASSWORD)
    return Secret(path.read_text("utf-8").strip()) if path.exists() else None


def look(plan: Plan, host: Host) -> str:
    """What is wrong with the account; empty: nothing, or there is none yet.

    Raises CommandError when Postgres does not answer.
    """
    password = stored(host)
    return judge(superuser(plan, host, LOOK, DATABASE), password) if password is not None else ""


def judge(answer: str, password: Secret) -> str:
    """What is wrong with the account that Postgres told of."""
    lines = answer.splitlines()
    own = next((line.split("\t") for line in lines if line.startswith("own\t")), None)
    if own is None:
        gone = say(f"{STACK} was deleted in MLflow", f"MLflow에서 {STACK} 계정이 삭제됨")
        return gone if lines else ""
    if not matches(own[1], password):
        return say(
            f"the password of {STACK} was changed in MLflow",
            f"MLflow에서 {STACK}의 비밀번호가 바뀜",
        )
    if own[2] != "true":
        return say(
            f"{STACK} is no administrator of MLflow any more",
            f"MLflow에서 {STACK}의 관리자 권한이 없어짐",
        )
    return ""


def remedy() -> str:
    """What to do about it."""
    return say(
        f"Run invoke start: it makes {STACK} what the store says. Leave that account alone in MLflow.",
        f"invoke start를 실행하면 저장된 값으로 되돌립니다. MLflow에서 {STACK} 계정은 바꾸지 마십시오.",
    )


def mend(plan: Plan, host: Host) -> str:
    """Make the account what the store says; what was wrong with it.

    Raises CommandError when Postgres refuses.
    """
    wrong, password = look(plan, host), stored(host)
    if wrong and password is not None:
        superuser(plan, host, mending_sql(password), DATABASE)
    return wrong


def mending_sql(password: Secret) -> str:
    """The statement that makes the account so."""
    return (
        "\\set ON_ERROR_STOP on\n"
        "INSERT INTO users (username, password_hash, is_admin)"
        f" VALUES ('{STACK}', '{hashed(password)}', true) ON CONFLICT (username)"
        " DO UPDATE SET password_hash = excluded.password_hash, is_admin = true;\n"
    )


def hashed(password: Secret) -> str:
    """The hash of `password` in the form that MLflow keeps (werkzeug's scrypt)."""
    salt = secrets.token_hex(8)
    return f"scrypt:{':'.join(map(str, SCRYPT))}${salt}${_scrypt(password, salt, SCRYPT)}"


def matches(kept: str, password: Secret) -> bool:
    """Whether the hash `kept` is that of `password`; one of another form counts as another's."""
    method, *rest = kept.split("$")
    try:
        kind, *numbers = method.split(":")
        n, r, p = map(int, numbers)
        salt, digest = rest
    except ValueError:
        return False
    return kind == "scrypt" and hmac.compare_digest(_scrypt(password, salt, (n, r, p)), digest)


def _scrypt(password: Secret, salt: str, numbers: tuple[int, int, int]) -> str:
    n, r, p = numbers
    text = password.reveal().encode()
    room = 132 * n * r * p
    return hashlib.scrypt(text, salt=salt.encode(), n=n, r=r, p=p, maxmem=room).hex()
