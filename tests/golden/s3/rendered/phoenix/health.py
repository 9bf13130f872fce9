"""Healthy is: the server reaches its database, and answers over verified TLS."""

import ssl
import urllib.request

urllib.request.urlopen(
    "https://phoenix.svc.closed.internal:6006/readyz",
    timeout=7,
    context=ssl.create_default_context(cafile="/run/secrets/root.crt"),
).read()
