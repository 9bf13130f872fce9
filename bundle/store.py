"""The engine's image store over its own API: look, name, send out, take in, pull; nothing about containers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, cast
from urllib.parse import quote

import requests

from bundle.engine import Engine
from bundle.errors import CommandError
from bundle.model import Secret
from bundle.words import say

WHERE = "container engine"


def _ask(
    engine: Engine,
    method: str,
    path: str,
    query: Mapping[str, str | Sequence[str]],
    *,
    data: Iterable[bytes] | None = None,
    stream: bool = False,
    login: Secret | None = None,
) -> requests.Response:
    api = engine.api.api
    # An empty login unless one is given: nothing of the operator's is sent along.
    headers = {"X-Registry-Auth": "e30=" if login is None else login.reveal()}
    try:
        return api.request(
            method,
            f"{api.base_url}/v{api.api_version}/images/{path}",
            params=dict(query),
            data=data,
            headers=headers,
            stream=stream,
            timeout=None if stream else 600,
        )
    except requests.exceptions.RequestException as error:
        raise CommandError(f"asking for images/{path}: {error}", where=WHERE) from error


def _refused(what: str, answer: requests.Response) -> CommandError:
    try:
        text = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        text = answer.text.strip()
    return _failure(f"{what}: {text}")


def _failure(message: str) -> CommandError:
    hint = ""
    if "no space left" in message:
        hint = say(
            "The engine's disk is full: make room there (docker info names the folder), then run this again.",
            "엔진의 디스크가 가득 찼습니다. 그곳(docker info의 폴더)을 비우고 다시 실행하십시오.",
        )
    return CommandError(message, where=WHERE, hint=hint)


def _events(what: str, answer: requests.Response) -> Iterator[dict[str, Any]]:
    try:
        for line in answer.iter_lines():
            event = json.loads(line) if line.strip() else {}
            if "error" in event:
                raise _failure(f"{what}: {event['error']}")
            yield event
    except requests.exceptions.RequestException as error:
        raise CommandError(f"{what}: the engine hung up ({error})", where=WHERE) from error
    finally:
        answer.close()


def inspect(engine: Engine, reference: str) -> dict[str, Any] | None:
    """What the engine knows of the image `reference`; None when it has none."""
    answer = _ask(engine, "GET", f"{quote(reference, safe='/:@')}/json", {})
    if answer.status_code == 404:
        return None
    if answer.status_code != 200:
        raise _refused(f"looking at {reference}", answer)
    return cast("dict[str, Any]", answer.json())


def layer_sizes(engine: Engine, reference: str) -> list[int]:
    """The bytes of each step of the image `reference` that wrote something, base first."""
    answer = _ask(engine, "GET", f"{quote(reference, safe='/:@')}/history", {})
    if answer.status_code != 200:
        raise _refused(f"looking at {reference}", answer)
    return [int(step["Size"]) for step in reversed(answer.json()) if step["Size"]]


def references(engine: Engine) -> tuple[str, ...]:
    """Every name and digest reference under which the engine has an image."""
    images = _ask(engine, "GET", "json", {}).json()
    names = [image.get(key) or [] for image in images for key in ("RepoTags", "RepoDigests")]
    return tuple(sorted({name for group in names for name in group}))


def ids(engine: Engine) -> tuple[str, ...]:
    """The id of each image that the engine has, by whatever name."""
    return tuple(sorted({str(image["Id"]) for image in _ask(engine, "GET", "json", {}).json()}))


def is_containerd(engine: Engine) -> bool:
    """Whether the engine keeps images in containerd's store (blobs by digest) and not in a graph driver."""
    status = engine.api.info().get("DriverStatus") or []
    return any(value == "io.containerd.snapshotter.v1" for _, value in status)


def tag(engine: Engine, reference: str, name: str) -> None:
    """Give the image `reference` the further name `name`, which includes a tag.

    Raises CommandError when the engine refuses.
    """
    repository, _, label = name.rpartition(":")
    path = f"{quote(reference, safe='/:@')}/tag"
    answer = _ask(engine, "POST", path, {"repo": repository, "tag": label})
    if answer.status_code != 201:
        raise _refused(f"naming {reference}", answer)


def untag(engine: Engine, reference: str) -> None:
    """Take the name `reference` away; an image goes with its last name. Absent: nothing happens.

    Raises CommandError when the engine refuses.
    """
    answer = _ask(engine, "DELETE", quote(reference, safe="/:@"), {"noprune": "true"})
    if answer.status_code not in (200, 404):
        raise _refused(f"taking the name {reference} away", answer)


def save(engine: Engine, names: Sequence[str]) -> IO[bytes]:
    """The archive of the images `names`, as a stream.

    Raises CommandError when the engine refuses.
    """
    answer = _ask(engine, "GET", "get", {"names": list(names)}, stream=True)
    if answer.status_code != 200:
        raise _refused("exporting images", answer)
    answer.raw.auto_close = False  # else a read after the end is an error and not the end
    return cast("IO[bytes]", answer.raw)


def load(engine: Engine, archive: Iterable[bytes]) -> None:
    """Take in the images of an archive that is made while it is sent.

    Raises CommandError when the engine refuses it.
    """
    answer = _ask(engine, "POST", "load", {"quiet": "true"}, data=archive, stream=True)
    if answer.status_code != 200:
        raise _refused("loading images", answer)
    for _ in _events("loading images", answer):
        pass


def pull(
    engine: Engine, repository: str, wanted: str, login: Secret | None = None
) -> Iterator[dict[str, Any]]:
    """Pull the digest or tag `wanted` of `repository`, giving the engine's events; `login` as its API encodes it.

    Raises CommandError when the engine cannot.
    """
    query = {"fromImage": repository, "tag": wanted}
    answer = _ask(engine, "POST", "create", query, stream=True, login=login)
    if answer.status_code != 200:
        raise _refused(f"pulling {repository}", answer)
    yield from _events(f"pulling {repository}", answer)


def check_login(engine: Engine, login: Secret) -> None:
    """Let the engine log in to a registry: it has its own list of trusted certificates.

    Raises CommandError with what the engine says.
    """
    api, known = engine.api.api, json.loads(base64.urlsafe_b64decode(login.reveal()))
    try:
        answer = api.request(
            "POST", f"{api.base_url}/v{api.api_version}/auth", json=known, timeout=60
        )
    except requests.exceptions.RequestException as error:
        raise CommandError(f"logging in: {error}", where=WHERE) from error
    if answer.status_code not in (200, 204):
        raise _refused("logging in", answer)
