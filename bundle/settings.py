"""Every key that an operator may write, in one table a file: defaults, help, checks, the sample, the reference page."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bundle.references import reference_problem
from bundle.siteform import bucket_problem, endpoint_problem, pem_problem, region_problem

REGISTRY = re.compile(
    r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(:\d{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*\Z"
)
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
LONGEST_NAME = 24
PROBE_PORT = 8
"""Where the forwarder answers its own probe."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of a file: `check` returns what is wrong with a value of the right type, or nothing.

    A default that is a tuple takes a list of texts, or a table of texts (`name = "value"` is the entry "name=value");
    `check` is asked about each entry then. `secret`: the value refers to a secret, and is told nowhere.
    """

    key: str
    default: Any
    help: str
    check: Callable[[Any], str] = lambda _: ""
    secret: bool = False

    @property
    def attribute(self) -> str:
        """The key as a name in Python."""
        return self.key.replace(".", "_")


def one_of(*values: str | int) -> Callable[[Any], str]:
    """A check: the value is one of `values`."""
    known = ", ".join(map(str, values))
    return lambda value: "" if value in values else f"{value!r} is not one of {known}"


def between(low: int, high: int) -> Callable[[int], str]:
    """A check: the number lies in low..high."""
    return lambda value: "" if low <= value <= high else f"{value} is not between {low} and {high}"


def domain_problem(value: str) -> str:
    """Why `value` cannot be the domain of certificates and container names; empty when it can."""
    if not value.isascii():
        return f"{value!r} is not ASCII; write an internationalised name in its xn-- form"
    if value != value.lower():
        return f"{value!r} has upper case letters; write {value.lower()!r}"
    labels = value.split(".")
    if len(labels) < 2:
        return (
            f"{value!r} has a single label; certificates need at least two, like {value}.internal"
        )
    bad = [label for label in labels if not LABEL.match(label)]
    if bad:
        return f"{value!r} has the label {bad[0]!r}; a label has a-z, 0-9 and hyphens inside, 1 to 63 of them"
    return "" if len(value) <= 200 else f"{value!r} is longer than 200 characters"


def address_problem(value: str) -> str:
    """Why `value` is not an address to listen on; empty when it is."""
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return f"{value!r} is not an IPv4 address, like 127.0.0.1 or 10.0.0.5"
    return ""


def name_problem(name: str) -> str:
    """Why `name` cannot be that of an extra (it becomes part of image, container and user names); empty when it can."""
    if NAME.match(name) and len(name) <= LONGEST_NAME:
        return ""
    return f"{name!r} cannot be a name: use 1 to {LONGEST_NAME} of a-z and 0-9, with single hyphens inside"


def named(entry: str) -> tuple[str, str]:
    """The entry NAME=VALUE in two; without a name the first is empty (a path may have a = further on)."""
    name, equals, value = entry.partition("=")
    return (name.strip(), value.strip()) if equals and "/" not in name else ("", entry.strip())


def image_problem(entry: str) -> str:
    """What is wrong with an entry of extras.images; empty when nothing is."""
    name, reference = named(entry)
    if not name or not reference:
        return f"{entry!r} is not NAME=REFERENCE"
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,400}\Z", reference):
        return f"{reference!r} is not the reference of an image"
    return name_problem(name)


def file_problem(entry: str) -> str:
    """What is wrong with an entry of extras.files; empty when nothing is."""
    name, path = named(entry)
    if not path:
        return f"{entry!r} names no file"
    return name_problem(name or path.rstrip("/").rpartition("/")[2])


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A place outside that the stack may go to; `address` is empty where this host's DNS knows the name."""

    name: str
    port: int
    address: str = ""

    @property
    def target(self) -> str:
        """Where the forwarder connects to."""
        return f"{self.address or self.name}:{self.port}"


def allowed(entry: str) -> Allowed:
    """An entry of `allow`, which `allowed_problem` has found good."""
    place, _, address = entry.partition("=")
    name, _, port = place.rpartition(":")
    return Allowed(name=name, port=int(port), address=address)


def allowed_problem(entry: str) -> str:
    """What is wrong with an entry of `allow`; empty when nothing is."""
    place, equals, address = entry.partition("=")
    name, colon, port = place.rpartition(":")
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        return f"{entry!r} is not host:port"
    if re.fullmatch(r"[0-9.]+|\[.*\]", name):
        return f"{entry!r} has an address for a name; write NAME:{port}={name}, and use that name"
    if not all(LABEL.match(label) for label in name.split(".")) or len(name) > 200:
        return f"{name!r} is not the name of one host in lower case"
    return address_problem(address).replace("to listen on", "") if equals else ""


def allow_problems(entries: Any, domain: str) -> list[str]:
    """What is wrong with the allowed places together."""
    given = entries if isinstance(entries, tuple) else ()  # what is no list was told already
    good = [entry for entry in given if isinstance(entry, str) and not allowed_problem(entry)]
    places = [allowed(entry) for entry in good]
    pairs = [f"{place.name}:{place.port}" for place in places]
    told = [f"{pair} is there twice" for pair in dict.fromkeys(pairs) if pairs.count(pair) > 1]
    own = [p.name for p in places if p.name == domain or p.name.endswith(f".svc.{domain}")]
    told += [f"{name} is a name of this stack" for name in dict.fromkeys(own)]
    return told + [f"port {PROBE_PORT} is the forwarder's own"] * any(
        place.port == PROBE_PORT for place in places
    )


def registry_problem(value: str) -> str:
    """Why `value` does not name a registry; empty when it does, or names none."""
    if not value or REGISTRY.match(value):
        return ""
    return f"{value!r} is not host:port or host:port/prefix in lower case, without https://"


def path_problem(value: str) -> str:
    """Why `value` cannot be the path of a file; empty when it can, or there is none."""
    return "" if not value or value.startswith("/") else f"{value!r} is not an absolute path"


def https_problem(value: str) -> str:
    """Why `value` is not the address of an identity provider's discovery; empty when it is, or there is none."""
    if not value or re.match(r"https://[a-z0-9.-]+(:\d{1,5})?/[!-~]*\Z", value):
        return ""
    return f"{value!r} is not like https://idp.example.internal/.well-known/openid-configuration"


def role_problem(entry: str) -> str:
    """What is wrong with an entry of oidc.roles; empty when nothing is."""
    theirs, ours = named(entry)
    if theirs and ours in ("viewer", "editor", "admin") and not {",", ":"} & set(theirs):
        return ""
    return f"{entry!r} is not THEIRS=ROLE, where ROLE is viewer, editor or admin"


def group_problem(entry: str) -> str:
    """What is wrong with an entry of oidc.groups; empty when nothing is."""
    return "" if entry.strip() and "," not in entry else f"{entry!r} cannot be a group"


def word_problem(entry: str) -> str:
    """Why `entry` cannot be a word of a command; empty when it can."""
    return "" if entry and "\0" not in entry else "a word of the command is empty"


def default_domain() -> str:
    """`<host>.internal`, with what a host name may have and a certificate may not made into hyphens."""
    label = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:63]
    return f"{label or 'tracking'}.internal"


SITE = (
    Setting(
        key="domain",
        default="",
        help="the name under which the stack is reached; empty: <host>.internal",
    ),
    Setting(
        key="profile",
        default="dev",
        help='"prod": install refuses what is unsafe, all at once, see docs/secrets.md; "dev": a first look',
        check=one_of("dev", "prod"),
    ),
    Setting(key="organisation", default="", help="shown on the portal; any text"),
    Setting(
        key="layout",
        default="ports",
        help='"ports": one name, a port each; "names": mlflow.<domain>, phoenix.<domain>, one port',
        check=one_of("ports", "names"),
    ),
    Setting(
        key="bind",
        default="127.0.0.1",
        help="the address to listen on; 127.0.0.1: this host only, 0.0.0.0 or one of the host's: colleagues too",
        check=address_problem,
    ),
    Setting(
        key="ports.portal",
        default=8443,
        help='portal (layout "names": everything)',
        check=between(1, 65535),
    ),
    Setting(
        key="ports.mlflow", default=8444, help='MLflow (layout "ports")', check=between(1, 65535)
    ),
    Setting(
        key="ports.phoenix", default=8445, help='Phoenix (layout "ports")', check=between(1, 65535)
    ),
    Setting(
        key="ports.s3",
        default=8446,
        help='the object store (layout "ports", only with s3.expose)',
        check=between(1, 65535),
    ),
    Setting(
        key="allow",
        default=(),
        help='the only ways out, "host:port" each, or "host:port=address" for a name that the DNS does not know;'
        " through one forwarder, see docs/network.md",
        check=allowed_problem,
    ),
    Setting(
        key="mlflow.experiment",
        default="evalvault",
        help="the experiment that clients log to by default",
        check=lambda value: "" if value.strip() else "the name is empty",
    ),
    Setting(
        key="mlflow.workers", default=2, help="server processes of MLflow", check=between(1, 32)
    ),
    Setting(
        key="memory.postgres_mb", default=512, help="memory limit, MiB", check=between(256, 262144)
    ),
    Setting(
        key="memory.minio_mb", default=1024, help="memory limit, MiB", check=between(512, 262144)
    ),
    Setting(
        key="memory.mlflow_mb", default=1536, help="memory limit, MiB", check=between(1024, 262144)
    ),
    Setting(
        key="memory.phoenix_mb", default=1536, help="memory limit, MiB", check=between(768, 262144)
    ),
    Setting(
        key="memory.gateway_mb", default=128, help="memory limit, MiB", check=between(64, 8192)
    ),
    Setting(
        key="retention.phoenix_days",
        default=90,
        help="traces older than this are deleted; 0: never",
        check=between(0, 36500),
    ),
    Setting(
        key="retention.hold",
        default="",
        help="why nothing may be deleted now (a legal hold): while it stands, points and files of the audit log stay",
    ),
    Setting(
        key="registry.address",
        default="",
        help="the site's own image registry, host:port[/prefix]: install pushes the images there and runs them"
        " from there; empty: straight into the engine. The engine must trust it too, by"
        " /etc/docker/certs.d/<host:port>/ca.crt",
        check=registry_problem,
    ),
    Setting(key="registry.user", default="", help="who pushes and pulls there; empty: nobody"),
    Setting(
        key="registry.password",
        default="",
        help="where that user's password is, never itself: secret://file/PATH, secret://env/NAME or"
        " secret://command/PATH ARGUMENTS, see docs/secrets.md",
        check=reference_problem,
        secret=True,
    ),
    Setting(
        key="registry.password_file",
        default="",
        help="the same as secret://file with this absolute path",
        check=path_problem,
    ),
    Setting(
        key="registry.ca",
        default="",
        help="the CA that signed the registry's certificate, a PEM file, absolute path; empty: the host's own CAs",
        check=path_problem,
    ),
    Setting(
        key="oidc.url",
        default="",
        help="single sign-on to Phoenix: the discovery document of the identity provider, see docs/sso.md; empty: none."
        " Its host belongs in allow",
        check=https_problem,
    ),
    Setting(key="oidc.client", default="", help="the client's id there"),
    Setting(
        key="oidc.secret",
        default="",
        help="where the client's secret is, never itself: secret://file/PATH, secret://env/NAME or"
        " secret://command/PATH ARGUMENTS",
        check=reference_problem,
        secret=True,
    ),
    Setting(
        key="oidc.ca",
        default="",
        help="the CA that signed the identity provider's certificate, a PEM file, absolute path",
        check=path_problem,
    ),
    Setting(key="oidc.title", default="SSO", help="what the button of the login page is called"),
    Setting(
        key="oidc.scopes",
        default=(),
        help="scopes beside openid, email and profile, as groups",
        check=lambda entry: "" if entry.split() == [entry] else f"{entry!r} is not a scope",
    ),
    Setting(
        key="oidc.sign_up",
        default=True,
        help="whoever the identity provider lets in gets an account at the first login",
    ),
    Setting(
        key="oidc.groups_path",
        default="",
        help="where a person's groups stand in the claims, a JMESPath; goes with oidc.groups",
    ),
    Setting(
        key="oidc.groups",
        default=(),
        help="only people of one of these groups get in; empty: all",
        check=group_problem,
    ),
    Setting(
        key="oidc.role_path",
        default="",
        help="where a person's role stands in the claims, a JMESPath; empty: viewer at first, changed in Phoenix",
    ),
    Setting(
        key="oidc.roles",
        default=(),
        help='roles by the value found there, as {leads = "admin", staff = "editor"}; whoever has none is refused',
        check=role_problem,
    ),
    Setting(
        key="audit.folder",
        default="",
        help="where the audit log's head is copied each minute: a folder of another host, mounted here, absolute path",
        check=path_problem,
    ),
    Setting(
        key="audit.command",
        default=(),
        help="a command that takes the head to another host, word by word; the head is its standard input, one line",
        check=word_problem,
    ),
    Setting(
        key="audit.keep_days",
        default=0,
        help="files of the audit log whose lines are all older than this are deleted; 0: never",
        check=between(0, 36500),
    ),
    Setting(
        key="backup.folder",
        default="",
        help="where recovery points lie: a second disk or a mounted share, absolute path; empty: backups/ in the root."
        " See docs/backup.md",
        check=path_problem,
    ),
    Setting(
        key="backup.archive_s",
        default=60,
        help="every change of the databases is in the backup after this many seconds at the latest",
        check=between(5, 3600),
    ),
    Setting(
        key="backup.every_minutes",
        default=5,
        help="a recovery point over databases and objects is made this often",
        check=one_of(1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60),
    ),
    Setting(
        key="backup.database_minutes",
        default=60,
        help="a point brings an incremental backup of the databases when the last one is older",
        check=between(5, 10080),
    ),
    Setting(
        key="backup.full_days",
        default=7,
        help="and a full one, of databases and objects, when the last full one is older",
        check=between(1, 365),
    ),
    Setting(
        key="backup.keep_days",
        default=14,
        help="points are kept this long; the last proven one always",
        check=between(1, 3650),
    ),
    Setting(
        key="backup.copy_to",
        default="",
        help="points are copied there too: a folder of another host, mounted here, absolute path",
        check=path_problem,
    ),
    Setting(
        key="alert.command",
        default=(),
        help="a command that is run when a job fails, word by word; its standard input says which and why",
        check=word_problem,
    ),
    Setting(
        key="s3.endpoint",
        default="",
        help="the site's own S3 in MinIO's place, https://host[:port]; empty: this stack's MinIO."
        " It must be in allow with its address. See docs/object-store.md",
        check=endpoint_problem,
    ),
    Setting(
        key="s3.expose",
        default=False,
        help="a door of the gateway to MinIO's S3 API, for clients with one of its keys. See docs/object-store.md",
    ),
    Setting(key="s3.region", default="us-east-1", help="its region", check=region_problem),
    Setting(
        key="s3.key",
        default="",
        help="where the access key's name is, never itself: secret://file/PATH and so on, see docs/secrets.md",
        check=reference_problem,
        secret=True,
    ),
    Setting(
        key="s3.secret",
        default="",
        help="where the secret key is, in the same way",
        check=reference_problem,
        secret=True,
    ),
    Setting(
        key="s3.ca",
        default="",
        help="the CA that signed its certificate, as PEM text between three quotation marks",
        check=pem_problem,
    ),
    Setting(
        key="s3.bucket_mlflow",
        default="mlflow-artifacts",
        help="the bucket of MLflow's artifacts",
        check=bucket_problem,
    ),
    Setting(
        key="s3.bucket_exports",
        default="phoenix-exports",
        help="the bucket of exports from Phoenix",
        check=bucket_problem,
    ),
    Setting(
        key="s3.bucket_backups",
        default="backups",
        help="the bucket of backups",
        check=bucket_problem,
    ),
)

BUNDLE = (
    Setting(
        key="base.source",
        default="debootstrap",
        help='"debootstrap": the base image is made from Debian packages; "registry": it is pulled, see base.image',
        check=one_of("debootstrap", "registry"),
    ),
    Setting(
        key="base.image",
        default="",
        help='with base.source = "registry": a Debian 13 image with its digest, like registry.example/debian@sha256:…',
        check=lambda value: (
            ""
            if not value or re.search(r"@sha256:[0-9a-f]{64}$", value)
            else f"{value!r} has no digest; write NAME@sha256:<64 hexadecimal digits>"
        ),
    ),
    Setting(
        key="mirrors.debian",
        default="",
        help="the Debian mirror; empty: the one that this host uses",
    ),
    Setting(
        key="cache",
        default="",
        help="where downloads and layers are kept (of layers those used last, 4 GiB); empty: ~/.cache/tracking-bundle",
    ),
    Setting(
        key="build.timeout_s",
        default=1800,
        help="limit for building one image, seconds",
        check=between(60, 86400),
    ),
    Setting(
        key="compression.level",
        default=4,
        help="zstd level of the layers: more is smaller and slower",
        check=between(1, 19),
    ),
    Setting(
        key="extras.images",
        default=(),
        help='images of the site, "NAME=REFERENCE": one that this engine has, or host/image@sha256:… to be pulled',
        check=image_problem,
    ),
    Setting(
        key="extras.files",
        default=(),
        help='files and folders of the site (a model cache), "PATH" or "NAME=PATH" each',
        check=file_problem,
    ),
    Setting(
        key="extras.wheels",
        default=(),
        help="wheels of the site: files, or folders of them",
        check=lambda entry: "" if entry.strip() else "the path is empty",
    ),
    Setting(
        key="extras.compose",
        default="",
        help="a compose file whose services join the stack under its rules, see docs/extras.md",
    ),
    Setting(
        key="extras.allowed",
        default="",
        help="what the secrets scan finds in the site's own and somebody has looked at; a file like leaks/allowed.toml",
    ),
    Setting(
        key="extras.limit_mb",
        default=20000,
        help="files and wheels of the site may have this much in all, MB: a guard against the wrong folder",
        check=between(1, 1000000),
    ),
)


def toml_value(value: Any) -> str:
    """A default as TOML text."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return (
        str(value)
        if isinstance(value, int)
        else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


def sample(settings: tuple[Setting, ...], title: str) -> str:
    """The commented sample file: every key with its default."""
    lines, section = [f"# {title}: every key has a default; uncomment what you change."], ""
    for setting in sorted(settings, key=lambda s: s.key.partition(".")[0] if "." in s.key else ""):
        head, dot, name = setting.key.partition(".")
        if dot and head != section:
            section = head
            lines += ["", f"[{section}]"]
        lines += ["", f"# {setting.help}", f"# {name or head} = {toml_value(setting.default)}"]
    return "\n".join(lines) + "\n"


def reference(settings: tuple[Setting, ...], title: str) -> str:
    """The reference page: a table of every key."""
    rows = [f"| `{s.key}` | `{toml_value(s.default)}` | {s.help} |" for s in settings]
    return (
        "\n".join([f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |", *rows])
        + "\n"
    )


def reference_page() -> str:
    """docs/configuration.md: every key of both files."""
    head = (
        "# Configuration\n\nMade from `bundle/settings.py` by `scripts/test unit --update`; a test keeps it so.\n"
        "Every key has a default, both files may be absent, and all problems of a file are told at once.\n"
    )
    site = reference(SITE, "site.toml: the closed side, in the installation's root")
    return "\n".join([head, site, reference(BUNDLE, "bundle.toml: the connected side")])
