"""The form of the site's own S3 in site.toml: each key by itself, and what goes together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bundle.errors import Problem

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
ENDPOINT = re.compile(rf"https://((?:{LABEL}\.)+(?=[a-z0-9-]*[a-z]){LABEL})(?::(\d{{1,5}}))?\Z")
NEEDED = ("endpoint", "key", "secret", "ca")
BUCKETS = ("bucket_mlflow", "bucket_exports", "bucket_backups")


def bucket_problem(value: str) -> str:
    """Why `value` is not the name of a bucket; empty when it is."""
    return "" if BUCKET.match(value) else f"{value!r} is not a bucket's name"


def region_problem(value: str) -> str:
    """Why `value` is not a region; empty when it is."""
    return "" if REGION.match(value) else f"{value!r} is not a region"


def endpoint_problem(value: str) -> str:
    """Why `value` is not the address of an S3 server; empty when it is, or there is none."""
    found = ENDPOINT.match(value)
    if not value or (found and 0 < int(found[2] or 443) < 65536):
        return ""
    return f"{value!r} is not https://host or https://host:port, with a name in lower case of two labels or more"


def pem_problem(value: str) -> str:
    """Why `value` is not a certificate as PEM text; empty when it is, or there is none."""
    begins, ends = (f"-----{word} CERTIFICATE-----" for word in ("BEGIN", "END"))
    text = value.strip()
    if text and not (text.startswith(begins) and text.endswith(ends)):
        return f"it is not PEM text, from {begins} to {ends}"
    return ""


def s3_problems(where: str, values: Mapping[str, Any], own: Mapping[str, Any]) -> list[Problem]:
    """What of the site's own S3 is given without the rest; `own` are the defaults."""
    missing = [f"s3.{name}" for name in NEEDED if not values[f"s3_{name}"]]
    buckets = [values[f"s3_{name}"] for name in BUCKETS]
    found = []
    if 0 < len(missing) < len(NEEDED):
        hint = "Set all of them for the site's own S3, or none for the MinIO of this stack."
        message = f"{', '.join(missing)} must be given too"
        found.append(Problem(where=where, message=message, hint=hint))
    if len(set(map(str, buckets))) < len(buckets):
        message = f"the buckets {', '.join(map(str, buckets))} are not three different ones"
        found.append(Problem(where=where, message=message, hint="Give each its own bucket."))
    if len(missing) == len(NEEDED) and buckets != [own[f"s3_{name}"] for name in BUCKETS]:
        message = "the names of the buckets are the product's own as long as s3.endpoint is empty"
        found.append(Problem(where=where, message=message, hint="Leave s3.bucket_… out."))
    if values["s3_expose"] and not missing:
        message = "expose is a door to the MinIO of this stack, which does not run with s3.endpoint"
        found.append(Problem(where=where, message=message, hint="Leave one of the two out."))
    return found + ([] if missing else _way_problems(where, values))


def _way_problems(where: str, values: Mapping[str, Any]) -> list[Problem]:
    """The endpoint is reached by the forwarder, which must not ask for a name that leads to itself."""
    found = ENDPOINT.match(str(values["s3_endpoint"]))
    if not found:
        return []  # told already
    authority = f"{found[1]}:{found[2] or 443}"
    if any(str(entry).startswith(f"{authority}=") for entry in values["allow"]):
        return []
    message = f"{values['s3_endpoint']} is not in allow with its address"
    hint = f'Add "{authority}=ADDRESS" to allow: the forwarder is the only way there.'
    return [Problem(where=where, message=message, hint=hint)]
