"""A PUT in signed chunks (AWS signature V4): signed here, since no client signs what tests ask."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timezone

KIND = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
NOTHING = hashlib.sha256(b"").hexdigest()


def put(
    authority: str, path: str, query: str, who: tuple[str, str], region: str, data: bytes
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of such a request, signed by `who`; `query` as it is to be signed."""
    moment = datetime.now(timezone.utc)
    stamp, scope = f"{moment:%Y%m%dT%H%M%SZ}", f"{moment:%Y%m%d}/{region}/s3/aws4_request"
    key = f"AWS4{who[1]}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")

    def sign(kind: str, *lines: str) -> str:
        return hmac.digest(key, "\n".join([kind, stamp, scope, *lines]).encode(), "sha256").hex()

    headers = {
        "host": authority,
        "x-amz-content-sha256": KIND,
        "x-amz-date": stamp,
        "x-amz-decoded-content-length": str(len(data)),
    }
    listed, names = "".join(f"{k}:{v}\n" for k, v in headers.items()), ";".join(headers)
    whole = "\n".join(["PUT", path, query, listed, names, KIND])
    signature = last = sign("AWS4-HMAC-SHA256", hashlib.sha256(whole.encode()).hexdigest())
    body = b""
    for chunk in (data, b""):
        last = sign("AWS4-HMAC-SHA256-PAYLOAD", last, NOTHING, hashlib.sha256(chunk).hexdigest())
        body += f"{len(chunk):x};chunk-signature={last}\r\n".encode() + chunk + b"\r\n"
    del headers["host"]
    told = f"Credential={who[0]}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {told}"}, body
