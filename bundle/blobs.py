"""Frozen blobs: what is in the cache by digest, and which layer or image of the engine became which blob.

Whoever packs holds the blobs until the file is sealed; only when nobody does are those thrown out that were used least
recently, so that the cache has a bound.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.host import write_file
from bundle.layers import FORM
from bundle.manifest import blob_path

LEVEL = 4
LARGEST = 4 << 30  # of all blobs in a cache
KINDS = ("layers*", "configs*")  # of notes
CONFIG_KEYS = ("architecture", "variant", "os", "os.version", "os.features", "author", "config")
HISTORY_KEYS = ("created_by", "author", "comment", "empty_layer")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a layer became: the digest of its compressed blob, and digest and size of what is compressed."""

    blob: str
    diff_id: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Frozen blobs by digest, and which blob a layer (by the engine's diffID) or an image (by engine ID) became.

    With an `epoch`, layers are brought into the form of `layers`; without, they stay as the engine has them, but for
    those in `ours`: the engine's diffIDs of layers that are packed already, and what they became.
    """

    root: Path
    level: int = LEVEL
    epoch: int | None = None
    ours: Mapping[str, Kept] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """What was done to layers and configurations."""
        return "" if self.epoch is None else f"-form{FORM}-{self.epoch}"

    @property
    def layers(self) -> str:
        """The kind of note that names layers compressed in this way."""
        return f"layers{self.form}-zstd{self.level}"

    @property
    def configs(self) -> str:
        """The kind of note that names configurations."""
        return f"configs{self.form}"

    def blob(self, digest: str) -> Path:
        """Where the blob `digest` lies."""
        return self.root / blob_path(digest)

    def note(self, kind: str, digest: str) -> Path:
        """Where it is written what `digest` became."""
        return self.root / kind / f"{digest.removeprefix('sha256:')}.json"

    def layer(self, diff_id: str) -> Kept | None:
        """What the engine's layer `diff_id` became; None when that is not there."""
        return self._look(self.layers, diff_id)

    def config(self, image_id: str) -> str:
        """The configuration's digest of the engine's image `image_id`; empty when it is not known."""
        kept = self._look(self.configs, image_id)
        return kept.blob if kept else ""

    def stands_for(self, diff_ids: Sequence[str]) -> list[Kept | None]:
        """What travels for each of the engine's layers `diff_ids`."""
        return [self.ours.get(diff_id) or self.layer(diff_id) for diff_id in diff_ids]

    def config_of(self, image_id: str, kept: Sequence[Kept | None]) -> str:
        """The digest of the configuration that the engine's image `image_id` has with the layers `kept`, if known."""
        digest = self.config(image_id)
        if not digest or None in kept:
            return ""
        named = json.loads(self.blob(digest).read_bytes())["rootfs"]["diff_ids"]
        return digest if named == [layer.diff_id for layer in kept if layer] else ""

    def _look(self, kind: str, digest: str) -> Kept | None:
        try:
            kept = Kept(**json.loads(self.note(kind, digest).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        try:
            os.utime(self.blob(kept.blob))  # when it was used last
        except FileNotFoundError:
            return None
        except OSError:  # another's cache, which we only read
            return kept if self.blob(kept.blob).is_file() else None
        return kept

    def keep(self, data: bytes) -> str:
        """Keep the small blob `data`; its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        if not self.blob(digest).is_file():
            write_file(self.blob(digest), data)
        return digest

    def remember(self, kind: str, digest: str, kept: Kept) -> None:
        """Write down what `digest` became."""
        path = self.note(kind, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(vars(kept)).encode())


def rewrite_config(raw: bytes, diff_ids: Sequence[str], epoch: int | None) -> bytes:
    """The image configuration `raw` for layers of other digests, with one time and without what an engine adds.

    Without an `epoch` nothing but the layers is changed.
    """
    old = json.loads(raw)
    if epoch is None:
        same = old["rootfs"]["diff_ids"] == list(diff_ids)
        old["rootfs"]["diff_ids"] = list(diff_ids)
        return raw if same else json.dumps(old, separators=(",", ":"), ensure_ascii=False).encode()
    moment = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    created = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    new = {key: old[key] for key in CONFIG_KEYS if key in old}
    new["created"] = created
    new["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    new["history"] = [
        {"created": created} | {key: step[key] for key in HISTORY_KEYS if key in step}
        for step in old.get("history") or ()
    ]
    return json.dumps(new, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """While this lasts no other run throws a blob of the cache `root` out; any number may hold it at once."""
    with _lock(root, fcntl.LOCK_SH):
        yield


def clean(root: Path, largest: int = LARGEST) -> int:
    """Throw out the blobs used least recently until those of the cache `root` have `largest` bytes; how many went.

    With them go notes that name them, and what a killed run left. While somebody holds the blobs nothing is done.
    """
    gone = 0
    with contextlib.suppress(BlockingIOError), _lock(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
        folder = root / "blobs" / "sha256"
        for partial in folder.glob(".*"):
            partial.unlink()
        found = {path: path.stat() for path in folder.glob("*")}
        left = sum(status.st_size for status in found.values())
        for path in sorted(found, key=lambda path: found[path].st_mtime_ns):
            if left > largest:
                path.unlink()
                left, gone = left - found[path].st_size, gone + 1
        if gone:
            _forget(root)
    return gone


def _forget(root: Path) -> None:
    """Take away the notes of what is no longer there, and kinds of which none is left."""
    for kind in KINDS:
        for note in root.glob(f"{kind}/*.json"):
            try:
                blob = str(json.loads(note.read_bytes())["blob"])
            except (ValueError, KeyError, TypeError):
                blob = ""
            if not (root / blob_path(blob)).is_file():
                note.unlink()
        for folder in root.glob(kind):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _lock(root: Path, how: int) -> Iterator[None]:
    folder = root / "blobs"  # the lock lies with them: caches may share this folder alone
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a", encoding="utf-8") as handle:
        fcntl.flock(handle, how)
        yield
