"""Healthy is: the server reaches its database, and answers over verified TLS."""

import socket
import ssl
import urllib.request

# This container's own server, not that of another one of the same name.
addresses = socket.getaddrinfo
socket.getaddrinfo = lambda _host, *rest, **more: addresses("127.0.0.1", *rest, **more)

urllib.request.urlopen(
    "https://phoenix.svc.closed.internal:6006/readyz",
    timeout=7,
    context=ssl.create_default_context(cafile="/run/secrets/root.crt"),
).read()
