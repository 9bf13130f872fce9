"""Requests of the forms by which holes in an object store were used: no door passes them on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import Stack

TOP = Path(__file__).parents[2]

ASK = """
import json, ssl, sys, urllib.error, urllib.request
target, headers, method = json.load(sys.stdin)
request = urllib.request.Request(target, headers=headers, method=method)
try:
    print(urllib.request.urlopen(request, context=ssl._create_unverified_context()).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
FORMS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("/x?X-Amz-Credential=someone/20260101/us-east-1/s3/aws4_request", {}, "PUT"),
    ("/x?a=b&x-amz-%43redential=someone", {}, "PUT"),
    ("/x?X%2DAmz-Credential", {}, "PUT"),
    ("/%78/?a=b&select-type=2", {}, "POST"),
    ("/x", {"Authorization": "AWS4-HMAC-SHA256 Credential=someone/x, SignedHeaders=host"}, "PUT"),
    ("/x", {"Authorization": "aws someone:x"}, "GET"),
    ("/x", {"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, "PUT"),
    ("/x", {"X-Amz-Meta-Snowball-Auto-Extract": "true"}, "PUT"),
    ("/x", {"X-Minio-Replication-Server-Side-Encryption-Sealed-Key": "x"}, "PUT"),
    ("/x", {"X-Minio-Replication-Server-Side-Encryption-Iv": "x"}, "PUT"),
    ("/x", {"X-Minio-Source-Replication-Request": "true"}, "PUT"),
    ("/x", {"X-Minio-Source-Mtime": "2000-01-01T00:00:00Z"}, "PUT"),
    ("/x", {"X-Amz-Copy-Source": "/a/b"}, "PUT"),
    ("/x", {"X-Minio-Force-Delete": "true"}, "DELETE"),
)


OTHERS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("/x?credential=1&select=2", {"X-Amz": "y"}, "GET"),
    (
        "/x?name=X-Amz-Credential%3D1&filter%5Ba%5D=1",
        {"Authorization": "Basic YXdzOmF3cw=="},
        "GET",
    ),
)
HTTP2 = """
import json, ssl, sys
sys.path.insert(0, sys.argv[1])
from tests import http2
port, (target, headers, method) = json.load(sys.stdin)
context = ssl._create_unverified_context()
headers = {name.lower(): f" {value}" for name, value in headers.items()}
print(http2.ask(("127.0.0.1", port), f"127.0.0.1:{port}", context, method, target, headers, b""))
"""


def ask(stack: Stack, port: int, form: tuple[str, dict[str, str], str]) -> int:
    path, headers, method = form
    said = json.dumps([f"https://127.0.0.1:{port}{path}", headers, method])
    return int(stack.host.run(["python3", "-c", ASK], timeout=30, text=said))


def ask_by_http2(stack: Stack, port: int, form: tuple[str, dict[str, str], str]) -> int:
    """The same by HTTP/2, with a space before each value."""
    command = [sys.executable, "-c", HTTP2, str(TOP)]
    return int(stack.host.beside(command, timeout=30, text=json.dumps([port, form])))


@pytest.mark.parametrize("port", [8444, 8445])
def test_request_of_a_stores_form_is_refused_and_others_are_not(stack: Stack, port: int) -> None:
    for way in (ask, ask_by_http2):
        assert [way(stack, port, form) for form in FORMS] == [400] * len(FORMS)
        assert 400 not in [way(stack, port, form) for form in OTHERS]
