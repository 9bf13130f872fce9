"""What the operator wrote, as frozen values, by the table in settings.

The only reader of configuration files and of the environment. Every problem of a file is reported at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bundle.errors import ConfigError, Problem
from bundle.model import Layout, Named
from bundle.provider import provider_problems
from bundle.settings import (
    BUNDLE,
    SITE,
    Setting,
    allow_problems,
    default_domain,
    domain_problem,
    named,
)
from bundle.siteform import s3_problems

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, kw_only=True)
class SiteConfig:
    """site.toml: what is only known on the closed side."""

    domain: str
    profile: Literal["dev", "prod"]
    organisation: str
    layout: Layout
    bind: str
    ports_portal: int
    ports_mlflow: int
    ports_phoenix: int
    ports_s3: int
    allow: tuple[str, ...]
    mlflow_experiment: str
    mlflow_workers: int
    memory_postgres_mb: int
    memory_minio_mb: int
    memory_mlflow_mb: int
    memory_phoenix_mb: int
    memory_gateway_mb: int
    retention_phoenix_days: int
    retention_hold: str
    registry_address: str
    registry_user: str
    registry_password: str
    registry_password_file: str
    registry_ca: str
    oidc_url: str
    oidc_client: str
    oidc_secret: str
    oidc_ca: str
    oidc_title: str
    oidc_scopes: tuple[str, ...]
    oidc_sign_up: bool
    oidc_groups_path: str
    oidc_groups: tuple[str, ...]
    oidc_role_path: str
    oidc_roles: tuple[str, ...]
    audit_folder: str
    audit_command: tuple[str, ...]
    audit_keep_days: int
    backup_folder: str
    backup_archive_s: int
    backup_every_minutes: int
    backup_database_minutes: int
    backup_full_days: int
    backup_keep_days: int
    backup_copy_to: str
    alert_command: tuple[str, ...]
    s3_endpoint: str
    s3_expose: bool
    s3_region: str
    s3_key: str
    s3_secret: str
    s3_ca: str
    s3_bucket_mlflow: str
    s3_bucket_exports: str
    s3_bucket_backups: str


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """bundle.toml: how the bundle is made."""

    base_source: Literal["debootstrap", "registry"]
    base_image: str
    mirrors_debian: str
    cache: Path
    build_timeout_s: int
    compression_level: int
    extras_images: tuple[Named, ...]
    extras_files: tuple[Named, ...]
    extras_wheels: tuple[str, ...]
    extras_compose: str
    extras_allowed: str
    extras_limit_mb: int


def flatten(
    table: Mapping[str, Any], prefix: str = "", lists: Container[str] = ()
) -> dict[str, Any]:
    """Nested tables as dotted keys; a table in the place of one of `lists` is a list of its entries."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if prefix + key in lists and isinstance(value, Mapping):
            texts = [isinstance(entry, str) for entry in value.values()]
            flat[prefix + key] = (
                [f"{name}={entry}" for name, entry in value.items()] if all(texts) else value
            )
        elif isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}.", lists))
        else:
            flat[prefix + key] = value
    return flat


def _key_problem(where: str, key: str, settings: Mapping[str, Setting]) -> Problem:
    near = difflib.get_close_matches(key, settings, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(settings)}."
    return Problem(where=f"{where}: {key}", message="unknown key", hint=hint)


def _list_problems(where: str, setting: Setting, value: Any) -> list[Problem]:
    place, hint = f"{where}: {setting.key}", f"{setting.key}: {setting.help}."
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        return [Problem(where=place, message=f"{value!r} is not a list of texts", hint=hint)]
    found = [setting.check(entry) for entry in value]
    return [Problem(where=place, message=wrong, hint=hint) for wrong in found if wrong]


def _value_problems(where: str, setting: Setting, value: Any) -> list[Problem]:
    if isinstance(setting.default, tuple):
        return _list_problems(where, setting, value)
    problem = _value_problem(where, setting, value)
    return [problem] if problem else []


def _value_problem(where: str, setting: Setting, value: Any) -> Problem | None:
    place = f"{where}: {setting.key}"
    if type(value) is not type(setting.default):
        kind = {"str": "a text", "int": "a whole number", "bool": "true or false"}[
            type(setting.default).__name__
        ]
        told = "the value" if setting.secret else repr(value)
        return Problem(
            where=place, message=f"{told} is not {kind}", hint=f"{setting.key}: {setting.help}."
        )
    wrong = setting.check(value)
    return (
        Problem(where=place, message=wrong, hint=f"{setting.key}: {setting.help}.")
        if wrong
        else None
    )


def parse(
    text: str, where: str, settings: tuple[Setting, ...]
) -> tuple[dict[str, Any], list[Problem]]:
    """The values of `text` by attribute name, defaults filled in, and everything that is wrong with it."""
    try:
        lists = {setting.key for setting in settings if isinstance(setting.default, tuple)}
        given = flatten(tomllib.loads(text), lists=lists)
    except tomllib.TOMLDecodeError as error:
        return {}, [
            Problem(
                where=where,
                message=f"not TOML: {error}",
                hint='Text values need quotes: key = "value".',
            )
        ]
    known = {setting.key: setting for setting in settings}
    problems = [_key_problem(where, key, known) for key in given if key not in known]
    for key, value in given.items():
        if key in known:
            problems += _value_problems(where, known[key], value)
    found = {s.attribute: given.get(s.key, s.default) for s in settings}
    return {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}, problems


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises ConfigError when it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not UTF-8: {error}", where=str(path), hint="Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), hint="Give an existing file."
        ) from error


def parse_site(text: str, where: str = "site.toml") -> SiteConfig:
    """A site's configuration.

    Raises ConfigError with every problem of it.
    """
    values, problems = parse(text, where, SITE)
    if values:
        values["domain"] = values["domain"] or default_domain()
        if isinstance(values["domain"], str) and (wrong := domain_problem(values["domain"])):
            problems.append(
                Problem(where=f"{where}: domain", message=wrong, hint="Set domain in site.toml.")
            )
        ports = [values["ports_portal"], values["ports_mlflow"], values["ports_phoenix"]]
        ports += [values["ports_s3"]] if values["s3_expose"] else []
        if values["layout"] == "ports" and len(set(ports)) < len(ports):
            message = f"the ports {', '.join(map(str, ports))} are not three different ones"
            problems.append(
                Problem(
                    where=f"{where}: ports", message=message, hint="Give each tracker its own port."
                )
            )
        given = (values["registry_password"], values["registry_password_file"])
        hint = "Each is a place outside, once."
        for told in allow_problems(values["allow"], values["domain"]):
            problems.append(Problem(where=f"{where}: allow", message=told, hint=hint))
        if bool(values["registry_user"]) != (sum(map(bool, given)) == 1):
            message = "registry.user and registry.password (or registry.password_file) go together"
            hint = "Set registry.user and one of the other two, or none of them."
            problems.append(Problem(where=f"{where}: registry", message=message, hint=hint))
        for key, message, hint in provider_problems(values):
            problems.append(Problem(where=f"{where}: {key}", message=message, hint=hint))
        own = {setting.attribute: setting.default for setting in SITE}
        problems += s3_problems(f"{where}: s3", values, own)
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
    for key in ("extras_images", "extras_files") if values else ():
        values[key] = tuple(Named(*named(str(entry))) for entry in values[key])
        problems += _twice(f"{where}: {key.replace('_', '.')}", [e.label for e in values[key]])
    if problems:
        raise ConfigError.of(problems)
    values["cache"] = Path(values["cache"]).expanduser() if values["cache"] else cache_folder()
    return BundleConfig(**values)


def _twice(where: str, names: Sequence[str]) -> list[Problem]:
    return [
        Problem(where=where, message=f"the name {name!r} is there twice", hint="Give NAME=VALUE.")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]


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


def variables(names: Sequence[str]) -> dict[str, str]:
    """Those of `names` that the environment has."""
    return {name: os.environ[name] for name in names if name in os.environ}


def cache_folder() -> Path:
    """Where downloads, built inputs and compressed layers are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracking-bundle"


def config_folder() -> Path:
    """Where the signing key is kept, outside of every tree."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tracking-bundle"


def sign_passphrase() -> bytes | None:
    """The signing key's passphrase: first line of the file TRACKING_SIGN_PASSPHRASE_FILE, or TRACKING_SIGN_PASSPHRASE.

    Raises ConfigError when that file cannot be read, or holds none.
    """
    place = os.environ.get("TRACKING_SIGN_PASSPHRASE_FILE")
    if not place:
        return os.environb.get(b"TRACKING_SIGN_PASSPHRASE") or None
    hint = "TRACKING_SIGN_PASSPHRASE_FILE names a file with the passphrase in its first line."
    try:
        line = Path(place).read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        message = f"reading the passphrase: {error.strerror}"
        raise ConfigError(message, where=place, hint=hint) from error
    if not line:
        raise ConfigError("the passphrase is empty", where=place, hint=hint)
    return line


def source_date_epoch() -> int | None:
    """SOURCE_DATE_EPOCH of the environment, seconds.

    Raises ConfigError when it is not a whole number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(
            f"SOURCE_DATE_EPOCH is {text!r}, not seconds", hint="Unset it, or give a whole number."
        )
    return int(text)


def language() -> Literal["ko", "en"]:
    """The operator's language by the locale."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"
