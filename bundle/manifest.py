"""What a bundle holds: every member with its size, digest and mode, and how the members make images and a tool.

Pure: bytes to value and back. The form is checked by unseal.py, which must do it alone on a bare host.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bundle import unseal
from bundle.errors import BundleError, ConfigError, IntegrityError, PreconditionError, Problem

FORMAT = 1
PRODUCT = "tracking-bundle"
EXTRA = "extras/"
"""Where the site's own files lie, in the bundle and under the root."""
EXTRA_IMAGE = "extra/"
"""Before the name of a site's own image."""
EXTRAS_COMPOSE = "small/extras/compose.yaml"
AGAIN = "Run again: sh bootstrap.sh FILE --fingerprint HEX."
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True, kw_only=True)
class Need:
    """A file that belongs to the bundle; a delta leaves out some, which the closed side must have."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Member(Need):
    """One file that the bundle carries."""

    mode: int = 0o644


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a delta stands on: the release that was there, its kind of image store, the sha256 of the inventory file."""

    version: str
    store: str
    inventory: str


@dataclass(frozen=True, kw_only=True)
class SealedImage:
    """One image: the digests of its OCI blobs, base layer first; `size` is that of its layers unpacked.

    `sizes` says it for each layer; where that is not known all of it counts for the last one, which no other image has.
    """

    name: str
    reference: str
    manifest: str
    config: str
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    size: int
    sizes: tuple[int, ...] = ()

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """For each layer the diffIDs up to it: what an engine unpacks once, whichever images have it."""
        return tuple(self.diff_ids[: number + 1] for number in range(len(self.diff_ids)))

    @property
    def unpacked(self) -> tuple[int, ...]:
        """The bytes that each layer unpacks to."""
        known = len(self.sizes) == len(self.layers)
        return self.sizes if known else (*(0 for _ in self.layers[1:]), self.size)


@dataclass(frozen=True, kw_only=True)
class SealedExtras:
    """What the site added: names of images (`extra/<name>` among the images), of files (members
    `extras/files/<name>/…`), of wheels (`extras/wheels/…`), and the member with the compose fragment, if any."""

    images: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    compose: str = ""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What is to be sealed of a site's own, beside its images: the manifest's entry, and each member's file.

    `reviewed` is the site's list of what the scan for secrets finds and is none.
    """

    sealed: SealedExtras = field(default_factory=SealedExtras)
    members: Mapping[str, Path] = field(default_factory=dict)
    reviewed: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that was sealed.

    `wheels` names the tool's wheels for each version of Python; `unpacked` is the most that those of one unpack to.
    """

    version: str
    arch: str
    created: str
    counter: int
    expires: str
    mtime: int
    checker_sha256: str
    images: tuple[SealedImage, ...]
    wheels: dict[str, tuple[str, ...]]
    unpacked: int = 0
    base: Base | None = None
    needs: tuple[Need, ...] = ()
    extras: SealedExtras = field(default_factory=SealedExtras)
    members: tuple[Member, ...]

    @property
    def parts(self) -> tuple[Need, ...]:
        """Every file of the full bundle: what this one carries, and what it needs."""
        return (*self.members, *self.needs)

    def size_of(self, digest: str) -> int:
        """The bytes of the blob `digest`, carried or needed."""
        path = blob_path(digest)
        return next(part.size for part in self.parts if part.path == path)


def blob_path(digest: str) -> str:
    """Where the blob `digest` (sha256:…) lies in a bundle, as in an OCI layout."""
    return "blobs/" + digest.replace(":", "/", 1)


def parse(raw: bytes) -> Manifest:
    """The manifest that `raw` says.

    Raises IntegrityError when its form is wrong.
    """
    try:
        data = unseal.parse_manifest(raw)
        return _from_dict(data)
    except unseal.SealError as error:
        raise as_bundle_error(error) from error
    except (KeyError, TypeError) as error:
        raise IntegrityError(
            f"MANIFEST.json has a wrong form: {error}", hint="Make the bundle again."
        ) from error


def read(bundle: Path) -> Manifest:
    """The manifest inside the file `bundle`, without a look at its signature.

    Raises IntegrityError, or ConfigError when the file cannot be read.
    """
    try:
        return parse(unseal.manifest_bytes(bundle))
    except unseal.SealError as error:
        raise as_bundle_error(error) from error


def _from_dict(data: dict[str, Any]) -> Manifest:
    plain = ("version", "arch", "created", "counter", "expires", "mtime", "checker_sha256")
    return Manifest(
        **{key: data[key] for key in plain},
        unpacked=data["unpacked"],
        images=tuple(_image(image) for image in data["images"]),
        wheels={python: tuple(names) for python, names in data["wheels"].items()},
        base=Base(**data["base"]) if data.get("base") else None,
        needs=tuple(Need(**need) for need in data.get("needs", [])),
        extras=_extras(data.get("extras") or {}),
        members=tuple(_member(member) for member in data["members"]),
    )


def _extras(data: dict[str, Any]) -> SealedExtras:
    lists = {key: tuple(map(str, data.get(key, ()))) for key in ("images", "files", "wheels")}
    return SealedExtras(**lists, compose=str(data.get("compose", "")))


def _member(member: dict[str, Any]) -> Member:
    return Member(**{**member, "mode": int(member["mode"], 8)})


def _image(image: dict[str, Any]) -> SealedImage:
    lists = {key: tuple(image[key]) for key in ("layers", "diff_ids")}
    return SealedImage(**{**image, **lists, "sizes": tuple(image.get("sizes", ()))})


def dump(manifest: Manifest) -> bytes:
    """The bytes that are signed: one key, one image, one member a line, so that sh can read them too."""
    data = {"format": FORMAT, "product": PRODUCT, **asdict(manifest)}
    data["members"] = [{**row, "mode": f"{row['mode']:04o}"} for row in data["members"]]
    lines = []
    for key, value in data.items():
        if key in ("images", "needs", "members") and value:
            rows = ",\n".join("  " + _json(row) for row in value)
            lines.append(f'"{key}": [\n{rows}\n]')
        else:
            lines.append(f'"{key}": {_json(value)}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def as_bundle_error(error: unseal.SealError) -> BundleError:
    """The checker's refusal as an error of this product, with the same exit code."""
    kinds = {unseal.USAGE: ConfigError, unseal.PRECONDITION: PreconditionError}
    kind = kinds.get(error.code, IntegrityError)
    last = len(error.problems) - 1
    return kind.of(
        [
            Problem(message=problem, hint=error.hint if index == last else "")
            for index, problem in enumerate(error.problems)
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Release:
    """What bootstrap.sh left in a release folder: the bundle it came from, proven, and that bundle's manifest."""

    home: Path
    bundle: Path
    fingerprint: str
    manifest_sha256: str
    manifest: Manifest
    sha256: str = ""
    """Of the whole file; install notes it (unseal compares each member, and hashes nothing twice)."""


def installed(home: Path) -> Release:
    """The release that bootstrap.sh unpacked into `home`; its bundle file need not be there any more.

    Raises PreconditionError when there is none.
    """
    try:
        record = json.loads((home / "release.json").read_text("utf-8"))
        return Release(
            home=home,
            bundle=Path(record["bundle"]),
            fingerprint=str(record.get("fingerprint", "")),
            manifest_sha256=str(record["sha256_manifest"]),
            manifest=parse((home / "MANIFEST.json").read_bytes()),
            sha256=str(record.get("sha256", "")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PreconditionError(
            f"{home} was not unpacked by bootstrap.sh ({error})", hint=AGAIN
        ) from error


def release(home: Path, bundle: Path | None = None) -> Release:
    """The release in `home`; its bundle may have moved to `bundle`, but must hold the manifest that was checked.

    Raises PreconditionError when the file is gone, IntegrityError when it is another bundle.
    """
    known = installed(home)
    place = bundle or known.bundle
    if not place.is_file():
        hint = "Connect the medium, or say where the file is with --bundle FILE."
        raise PreconditionError(f"the bundle file {place} is not there", hint=hint)
    try:
        found = hashlib.sha256(unseal.manifest_bytes(place)).hexdigest()
    except unseal.SealError as error:
        raise as_bundle_error(error) from error
    kept = hashlib.sha256((home / "MANIFEST.json").read_bytes()).hexdigest()
    if {found, kept} != {known.manifest_sha256}:
        raise IntegrityError(
            f"{place} is not the bundle that was checked", where=str(home), hint=AGAIN
        )
    return replace(known, bundle=place)
