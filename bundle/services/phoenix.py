"""Phoenix: traces of every evaluation, in its own database; OTLP over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping

from bundle.config import SiteConfig
from bundle.model import Database, Mount, Secret, SecretSpec, Service
from bundle.services import forward, s3
from bundle.services.names import database_url, door_hosts, internal, port, provider, url

IDP = "site"
"""What Phoenix calls the site's identity provider; it is part of the redirect address that is registered there."""
IDP_CA = "idp.crt"
IDP_SECRET = f"PHOENIX_OAUTH2_{IDP.upper()}_CLIENT_SECRET"
ROLES = {"viewer": "VIEWER", "editor": "MEMBER", "admin": "ADMIN"}


def environment(site: SiteConfig) -> dict[str, str]:
    """The server's settings; no secret is among them."""
    origins = [
        f"https://{host}:{port(site, 'phoenix')}".removesuffix(":443")
        for host in door_hosts(site, "phoenix")
    ]
    # A browser comes back from the identity provider with its address as the referer.
    origins += provider(site).split()
    return {
        "PHOENIX_SQL_DATABASE_URL": database_url(site, "postgresql", "phoenix"),
        "PGPASSFILE": "/run/secrets/pgpass",
        "PHOENIX_HOST": "0.0.0.0",
        "PHOENIX_PORT": "6006",
        "PHOENIX_GRPC_PORT": "4317",
        "PHOENIX_WORKING_DIR": "/tmp/phoenix",
        "HOME": "/tmp",
        "PHOENIX_TLS_ENABLED": "true",
        "PHOENIX_TLS_CERT_FILE": "/run/secrets/tls.crt",
        "PHOENIX_TLS_KEY_FILE": "/run/secrets/tls.key",
        "PHOENIX_ENABLE_AUTH": "true",
        "PHOENIX_ENABLE_STRONG_PASSWORD_POLICY": "true",
        # Each verify tries one well-known password: with five a few in a row would lock the administrator out.
        "PHOENIX_BRUTE_FORCE_LOGIN_PROTECTION_MAX_ATTEMPTS": "20",
        # It would count the gateway for one client; the gateway counts each client by itself.
        "PHOENIX_DISABLE_RATE_LIMIT": "true",
        "PHOENIX_USE_SECURE_COOKIES": "true",
        "PHOENIX_CSRF_TRUSTED_ORIGINS": ",".join(origins),
        "PHOENIX_ROOT_URL": url(site, "phoenix"),
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        "PHOENIX_ENABLE_MCP_SERVER": "false",
        "PHOENIX_ALLOWED_SANDBOX_PROVIDERS": "NONE",
        "PHOENIX_ALLOWED_PROVIDERS": "NONE",
        "PHOENIX_ENABLE_OAUTH2_AUTHORIZATION_SERVER": "false",
        "PHOENIX_DEFAULT_RETENTION_POLICY_DAYS": str(site.retention_phoenix_days),
        "PHOENIX_LOG_MIGRATIONS": "false",
    }


def single_sign_on(site: SiteConfig) -> dict[str, str]:
    """The settings for the site's identity provider; the client's secret is a file, and the password stays a way in."""
    if not site.oidc_url:
        return {}
    prefix = f"PHOENIX_OAUTH2_{IDP.upper()}_"
    roles = [entry.rpartition("=") for entry in site.oidc_roles]
    settings = {
        "CLIENT_ID": site.oidc_client,
        "OIDC_CONFIG_URL": site.oidc_url,
        "DISPLAY_NAME": site.oidc_title,
        "ALLOW_SIGN_UP": str(site.oidc_sign_up).lower(),
        "USE_PKCE": "true",
        "SCOPES": " ".join(site.oidc_scopes),
        "GROUPS_ATTRIBUTE_PATH": site.oidc_groups_path,
        "ALLOWED_GROUPS": ",".join(site.oidc_groups),
        "ROLE_ATTRIBUTE_PATH": site.oidc_role_path,
        "ROLE_MAPPING": ",".join(f"{theirs}:{ROLES[ours]}" for theirs, _, ours in roles),
        "ROLE_ATTRIBUTE_STRICT": "true" if site.oidc_roles else "",
    }
    found = {prefix + key: value for key, value in settings.items() if value}
    # What httpx trusts; Phoenix asks nobody else by it.
    return found | {"SSL_CERT_FILE": f"/run/secrets/{IDP_CA}"}


def service(site: SiteConfig) -> Service:
    """The trace server as `site` wants it."""
    database = internal(site, "postgres")

    def derive(store: Mapping[str, Secret]) -> dict[str, Secret]:
        return {
            "pgpass": Secret(f"{database}:5432:phoenix:phoenix:{store['DB_PHOENIX'].reveal()}\n")
        }

    return Service(
        name="phoenix",
        uid=10004,
        port=6006,
        memory_mb=site.memory_phoenix_mb,
        names=(internal(site, "phoenix"),),
        networks=("data", "app"),
        links=forward.links(site),
        health=("/opt/venv/bin/python", "-I", "/etc/phoenix/health.py"),
        mounts=(Mount(template="phoenix/health.py", target="/etc/phoenix/health.py"),),
        databases=(Database(name="phoenix", role="phoenix", owner="phoenix_owner"),),
        migration="migrate_phoenix",
        buckets=(s3.bucket(site.s3_bucket_exports, "exports"),),
        secrets=(
            SecretSpec(name="PHOENIX_SECRET", rotation="data"),
            SecretSpec(name="PHOENIX_ADMIN_SECRET"),
            SecretSpec(
                name="PHOENIX_DEFAULT_ADMIN_INITIAL_PASSWORD", kind="password", rotation="logout"
            ),
            SecretSpec(name="DB_PHOENIX", mounted=False),
            SecretSpec(name="DB_PHOENIX_OWNER", mounted=False),
            *s3.key_pair(site, "exports"),
        ),
        derive=derive,
        tmpfs=("/tmp",),
        needs=("postgres",),
        environment=environment(site) | single_sign_on(site),
    )
