"""The only reader of YAML: plain values with the line of each, and nothing that two parsers could read in two ways.

No tags of Python, no anchors, no key twice, a limit on size and depth; a dollar sign is `$$` as in compose, and there
is nothing that `$NAME` could stand for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from bundle.errors import Problem
from bundle.words import say

LARGEST = 64 << 10
DEEPEST = 12
LONE_DOLLAR = re.compile(r"(?<!\$)\$(?:\$\$)*(?!\$)")


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A document: `value` as plain dicts, lists and scalars; `lines` by dotted place; what is wrong with its form."""

    where: str
    value: Any = None
    lines: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def problem(self, place: str, message: str, hint: str) -> Problem:
        """What is wrong at `place`, with its line."""
        spot = place
        while spot and spot not in self.lines:
            spot = spot.rpartition(".")[0]
        where = f"{self.where}:{self.lines[spot]}: {place}" if spot else f"{self.where}: {place}"
        return Problem(where=where.removesuffix(": "), message=message, hint=hint)


def read(raw: bytes, where: str) -> Marked:
    """The document `raw`, or what is wrong with its form."""
    hint = say("Correct it as YAML.", "YAML 형식을 고치십시오.")
    try:
        if len(raw) > LARGEST:
            raise ValueError(say(f"larger than {LARGEST} bytes", f"{LARGEST}바이트보다 큽니다"))
        text = raw.decode("utf-8-sig")
        _check_events(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        message = say(f"cannot be read: {told}", f"읽을 수 없습니다: {told}")
        return Marked(where=where, problems=(Problem(where=where, message=message, hint=hint),))
    lines: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    value = _plain(node, "", lines, found) if node is not None else None
    document = Marked(where=where, value=value, lines=lines)
    problems = tuple(document.problem(place, message, hint) for place, message in found)
    return Marked(where=where, value=value, lines=lines, problems=problems)


def _check_events(text: str) -> None:
    """Refuse what would cost much to read, before it is read. Raises ValueError."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        at = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(
                say(
                    f"line {at}: anchors and aliases are refused",
                    f"{at}행: 앵커와 별칭은 쓸 수 없습니다",
                )
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(
                say(f"line {at}: nested too deep", f"{at}행: 너무 깊이 중첩되었습니다")
            )


def _plain(node: yaml.Node, place: str, lines: dict[str, int], found: list[tuple[str, str]]) -> Any:
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_plain(entry, f"{place}.{n}", lines, found) for n, entry in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            inner = f"{place}.{name}".lstrip(".")
            if name in made or not isinstance(key, yaml.ScalarNode):
                found.append(
                    (
                        inner,
                        say(
                            "the key is there twice, or is no text",
                            "키가 두 번 있거나 텍스트가 아닙니다",
                        ),
                    )
                )
            made[name] = _plain(value, inner, lines, found)
            lines[inner] = key.start_mark.line + 1
        return made
    return _scalar(node, place, found)


def _scalar(node: yaml.Node, place: str, found: list[tuple[str, str]]) -> Any:
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        found.append((place, " ".join(str(error).split())))
        return None
    if not isinstance(value, str):
        return value if isinstance(value, bool | int | float | None) else str(node.value)
    if LONE_DOLLAR.search(value):
        message = say(
            "variables are not put in; write $$ for a dollar sign",
            "변수는 치환되지 않습니다. 달러 기호는 $$로 쓰십시오",
        )
        found.append((place, message))
    if any(not char.isprintable() and char not in "\n\t" for char in value):
        found.append((place, say("has a control character", "제어 문자가 있습니다")))
    return value.replace("$$", "$")
