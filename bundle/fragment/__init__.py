"""The rules for a site's compose fragment: text in, services out, or everything that breaks them.

What is not known is refused, and nothing of the text is passed on: the services are rendered from these values, so a
key that somebody invents for compose tomorrow means nothing here. Read on both sides of the gap.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from bundle.errors import ConfigError, Problem
from bundle.fragment import marked
from bundle.fragment.rules import FIXED, OF_FILE, REFUSED, RESERVED, near
from bundle.fragment.values import DEFAULT_USER, READERS, Wrong, image, mounts
from bundle.model import ExtraService
from bundle.settings import name_problem
from bundle.words import say


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a fragment may refer to: the extras of the bundle by name, and its own volumes."""

    images: Collection[str]
    files: Collection[str]
    volumes: Collection[str] = ()


def parse(
    raw: bytes, where: str, *, images: Collection[str], files: Collection[str]
) -> tuple[ExtraService, ...]:
    """The services of the fragment `raw`; `images` and `files` are the names of the bundle's extras.

    Raises ConfigError with everything that breaks the rules.
    """
    document = marked.read(raw, where)
    reader = _Reader(document=document, problems=list(document.problems))
    found: list[ExtraService] = []
    if document.value is not None or not document.problems:
        found = reader.file(images, files)
    if reader.problems:
        raise ConfigError.of(reader.problems)
    return tuple(found)


@dataclass(kw_only=True)
class _Reader:
    document: marked.Marked
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, place: str, message: str, hint: str) -> None:
        self.problems.append(self.document.problem(place, message, hint))

    def table(self, value: Any, place: str) -> dict[str, Any]:
        if value is not None and not isinstance(value, dict):
            hint = say("Write KEY: VALUE lines.", "키: 값 형식으로 쓰십시오.")
            self.refuse(place, say("is not a table", "표(매핑)가 아닙니다"), hint)
        return value if isinstance(value, dict) else {}

    def file(self, images: Collection[str], files: Collection[str]) -> list[ExtraService]:
        """Every service of the file; all that is wrong is noted."""
        top = self.table(self.document.value, "")
        for key in top:
            if key not in ("services", "volumes", "version") and not key.startswith("x-"):
                reason, advice = OF_FILE.get(key) or near(key, ("services", "volumes"))
                self.refuse(key, say(*reason), say(*advice))
        volumes = self.table(top.get("volumes"), "volumes")
        for name, options in volumes.items():
            self.volume(name, options)
        services = self.table(top.get("services"), "services")
        if not services:
            hint = say("Name a service under services:.", "services: 아래에 서비스를 쓰십시오.")
            self.refuse("services", say("there is none", "서비스가 없습니다"), hint)
        known = Known(images=images, files=files, volumes=volumes)
        made = [self.service(name, value, known) for name, value in services.items()]
        self.order(made)
        return made

    def volume(self, name: str, options: Any) -> None:
        place = f"volumes.{name}"
        if wrong := name_problem(name):
            self.refuse(place, wrong, say("Choose another name.", "다른 이름을 쓰십시오."))
        if options:
            message = say("a volume takes no options", "볼륨에는 옵션을 줄 수 없습니다")
            self.refuse(place, message, say(f"Write {name}: {{}}", f"{name}: {{}} 로 쓰십시오."))

    def service(self, name: str, value: Any, known: Known) -> ExtraService:
        """One service; what cannot be read has its default, and is noted."""
        place = f"services.{name}"
        if wrong := name_problem(name):
            self.refuse(place, wrong, say("Choose another name.", "다른 이름을 쓰십시오."))
        if name in RESERVED:
            message = say("is the name of a service of ours", "이 제품의 서비스 이름입니다")
            self.refuse(place, message, say("Choose another name.", "다른 이름을 쓰십시오."))
        given = self.table(value, place)
        made: dict[str, Any] = {"name": name, "image": "", "user": DEFAULT_USER}
        for key, entry in given.items():
            try:
                made |= _one(key, entry, known)
            except Wrong as wrong_value:
                self.refuse(f"{place}.{key}", wrong_value.message, wrong_value.hint)
        if "image" not in given:
            hint = say("Name one of extras.images.", "extras.images 중 하나를 쓰십시오.")
            self.refuse(place, say("has no image", "image가 없습니다"), hint)
        if given.get("read_only") is False and not made.get("writable"):
            message = say(
                "a writable root needs its reason", "쓰기 가능한 루트에는 이유가 필요합니다"
            )
            hint = say(
                'Say why: x-tracking: {writable: "…"}; or use tmpfs and volumes.',
                'x-tracking: {writable: "…"}에 이유를 쓰거나 tmpfs와 volumes를 쓰십시오.',
            )
            self.refuse(f"{place}.read_only", message, hint)
        return ExtraService(**made)

    def order(self, services: list[ExtraService]) -> None:
        """See that what is needed is there, and that nothing waits for itself."""
        needs = {service.name: set(service.needs) for service in services}
        for name, wanted in needs.items():
            for other in sorted(wanted - set(needs)):
                message = say(
                    f"{other!r} is no service of this file", f"{other!r} 서비스가 없습니다"
                )
                hint = say(
                    "The stack itself is always started before.",
                    "스택 자체는 항상 먼저 시작됩니다.",
                )
                self.refuse(f"services.{name}.depends_on", message, hint)
        waiting = {name: wanted & set(needs) for name, wanted in needs.items()}
        while ready := [name for name, wanted in waiting.items() if not wanted]:
            waiting = {n: w - set(ready) for n, w in waiting.items() if n not in ready}
        for name in waiting:
            message = say("waits for itself", "자기 자신을 기다립니다")
            self.refuse(
                f"services.{name}.depends_on", message, say("Cut the circle.", "순환을 끊으십시오.")
            )


def _one(key: str, value: Any, known: Known) -> dict[str, Any]:
    """The fields that the entry `key: value` of a service gives. Raises Wrong."""
    if key in FIXED:
        right, reason = FIXED[key]
        if value not in right:
            raise Wrong(say(*reason), say(f"Leave {key} out.", f"{key}를 빼십시오."))
        return {}
    if key in REFUSED:
        reason, hint = REFUSED[key]
        raise Wrong(say(*reason), say(*hint))
    if key == "volumes":
        return mounts(value, known.files, known.volumes)
    if key == "image":
        return {"image": image(value, known.images)}
    if key not in READERS:
        reason, hint = near(key, (*READERS, "image", "volumes"))
        raise Wrong(say(*reason), say(*hint))
    return READERS[key](value)
