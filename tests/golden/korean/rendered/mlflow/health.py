"""Healthy is: a search by an authenticated user succeeds, so both databases answer behind verified TLS."""

import base64
import pathlib
import socket
import ssl
import urllib.request

# This container's own server, not that of another one of the same name.
addresses = socket.getaddrinfo
socket.getaddrinfo = lambda _host, *rest, **more: addresses("127.0.0.1", *rest, **more)

password = pathlib.Path("/run/secrets/MLFLOW_AUTH_ADMIN_PASSWORD").read_text().strip()
token = base64.b64encode(f"tracking-bundle:{password}".encode()).decode()
urllib.request.urlopen(
    urllib.request.Request(
        "https://mlflow.svc.closed.internal:5000/api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Authorization": f"Basic {token}"},
    ),
    timeout=7,
    context=ssl.create_default_context(cafile="/run/secrets/root.crt"),
).read()
