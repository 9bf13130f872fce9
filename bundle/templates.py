"""The only reader of templates/ and the only user of jinja2: a plan in, files out; nothing is written here."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import jinja2

from bundle.model import File, Mount, Service
from bundle.plan import NO_DNS, NO_PING, Plan, bridge
from bundle.services import forward, gateway, names, s3
from bundle.services.postgres import PGBACKREST

FOLDER = Path(__file__).resolve().parent.parent / "templates"


def quoted(value: object) -> str:
    """A YAML double-quoted scalar for a compose file: every character survives, and no `$` is interpolated."""
    special = {'"': '\\"', "\\": "\\\\", "$": "$$"}
    return (
        '"'
        + "".join(
            special.get(char) or (char if char.isprintable() else _escaped(char))
            for char in str(value)
        )
        + '"'
    )


def _escaped(char: str) -> str:
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def markup(value: object) -> str:
    """Text for HTML: escaped, with the control characters that HTML forbids replaced by U+FFFD."""
    clean = "".join(
        char if char.isprintable() or char in "\n\t" else "\ufffd" for char in str(value)
    )
    return html.escape(clean)


def environment(folder: Path = FOLDER) -> jinja2.Environment:
    """The one environment: an undefined name is an error, never an empty text."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # the targets are not HTML, but for one, which uses `markup`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["quoted"] = quoted
    made.filters["markup"] = markup
    made.globals["names"] = names
    made.globals |= {"bridge": bridge, "forward": forward, "gateway": gateway, "s3": s3}
    made.globals |= {"no_dns": NO_DNS, "no_ping": NO_PING, "pgbackrest": PGBACKREST}
    return made


def digest(service: Service, files: Mapping[str, File], stamp: str) -> str:
    """What a service reads: a label of the container, so that a changed text, key or secret makes a new container."""
    texts = [files[mount.template].text for mount in service.mounts] + [stamp]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _rendered(jinja: jinja2.Environment, plan: Plan, mount: Mount, service: Service) -> File:
    text = jinja.get_template(f"{mount.template}.j2").render(
        plan=plan, site=plan.site, service=service
    )
    return File(path=PurePosixPath("rendered") / mount.template, text=text)


def render(
    plan: Plan, folder: Path = FOLDER, *, stamps: Mapping[str, str] | None = None
) -> tuple[File, ...]:
    """Every generated file of the installation, the compose file last; `stamps`: what else makes a new container.

    Raises jinja2.UndefinedError when a template names what does not exist.
    """
    jinja = environment(folder)
    files = {
        m.template: _rendered(jinja, plan, m, service)
        for service in plan.services
        for m in service.mounts
    }
    compose = jinja.get_template("compose.yaml.j2").render(
        plan=plan,
        site=plan.site,
        digests={
            service.name: digest(service, files, (stamps or {}).get(service.name, ""))
            for service in plan.services
        }
        | {extra.slug: (stamps or {}).get(extra.slug, "")[:16] for extra in plan.extras},
    )
    return (*files.values(), File(path=PurePosixPath("rendered/compose.yaml"), text=compose))
