"""Names, addresses and connection texts that services share."""

from __future__ import annotations

from bundle.config import SiteConfig

ROOT_CA = "/run/secrets/root.crt"
DOORS = ("portal", "mlflow", "phoenix")
"""The doors that every site has."""
STACK = "tracking-bundle"
"""The account of MLflow by which the stack itself looks and administers; no person uses it."""
CLIENTS_CA = "/run/secrets/clients.crt"
"""What is trusted at the doors: our root, or that of the site's own certificate."""
HOST_OF_PAGE = "host-of-this-page.invalid"


def internal(site: SiteConfig, service: str) -> str:
    """The name of `service` on the internal networks; certificates carry it, so a bare service name will not do."""
    return f"{service}.svc.{site.domain}"


def public(site: SiteConfig, service: str) -> str:
    """The name under which users reach `service` (one of `doors`)."""
    return (
        site.domain if site.layout == "ports" or service == "portal" else f"{service}.{site.domain}"
    )


def port(site: SiteConfig, service: str) -> int:
    """The port under which users reach `service`."""
    if site.layout == "names":
        return site.ports_portal
    return {
        "portal": site.ports_portal,
        "mlflow": site.ports_mlflow,
        "phoenix": site.ports_phoenix,
        "s3": site.ports_s3,
    }[service]


def doors(site: SiteConfig) -> tuple[str, ...]:
    """What is reached through the gateway; the object store only where the site says so."""
    return (*DOORS, "s3") if site.s3_expose else DOORS


def url(site: SiteConfig, service: str, host: str = "") -> str:
    """The URL under which users reach `service`, by `host` (an address) instead of its name when given."""
    number = port(site, service)
    return f"https://{host or public(site, service)}" + ("" if number == 443 else f":{number}")


def portal_url(site: SiteConfig, service: str) -> str:
    """The URL of `service` on the portal's page: with one name for all, the host by which the page was asked for.

    The gateway puts that host in the place of HOST_OF_PAGE, so that a page opened by address links to addresses.
    """
    return url(site, service, "" if site.layout == "names" else HOST_OF_PAGE)


def door_hosts(site: SiteConfig, service: str) -> tuple[str, ...]:
    """Every host that may stand in a request for `service`: its name, and with one name a host's own address.

    In production this host itself is no client by its loopback address, unless that is all that it listens on.
    """
    own = (public(site, service),)
    loopback = set[str]() if site.profile == "prod" else {"127.0.0.1"}
    addresses = loopback | {site.bind} - {"0.0.0.0"}
    return own + tuple(sorted(addresses)) if site.layout == "ports" else own


def database_url(site: SiteConfig, driver: str, database: str, role: str = "") -> str:
    """A URL without a password which verifies the server's name and chain; `role`: if not named as the database."""
    server = f"{internal(site, 'postgres')}:5432"
    return f"{driver}://{role or database}@{server}/{database}?sslmode=verify-full&sslrootcert={ROOT_CA}"


def provider(site: SiteConfig) -> str:
    """The origin of the identity provider, for the policy of pages: Phoenix' login page may lead there."""
    return " https://" + site.oidc_url.split("/")[2] if site.oidc_url else ""
