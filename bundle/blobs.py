"""Frozen blobs: what is in the cache by digest, and which layer or image of the engine became which blob."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.host import write_file
from bundle.layers import FORM
from bundle.manifest import blob_path

LEVEL = 6
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

    With an `epoch`, layers are brought into the form of `layers`; without, they stay as the engine has them.
    """

    root: Path
    level: int = LEVEL
    epoch: int | None = None

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

    def _look(self, kind: str, digest: str) -> Kept | None:
        try:
            kept = Kept(**json.loads(self.note(kind, digest).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return kept if self.blob(kept.blob).is_file() else None

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


def rewrite_config(raw: bytes, diff_ids: Sequence[str], epoch: int) -> bytes:
    """The image configuration `raw` for layers of other digests, with one time and without what an engine adds."""
    old = json.loads(raw)
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
