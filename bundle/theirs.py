"""The site's own S3 as this host sees it, before anything is installed: reachable, by its name, and with which rights.

Three reading requests a bucket, signed here (AWS signature V4): nothing is written, and no client library is needed.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import re
import socket
import ssl

from bundle.borrowed import borrow
from bundle.config import SiteConfig
from bundle.model import Secret
from bundle.services.s3 import address, host_and_port
from bundle.words import say

TIMEOUT_S = 10.0
NOTHING = hashlib.sha256(b"").hexdigest()
ASKED = (
    ("list", "max-keys=1"),
    ("versioning", "versioning="),
    ("versions", "max-keys=1&versions="),
)
"""What is asked of a bucket: its rights are needed by the trackers, by checks and by retention."""


def hint() -> str:
    """What to do about whatever is wrong."""
    return say(
        "See s3 in site.toml, and what the store must have: docs/object-store.md.",
        "site.toml의 s3와 저장소의 조건(docs/object-store.md)을 확인하십시오.",
    )


def look(site: SiteConfig) -> list[tuple[str, str]]:
    """Where the site's S3 is, with each thing that is wrong with it, or with nothing; no line without such an S3.

    Raises ConfigError when a reference to its key leads nowhere.
    """
    if not site.s3_endpoint:
        return []
    keys = borrow(site.s3_key, "site.toml: s3.key"), borrow(site.s3_secret, "site.toml: s3.secret")
    host, port = host_and_port(site)
    where = f"{host}:{port} ({address(site)})"
    wrong: list[str] = []
    for bucket in (site.s3_bucket_mlflow, site.s3_bucket_exports, site.s3_bucket_backups):
        try:
            wrong += problems(site, bucket, keys)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "verify_message", "") or str(error) or type(error).__name__
            return [(where, f"{where}: {reason}")]
    return [(where, problem) for problem in dict.fromkeys(wrong)] or [(where, "")]


def problems(site: SiteConfig, bucket: str, keys: tuple[Secret, Secret]) -> list[str]:
    """The first thing that is wrong with a bucket, if anything is."""
    for what, query in ASKED:
        status, said = ask(site, f"/{bucket}", query, keys)
        if wrong := judge(what, status, said):
            return [f"{bucket}: {wrong}"]
    return []


def judge(what: str, status: int, said: str) -> str:
    """What is wrong with an answer; empty when nothing is."""
    code = re.search(r"<Code>([^<]{1,80})</Code>", said)
    if status != 200:
        return f"{what}: {status} {code[1] if code else ''}".strip()
    if what == "versioning" and "<Status>Enabled</Status>" not in said:
        return say("versioning is not enabled", "버전 관리가 켜져 있지 않습니다")
    return ""


def ask(site: SiteConfig, path: str, query: str, keys: tuple[Secret, Secret]) -> tuple[int, str]:
    """One signed GET to the address of site.toml, its certificate verified by the endpoint's name."""
    host, port = host_and_port(site)
    authority = host if port == 443 else f"{host}:{port}"
    now = datetime.datetime.now(datetime.timezone.utc)
    headers = signed(authority, path, query, site.s3_region, keys, now)
    context = ssl.create_default_context(cadata=site.s3_ca)
    with (
        socket.create_connection((address(site), port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        lines = [f"GET {path}?{query} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        secure.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        answer = http.client.HTTPResponse(secure)
        answer.begin()
        return answer.status, answer.read(1 << 16).decode("utf-8", "replace")


def signed(
    authority: str,
    path: str,
    query: str,
    region: str,
    keys: tuple[Secret, Secret],
    now: datetime.datetime,
) -> dict[str, str]:
    """The headers of a GET without a body, signed."""
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    own = {"host": authority, "x-amz-content-sha256": NOTHING, "x-amz-date": moment}
    listed = "".join(f"{name}:{value}\n" for name, value in own.items())
    asked = "\n".join(["GET", path, query, listed, ";".join(own), NOTHING])
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(asked.encode()).hexdigest()]
    )
    name, made = keys[0].reveal(), f"AWS4{keys[1].reveal()}".encode()
    for part in (day, region, "s3", "aws4_request"):
        made = hmac.digest(made, part.encode(), "sha256")
    signature = hmac.digest(made, text.encode(), "sha256").hex()
    told = f"Credential={name}/{scope}, SignedHeaders={';'.join(own)}, Signature={signature}"
    return {**own, "Authorization": f"AWS4-HMAC-SHA256 {told}"}
