"""Write a bundle's bytes as one file or as parts of one size, with the digest of each; in place at last."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from bundle.errors import ConfigError, PreconditionError
from bundle.host import write_file
from bundle.run import log
from bundle.trust import Part
from bundle.words import say

FAT32 = (4 << 30) - 1
"""A file on FAT32 must be smaller than 4 GiB: this is the longest."""
MOST_PARTS = 999
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class Form:
    """In which form the file is written: `split` is the size of a part, 0 for one file.

    Of a request for parts: `only` their numbers, and the sha256 of the `manifest` that they belong to.
    """

    split: int = 0
    only: frozenset[int] = frozenset()
    manifest: str = ""


def parse_size(text: str) -> int:
    """The bytes that `text` says: a number, with K, M or G for powers of 1024.

    Raises ConfigError.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,14})([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if not found:
        message = say(f"{text!r} is not a size", f"{text!r}은(는) 크기가 아닙니다")
        hint = say("Write it like 4000M.", "4000M처럼 쓰십시오.")
        raise ConfigError(message, where="--split", hint=hint)
    return int(found[1]) * UNITS[found[2].upper()]


def read_request(path: Path) -> Form:
    """The form that a request for parts asks for.

    Raises ConfigError when the file is none.
    """
    try:
        data = json.loads(path.read_bytes())
        form = Form(
            split=int(data["split"]),
            only=frozenset(int(name.rpartition(".")[2]) for name in data["parts"]),
            manifest=str(data["manifest"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = say(f"is no request for parts: {error}", f"파트 요청 파일이 아닙니다: {error}")
        hint = say(
            "Give the file that bootstrap.sh --request wrote on the closed side.",
            "폐쇄망에서 bootstrap.sh --request가 쓴 파일을 지정하십시오.",
        )
        raise ConfigError(message, where=str(path), hint=hint) from error
    if form.split <= 0 or not form.only:
        hint = say("Copy the whole bundle again.", "번들 전체를 다시 복사하십시오.")
        message = say("asks for no part", "요청한 파트가 없습니다")
        raise ConfigError(message, where=str(path), hint=hint)
    return form


def check_form(form: Form, *, total: int, head: int, manifest: str) -> None:
    """Whether a file of `total` bytes can be written so; its first `head` bytes must be in the first part.

    Raises ConfigError, or PreconditionError when the parts that were asked for belong to another bundle.
    """
    if form.manifest and form.manifest != manifest:
        message = say(
            "the parts that were asked for are of another bundle than these inputs make",
            "요청한 파트는 지금 입력으로 만드는 번들의 것이 아닙니다",
        )
        hint = say(
            "Use the same commit, SOURCE_DATE_EPOCH, key and options as then, or carry the new bundle whole.",
            "그때와 같은 커밋, SOURCE_DATE_EPOCH, 키, 옵션을 쓰거나 새 번들 전체를 반입하십시오.",
        )
        raise PreconditionError(message, where="--parts", hint=hint)
    least = max(head, -(-total // MOST_PARTS))
    if form.split and form.split < least:
        message = say("the parts are too small", "파트가 너무 작습니다")
        hint = say(f"Give at least {least}.", f"{least} 이상으로 지정하십시오.")
        raise ConfigError(message, where="--split", hint=hint)
    if min(form.split or total, total) > FAT32:
        log.warning(
            "%s",
            say(
                "a file of 4 GiB or more does not fit on FAT32; --split 4000M does",
                "4 GiB 이상의 파일은 FAT32에 담을 수 없습니다. --split 4000M을 쓰십시오",
            ),
        )


class Aside:
    """A digest that is taken in a thread of its own, so that another can be taken of the same bytes meanwhile."""

    def __init__(self) -> None:
        self._digest, self._waiting = hashlib.sha256(), queue.Queue[bytes](8)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while data := self._waiting.get():
            self._digest.update(data)

    def update(self, data: bytes) -> None:
        """Take the next bytes, which nobody changes any more."""
        if data:
            self._waiting.put(data)

    def hexdigest(self) -> str:
        """The digest of all; nothing can follow."""
        if self._thread.is_alive():
            self._waiting.put(b"")
            self._thread.join()
        return self._digest.hexdigest()


class Cutter:
    """Takes the bytes of the bundle `path` in order; `.partial` files until `publish`."""

    def __init__(self, path: Path, form: Form) -> None:
        self.path, self.form = path, form
        self.parts: list[Part] = []
        self.whole = Aside()
        self.size = 0
        self._file: BinaryIO | None = None
        self._digest, self._room = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self.whole.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            if not self._room:
                self._next()
            piece = view[: self._room]
            if self.form.split:  # else the one part is the whole
                self._digest.update(piece)
            if self._file:
                self._file.write(piece)
            self._room -= len(piece)
            view = view[len(piece) :]

    def _next(self) -> None:
        self._end()
        number = len(self.parts) + 1
        name = f"{self.path.name}.{number:03d}" if self.form.split else self.path.name
        self.parts.append(Part(name=name, size=0, sha256=""))
        self._digest, self._room = hashlib.sha256(), self.form.split or 1 << 62
        if not self.form.only or number in self.form.only:
            self._file = open(self._partial(name), "wb")  # noqa: SIM115  (closed by _end)

    def _partial(self, name: str) -> Path:
        return self.path.with_name(name + ".partial")

    def _end(self) -> None:
        """Finish the part at hand."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._file = None
        if self.parts:
            size = self.size - sum(part.size for part in self.parts[:-1])
            size = min(size, self.form.split or size)
            digest = self._digest if self.form.split else self.whole
            self.parts[-1] = Part(name=self.parts[-1].name, size=size, sha256=digest.hexdigest())

    def finish(self) -> tuple[Part, ...]:
        """End the last part; all parts."""
        self._end()
        return tuple(self.parts)

    def publish(self, manifest: str) -> Path:
        """Move the files in place, take away what bears this name in another form; the (first) file.

        Of a request only the parts are written, and nothing is taken away.
        """
        names = [part.name for part in self.parts]
        if not self.form.only:
            for stale in _forms(self.path):
                if stale.name not in names:
                    stale.unlink()
            if self.form.split:
                data = self._table(manifest, self.parts)
                write_file(self.path.with_name(self.path.name + ".parts.json"), data)
        written = [name for name in names if self._partial(name).exists()]
        for name in written:
            self._partial(name).replace(self.path.with_name(name))
        return self.path.with_name(written[0])

    def _table(self, manifest: str, parts: Iterable[Part]) -> bytes:
        data = {
            "format": 1,
            "file": self.path.name,
            "size": self.size,
            "sha256": self.whole.hexdigest(),
            "manifest": manifest,
            "split": self.form.split,
            "parts": [asdict(part) for part in parts],
        }
        return (json.dumps(data, indent=1) + "\n").encode()

    def discard(self) -> None:
        """Take away what was not published."""
        self.whole.hexdigest()
        if self._file:
            self._file.close()
        for part in self.parts:
            self._partial(part.name).unlink(missing_ok=True)


def _forms(path: Path) -> list[Path]:
    """The files in which a bundle of this name lies there: whole, in parts, and the table of parts."""
    pattern = re.compile(re.escape(path.name) + r"(\.[0-9]{3}|\.parts\.json)?")
    return [file for file in path.parent.iterdir() if pattern.fullmatch(file.name)]
