"""An installation on disk: its configuration, its mark, its release, and the plan that follows from them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle import config, fragment, manifest, settings, unseal
from bundle.errors import ConfigError
from bundle.host import Host, write_file
from bundle.model import ExtraService
from bundle.plan import Plan, make_plan

SITE_LABEL = "org.tracking-bundle.site"
CHUNK = 1 << 20
PLACED = "placed.json"
"""In `<root>/extras`: the digest of each file of the site's that we put there."""


def find_root(folder: Path) -> Path:
    """The root of the installation that the release in `folder` belongs to.

    Raises ConfigError when `folder` is not a bootstrapped release.
    """
    if not (folder / "release.json").exists():
        raise ConfigError(
            "is not an installed release",
            where=str(folder),
            hint="On the closed host run bootstrap.sh, then this task in <root>/current.",
        )
    return folder.parent.parent


@contextmanager
def noting_digest(release: manifest.Release) -> Iterator[None]:
    """Meanwhile find the sha256 of the whole bundle file, and note it in the release once; without a file, nothing."""
    worker = threading.Thread(target=_note_digest, args=(release,), daemon=True)
    worker.start()
    yield
    worker.join()


def _note_digest(release: manifest.Release) -> None:
    if release.sha256 or not release.bundle.is_file():
        return
    digest, at = hashlib.sha256(), 0
    try:
        sealed = hashlib.sha256(unseal.manifest_bytes(release.bundle)).hexdigest()
        with unseal.Reader(release.bundle) as file:
            while chunk := file.read(CHUNK, at):
                digest.update(chunk)
                at += len(chunk)
            whole = at == file.size
        if whole and sealed == release.manifest_sha256:
            note = release.home / "release.json"
            record = json.loads(note.read_bytes()) | {"sha256": digest.hexdigest()}
            write_file(note, (json.dumps(record, ensure_ascii=False, indent=1) + "\n").encode())
    except (OSError, ValueError, unseal.SealError):
        return  # a medium taken away: the next install notes it


def read_site_id(host: Host) -> str:
    """The mark of this installation; empty before the first one."""
    path = host.path("site-id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def ensure_site_id(host: Host) -> str:
    """The mark of this installation, made at the first call."""
    if not read_site_id(host):
        write_file(host.path("site-id"), f"{secrets.token_hex(4)}\n".encode())
    return read_site_id(host)


def read_site(host: Host, given: Path | None = None) -> config.SiteConfig:
    """site.toml: the `given` one, else the installation's, else all defaults.

    Raises ConfigError with every problem of it.
    """
    path = given or host.path("site.toml")
    if given is None and not path.exists():
        return config.parse_site("")
    return config.parse_site(config.read_text(path), str(path))


def keep_site(host: Host, given: Path | None, site: config.SiteConfig) -> None:
    """Keep the `given` site.toml in the root; with none given and none there, write the sample with `site`'s domain."""
    target = host.path("site.toml")
    if given is not None and given.resolve() != target.resolve():
        write_file(target, given.read_bytes())
    elif not target.exists():
        text = settings.sample(settings.SITE, "site.toml")
        # The default follows the host's name: what certificates and clients were given must not.
        write_file(target, text.replace('# domain = ""', f'domain = "{site.domain}"', 1).encode())


def read_plan(host: Host, version: str) -> Plan:
    """The plan of what is installed.

    Raises ConfigError when nothing is, or site.toml has problems.
    """
    site_id = read_site_id(host)
    if not site_id or not host.compose_file.exists():
        raise ConfigError(
            "nothing is installed here", where=str(host.root), hint="Run invoke install first."
        )
    record = host.path("installed")
    running = record.read_text(encoding="utf-8").strip() if record.exists() else version
    extras = read_extras(host, running)
    return make_plan(read_site(host), site_id=site_id, version=running, extras=extras)


def read_extras(host: Host, version: str) -> tuple[ExtraService, ...]:
    """The site's own services of the release `version`; the rules hold here too.

    Raises ConfigError with everything that breaks them.
    """
    home = host.path("releases", version)
    path = home / "extras" / "compose.yaml"
    if not path.exists():
        return ()
    sealed = manifest.installed(home).manifest.extras
    raw = path.read_bytes()
    return fragment.parse(raw, str(path), images=sealed.images, files=sealed.files)


def placed(host: Host) -> dict[str, str]:
    """The digest of each file of the site's that we put under the root, by path."""
    try:
        found = json.loads(host.path("extras", PLACED).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(path): str(digest) for path, digest in found.items()}


def record_version(host: Host, version: str) -> None:
    """Remember the release that was installed last: one that is only bootstrapped does not run yet."""
    write_file(host.path("installed"), f"{version}\n".encode())


def extra_files(sealed: manifest.Manifest) -> dict[str, manifest.Need]:
    """The site's own files and wheels that belong under the root, by path."""
    return {part.path: part for part in sealed.parts if part.path.startswith(manifest.EXTRA)}


def digest_of(path: Path) -> str:
    """The sha256 of a plain file of any size; empty when there is none, or a link."""
    digest = hashlib.sha256()
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
