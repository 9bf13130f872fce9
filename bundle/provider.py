"""The keys of the site's identity provider together: which need one another, and that the stack may go there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundle.settings import allowed, allowed_problem, https_problem

TOGETHER = (
    ("oidc.url", "oidc.client", "oidc.secret", "oidc.ca"),
    ("oidc.groups", "oidc.groups_path"),
    ("oidc.roles", "oidc.role_path"),
)
HTTPS = 443


def provider_problems(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Everything that is wrong with them: the key, what, and what to do."""
    found = []
    for keys in TOGETHER:
        missing = [key for key in keys if not values[key.replace(".", "_")]]
        if len(missing) not in (0, len(keys)):
            hint = f"Set {', '.join(missing)} too, or none of them."
            found.append((keys[0], f"{', '.join(keys)} go together", hint))
    url, entries = values["oidc_url"], values["allow"]
    if url and isinstance(url, str) and not https_problem(url) and isinstance(entries, tuple):
        host, _, port = url.split("/")[2].partition(":")
        place = (host, int(port or HTTPS))
        good = [entry for entry in entries if isinstance(entry, str) and not allowed_problem(entry)]
        if place not in [(one.name, one.port) for one in map(allowed, good)]:
            hint = f'Add "{place[0]}:{place[1]}" to allow: the stack reaches nothing else outside.'
            found.append(("oidc.url", f"{place[0]}:{place[1]} is not in allow", hint))
    return found
