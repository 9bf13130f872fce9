"""Requests of the forms by which holes in an object store were used: no door passes them on."""

from __future__ import annotations

import json

import pytest

from tests.e2e.stack import Stack

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
    ("/x?a=b&select-type=2", {}, "POST"),
    ("/x", {"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, "PUT"),
    ("/x", {"X-Amz-Meta-Snowball-Auto-Extract": "true"}, "PUT"),
    ("/x", {"X-Minio-Replication-Server-Side-Encryption-Sealed-Key": "x"}, "PUT"),
    ("/x", {"X-Minio-Source-Replication-Request": "true"}, "PUT"),
    ("/x", {"X-Minio-Force-Delete": "true"}, "DELETE"),
)


def ask(stack: Stack, port: int, form: tuple[str, dict[str, str], str]) -> int:
    path, headers, method = form
    said = json.dumps([f"https://127.0.0.1:{port}{path}", headers, method])
    return int(stack.host.run(["python3", "-c", ASK], timeout=30, text=said))


@pytest.mark.parametrize("port", [8444, 8445])
def test_request_of_a_stores_form_is_refused_and_others_are_not(stack: Stack, port: int) -> None:
    assert [ask(stack, port, form) for form in FORMS] == [400] * len(FORMS)
    assert ask(stack, port, ("/x?credential=1&select=2", {"X-Amz": "y"}, "GET")) != 400
