"""What the operator wrote, as frozen values: one table of settings gives parsing, defaults, help, sample and reference.

The only reader of configuration files and of the environment. Every problem of a file is reported at once.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bundle.errors import ConfigError, Problem
from bundle.model import Layout

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)$")
SIZE = re.compile(r"(\d+)([kMG]?)$")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of a file: `check` returns what is wrong with a value of the right type, or nothing."""

    key: str
    default: Any
    help: str
    check: Callable[[Any], str] = lambda _: ""

    @property
    def attribute(self) -> str:
        """The key as a name in Python."""
        return self.key.replace(".", "_")


def one_of(*values: str) -> Callable[[str], str]:
    """A check: the value is one of `values`."""
    return lambda value: "" if value in values else f"{value!r} is not one of {', '.join(values)}"


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
        return f"{value!r} has a single label; certificates need at least two, like {value}.internal"
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


def default_domain() -> str:
    """`<host>.internal`, with what a host name may have and a certificate may not made into hyphens."""
    label = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:63]
    return f"{label or 'tracking'}.internal"


SITE = (
    Setting(key="domain", default="", help="the name under which the stack is reached; empty: <host>.internal"),
    Setting(key="organisation", default="", help="shown on the portal; any text"),
    Setting(
        key="layout",
        default="ports",
        help='"ports": one name, one port a tracker; "names": mlflow.<domain>, phoenix.<domain>, one port (needs a DNS)',
        check=one_of("ports", "names"),
    ),
    Setting(
        key="bind",
        default="127.0.0.1",
        help="the address to listen on; 127.0.0.1: this host only, 0.0.0.0 or one of the host's: colleagues too",
        check=address_problem,
    ),
    Setting(key="ports.portal", default=8443, help='portal (layout "names": everything)', check=between(1, 65535)),
    Setting(key="ports.mlflow", default=8444, help='MLflow (layout "ports")', check=between(1, 65535)),
    Setting(key="ports.phoenix", default=8445, help='Phoenix (layout "ports")', check=between(1, 65535)),
    Setting(
        key="mlflow.experiment",
        default="evalvault",
        help="the experiment that clients log to by default",
        check=lambda value: "" if value.strip() else "the name is empty",
    ),
    Setting(key="mlflow.workers", default=2, help="server processes of MLflow", check=between(1, 32)),
    Setting(key="memory.postgres_mb", default=512, help="memory limit, MiB", check=between(256, 262144)),
    Setting(key="memory.minio_mb", default=1024, help="memory limit, MiB", check=between(512, 262144)),
    Setting(key="memory.mlflow_mb", default=1536, help="memory limit, MiB", check=between(1024, 262144)),
    Setting(key="memory.phoenix_mb", default=1536, help="memory limit, MiB", check=between(768, 262144)),
    Setting(key="memory.gateway_mb", default=128, help="memory limit, MiB", check=between(64, 8192)),
    Setting(
        key="retention.phoenix_days", default=90, help="traces older than this are deleted; 0: never", check=between(0, 36500)
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
    Setting(key="mirrors.debian", default="", help="the Debian mirror; empty: the one that this host uses"),
    Setting(key="cache", default="", help="where downloads and layers are kept; empty: ~/.cache/tracking-bundle"),
    Setting(key="build.timeout_s", default=1800, help="limit for building one image, seconds", check=between(60, 86400)),
    Setting(
        key="compression.level",
        default=10,
        help="zstd level of the layers: more is smaller and slower",
        check=between(1, 19),
    ),
)


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """site.toml: what is only known on the closed side."""

    domain: str
    organisation: str
    layout: Layout
    bind: str
    ports_portal: int
    ports_mlflow: int
    ports_phoenix: int
    mlflow_experiment: str
    mlflow_workers: int
    memory_postgres_mb: int
    memory_minio_mb: int
    memory_mlflow_mb: int
    memory_phoenix_mb: int
    memory_gateway_mb: int
    retention_phoenix_days: int


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """bundle.toml: how the bundle is made."""

    base_source: Literal["debootstrap", "registry"]
    base_image: str
    mirrors_debian: str
    cache: Path
    build_timeout_s: int
    compression_level: int


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _key_problem(where: str, key: str, settings: Mapping[str, Setting]) -> Problem:
    near = difflib.get_close_matches(key, settings, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(settings)}."
    return Problem(where=f"{where}: {key}", message="unknown key", hint=hint)


def _value_problem(where: str, setting: Setting, value: Any) -> Problem | None:
    place = f"{where}: {setting.key}"
    if type(value) is not type(setting.default):
        kind = {"str": "a text", "int": "a whole number", "bool": "true or false"}[type(setting.default).__name__]
        return Problem(where=place, message=f"{value!r} is not {kind}", hint=f"{setting.key}: {setting.help}.")
    wrong = setting.check(value)
    return Problem(where=place, message=wrong, hint=f"{setting.key}: {setting.help}.") if wrong else None


def parse(text: str, where: str, settings: tuple[Setting, ...]) -> tuple[dict[str, Any], list[Problem]]:
    """The values of `text` by attribute name, defaults filled in, and everything that is wrong with it."""
    try:
        given = flatten(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return {}, [Problem(where=where, message=f"not TOML: {error}", hint="Text values need quotes: key = \"value\".")]
    known = {setting.key: setting for setting in settings}
    problems = [_key_problem(where, key, known) for key in given if key not in known]
    for key, value in given.items():
        if key in known and (problem := _value_problem(where, known[key], value)):
            problems.append(problem)
    return {s.attribute: given.get(s.key, s.default) for s in settings}, problems


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises ConfigError when it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error}", where=str(path), hint="Save the file as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), hint="Give an existing file.") from error


def parse_site(text: str, where: str = "site.toml") -> SiteConfig:
    """A site's configuration.

    Raises ConfigError with every problem of it.
    """
    values, problems = parse(text, where, SITE)
    if values:
        values["domain"] = values["domain"] or default_domain()
        if isinstance(values["domain"], str) and (wrong := domain_problem(values["domain"])):
            problems.append(Problem(where=f"{where}: domain", message=wrong, hint="Set domain in site.toml."))
        ports = [values["ports_portal"], values["ports_mlflow"], values["ports_phoenix"]]
        if values["layout"] == "ports" and len(set(ports)) < len(ports):
            message = f"the ports {', '.join(map(str, ports))} are not three different ones"
            problems.append(Problem(where=f"{where}: ports", message=message, hint="Give each tracker its own port."))
    if problems:
        raise ConfigError.of(problems)
    return SiteConfig(**values)


def parse_bundle(text: str, where: str = "bundle.toml") -> BundleConfig:
    """The configuration of the connected side.

    Raises ConfigError with every problem of it.
    """
    values, problems = parse(text, where, BUNDLE)
    if values and values["base_source"] == "registry" and not values["base_image"]:
        problems.append(
            Problem(
                where=f"{where}: base.image",
                message='is empty, needed with base.source = "registry"',
                hint="Write NAME@sha256:<64 hexadecimal digits>.",
            )
        )
    if problems:
        raise ConfigError.of(problems)
    values["cache"] = Path(values["cache"]).expanduser() if values["cache"] else cache_folder()
    return BundleConfig(**values)


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file of this product, as it is.

    Raises ConfigError when it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(path)) from error


def read_bundle(path: Path | None) -> BundleConfig:
    """bundle.toml at `path`; all defaults when `path` is None and there is none in the current folder.

    Raises ConfigError with every problem of it.
    """
    if path is None:
        path = Path("bundle.toml")
        if not path.exists():
            return parse_bundle("", str(path))
    return parse_bundle(read_text(path), str(path))


def cache_folder() -> Path:
    """Where downloads, built inputs and compressed layers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracking-bundle"


def config_folder() -> Path:
    """Where the signing key is kept, outside of every tree."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tracking-bundle"


def source_date_epoch() -> int | None:
    """SOURCE_DATE_EPOCH of the environment, seconds.

    Raises ConfigError when it is not a whole number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"SOURCE_DATE_EPOCH is {text!r}, not seconds", hint="Unset it, or give a whole number.")
    return int(text)


def language() -> Literal["ko", "en"]:
    """The operator's language by the locale."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"


def toml_value(value: Any) -> str:
    """A default as TOML text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sample(settings: tuple[Setting, ...], title: str) -> str:
    """The commented sample file: every key with its default."""
    lines, section = [f"# {title}: every key has a default; uncomment what you change."], ""
    for setting in sorted(settings, key=lambda s: (s.key.partition(".")[0] if "." in s.key else "")):
        head, dot, name = setting.key.partition(".")
        if dot and head != section:
            section = head
            lines += ["", f"[{section}]"]
        lines += ["" if not dot else "", f"# {setting.help}", f"# {name if dot else head} = {toml_value(setting.default)}"]
    return "\n".join(lines) + "\n"


def reference(settings: tuple[Setting, ...], title: str) -> str:
    """The reference page: a table of every key."""
    rows = [f"| `{s.key}` | `{toml_value(s.default)}` | {s.help} |" for s in settings]
    return "\n".join([f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"
