"""What each value of a fragment's service may be: one reader a key, which gives the value or says why not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection
from typing import Any

from bundle.model import Health, Volume
from bundle.words import say

DEFAULT_USER = 10100
USERS = range(1000, 65534)
OUR_USERS = range(10001, 10020)
SECRET_LIKE = re.compile(
    r"(?:^|_)(?:PASS(?:WORD|WD|PHRASE)?|SECRET|TOKEN|CREDENTIALS?|(?:API|ACCESS|PRIVATE)_?KEY)(?:_|$)",
    re.IGNORECASE,
)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNITS = {"": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30}
"""Powers of two."""
TARGETS_OF_OURS = ("/run/secrets", "/proc", "/sys", "/dev")
RESTARTS = ("no", "on-failure", "unless-stopped")


class Wrong(Exception):  # noqa: N818  (a verdict on one value)
    """A value breaks a rule: what, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def _wrong_form(value: Any, wanted: tuple[str, str]) -> Wrong:
    return Wrong(
        say(f"{value!r} is not {wanted[0]}", f"{value!r}: {wanted[1]} 형식이 아닙니다"),
        say(f"Write {wanted[0]}.", f"{wanted[1]} 형식으로 쓰십시오."),
    )


def image(value: Any, images: Collection[str]) -> str:
    """The name of one of `images`."""
    if value not in images:
        names = ", ".join(sorted(images)) or "-"
        raise Wrong(
            say(f"{value!r} is none of extras.images", f"{value!r}은(는) extras.images에 없습니다"),
            say(
                f"Name what travels with the bundle: {names}.",
                f"번들에 실리는 이름을 쓰십시오: {names}.",
            ),
        )
    return str(value)


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            raise _wrong_form(value, ("a list of words", "단어 목록")) from error
    if not isinstance(value, list) or any(isinstance(w, dict | list | None) for w in value):
        raise _wrong_form(value, ("a list of words", "단어 목록"))
    return tuple(_text(word) for word in value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _wrong_form(value, (f"a number from {low} to {high}", f"{low}~{high}의 숫자"))
        return value

    return read


def _user(value: Any) -> int:
    uid, _, gid = str(value).partition(":")
    number = int(uid) if uid.isdecimal() and len(uid) < 6 and gid in ("", uid) else 0
    if number not in USERS or number in OUR_USERS:
        raise Wrong(
            say(f"{value!r} cannot be the user", f"{value!r} 사용자로 실행할 수 없습니다"),
            say(
                "Give a number from 1000 to 65533, not root and none of 10001-10019 (ours); the group is the same.",
                "1000~65533의 숫자를 쓰십시오. root와 10001~10019(제품용)는 쓸 수 없고 그룹은 같습니다.",
            ),
        )
    return number


def _environment(value: Any) -> dict[str, str]:
    if isinstance(value, list) and all(isinstance(e, str) and "=" in e for e in value):
        value = dict(entry.split("=", 1) for entry in value)
    if not isinstance(value, dict) or any(
        isinstance(v, dict | list | None) for v in value.values()
    ):
        raise _wrong_form(value, ("a table of NAME: VALUE", "이름: 값 표"))
    for name in value:
        if not VARIABLE.fullmatch(str(name)):
            raise _wrong_form(name, ("the name of a variable", "환경 변수 이름"))
        if SECRET_LIKE.search(name) and not name.endswith("_FILE"):
            raise Wrong(
                say(
                    f"{name} looks like a secret; everyone who may ask the engine can read it",
                    f"{name}은(는) 비밀로 보입니다. 엔진을 조회하는 누구나 읽을 수 있습니다",
                ),
                say(
                    "Take it from a file: x-tracking: {client: true} mounts /run/secrets/client.env.",
                    "파일에서 읽으십시오: x-tracking: {client: true}가 /run/secrets/client.env를 둡니다.",
                ),
            )
    return {str(name): _text(entry) for name, entry in value.items()}


def _memory(value: Any) -> int:
    found = re.fullmatch(r"(\d{1,12})([kmg]?b?)", str(value).lower())
    megabytes = (int(found[1]) << UNITS[found[2]]) >> 20 if found and found[2] in UNITS else 0
    if not 16 <= megabytes <= 1 << 20:
        raise _wrong_form(
            value, ("a size of 16m or more, like 512m or 2g", "512m, 2g처럼 16m 이상의 크기")
        )
    return megabytes


def _seconds(value: Any) -> int:
    found = re.fullmatch(r"(?:(\d{1,2})h)?(?:(\d{1,3})m)?(?:(\d{1,4})s)?", str(value))
    seconds = (
        sum(int(n or 0) * f for n, f in zip(found.groups(), (3600, 60, 1), strict=True))
        if found
        else 0
    )
    if seconds < 1:
        raise _wrong_form(value, ("a duration like 30s or 1m30s", "30s, 1m30s처럼 쓴 시간"))
    return seconds


def _cpus(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0
    if not 0.01 <= number <= 1024:
        raise _wrong_form(value, ("a number of processors, like 0.5", "0.5처럼 프로세서 수"))
    return number


def _restart(value: Any) -> str:
    policy = "no" if value is False else str(value)  # YAML takes a bare no for false
    if policy not in RESTARTS:
        raise _wrong_form(value, (" or ".join(RESTARTS), " 또는 ".join(RESTARTS)))
    return policy


def _health(value: Any) -> Health | None:
    keys = ("test", "interval", "timeout", "retries", "start_period", "disable")
    if not isinstance(value, dict) or not set(value) <= set(keys):
        raise _wrong_form(value, (f"a table of {', '.join(keys)}", f"{', '.join(keys)} 표"))
    test = value.get("test")
    words = ("CMD-SHELL", test) if isinstance(test, str) else _words(test or [])
    if value.get("disable") is True or words == ("NONE",):
        return None
    if len(words) < 2 or words[0] not in ("CMD", "CMD-SHELL"):
        raise _wrong_form(
            test, ('a test like ["CMD", "program", …]', '["CMD", "프로그램", …] 형식의 test')
        )
    times = {k: _seconds(value[k]) for k in ("interval", "timeout", "start_period") if k in value}
    tries = {"retries": _number(1, 100)(value["retries"])} if "retries" in value else {}
    return Health(test=words, **times, **tries)


def _target(value: Any) -> str:
    path = str(value)
    parts = path.split("/")
    bad = not path.startswith("/") or ".." in parts or ":" in path or path.rstrip("/") == ""
    if bad or any(f"{path}/".startswith(f"{ours}/") for ours in TARGETS_OF_OURS):
        raise Wrong(
            say(f"{path!r} cannot be mounted on", f"{path!r}에는 마운트할 수 없습니다"),
            say(
                f"Give an absolute path, not / and not under {', '.join(TARGETS_OF_OURS)}.",
                f"/와 {', '.join(TARGETS_OF_OURS)} 아래가 아닌 절대 경로를 쓰십시오.",
            ),
        )
    return "/" + "/".join(part for part in parts if part)


def _tmpfs(value: Any) -> tuple[str, ...]:
    made = []
    for entry in (
        [value] if isinstance(value, str) else value if isinstance(value, list) else [None]
    ):
        path, _, size = str(entry).partition(":")
        if size and not re.fullmatch(r"size=\d{1,5}m", size):
            raise _wrong_form(entry, ("a path, or PATH:size=64m", "경로 또는 경로:size=64m"))
        made.append(f"{_target(path)}:{size or 'size=64m'}")
    return tuple(made)


def mounts(value: Any, files: Collection[str], volumes: Collection[str]) -> dict[str, Any]:
    """The fields that `volumes` of a service gives: files of the bundle, read-only, and volumes of the fragment."""
    found_files: list[tuple[str, str]] = []
    found_volumes: list[Volume] = []
    for entry in value if isinstance(value, list) else [None]:
        source, target, read_only = _mount(entry)
        if source.startswith(("/", ".", "~")):
            found_files.append((_own_place(source, files, read_only), target))
        elif source in volumes:
            found_volumes.append(Volume(name=source, path=target))
        else:
            raise Wrong(
                say(
                    f"{source!r} is no volume of this file", f"{source!r} 볼륨이 이 파일에 없습니다"
                ),
                say(
                    f"Declare it: volumes: {{{source}: {{}}}}.",
                    f"선언하십시오: volumes: {{{source}: {{}}}}.",
                ),
            )
    targets = [target for _, target in found_files] + [volume.path for volume in found_volumes]
    if len(set(targets)) < len(targets):
        raise Wrong(
            say("two of them have one target", "대상 경로가 겹칩니다"),
            say("Give each its own.", "서로 다른 경로를 쓰십시오."),
        )
    return {"files": tuple(found_files), "volumes": tuple(found_volumes)}


def _mount(entry: Any) -> tuple[str, str, bool]:
    """Source, target, and whether it is read-only, of the short or the long form."""
    if isinstance(entry, str) and 1 <= entry.count(":") <= 2:
        source, target, mode = (*entry.split(":"), "")[:3]
        if mode in ("", "ro", "rw"):
            return source, _target(target), mode == "ro"
    keys = {"type", "source", "target", "read_only"}
    if (
        isinstance(entry, dict)
        and keys - {"read_only"} <= set(entry) <= keys
        and entry["type"] in ("bind", "volume")
    ):
        return str(entry["source"]), _target(entry["target"]), entry.get("read_only") is True
    raise _wrong_form(entry, ("SOURCE:TARGET or SOURCE:TARGET:ro", "원본:대상 또는 원본:대상:ro"))


def _own_place(source: str, files: Collection[str], read_only: bool) -> str:
    parts = source.removeprefix("./").rstrip("/").split("/")
    if source.endswith("docker.sock"):
        raise Wrong(
            say("the engine's socket is the whole host", "엔진 소켓은 호스트 전체와 같습니다"),
            say("Do without it.", "쓰지 마십시오."),
        )
    inside = parts == ["wheels"] or (len(parts) > 1 and parts[0] == "files")
    if not source.startswith("./") or not inside or {"", ".", ".."} & set(parts):
        raise Wrong(
            say(
                f"{source!r} is a path of the host outside the site's own folder",
                f"{source!r}은(는) 사이트 폴더 밖의 호스트 경로입니다",
            ),
            say(
                "Only ./files/NAME[/…] and ./wheels can be mounted (they lie in <root>/extras).",
                "./files/이름[/…]과 ./wheels만 마운트할 수 있습니다 (<root>/extras 아래).",
            ),
        )
    if parts[0] == "files" and parts[1] not in files:
        names = ", ".join(sorted(files)) or "-"
        raise Wrong(
            say(
                f"{parts[1]!r} is none of extras.files",
                f"{parts[1]!r}은(는) extras.files에 없습니다",
            ),
            say(
                f"Name what travels with the bundle: {names}.",
                f"번들에 실리는 이름을 쓰십시오: {names}.",
            ),
        )
    if not read_only:
        raise Wrong(
            say(f"{source!r} is mounted writable", f"{source!r}을(를) 쓰기 가능하게 마운트합니다"),
            say(
                "Write SOURCE:TARGET:ro; what a service writes goes into a volume.",
                "원본:대상:ro로 쓰십시오. 서비스가 쓰는 것은 볼륨에 두십시오.",
            ),
        )
    return "/".join(parts)


def _tracking(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= {"client", "writable"}:
        raise _wrong_form(value, ("a table of client and writable", "client와 writable 표"))
    client, reason = value.get("client", False), value.get("writable", "")
    if not isinstance(client, bool):
        raise _wrong_form(client, ("true or false", "true 또는 false"))
    if not isinstance(reason, str) or ("writable" in value and not reason.strip()):
        raise _wrong_form(reason, ("the reason, as a text", "이유를 적은 텍스트"))
    return {"client": client, "writable": reason.strip()}


def _needs(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(map(str, value))
    return _words(value)


READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "command": lambda value: {"command": _words(value)},
    "cpus": lambda value: {"cpus": _cpus(value)},
    "depends_on": lambda value: {"needs": _needs(value)},
    "entrypoint": lambda value: {"entrypoint": _words(value)},
    "environment": lambda value: {"environment": _environment(value)},
    "healthcheck": lambda value: {"health": _health(value)},
    "mem_limit": lambda value: {"memory_mb": _memory(value)},
    "pids_limit": lambda value: {"pids": _number(8, 4096)(value)},
    "restart": lambda value: {"restart": _restart(value)},
    "shm_size": lambda value: {"shm_mb": _memory(value)},
    "stop_grace_period": lambda value: {"stop_s": _seconds(value)},
    "tmpfs": lambda value: {"tmpfs": _tmpfs(value)},
    "user": lambda value: {"user": _user(value)},
    "working_dir": lambda value: {"working_dir": _target(value)},
    "x-tracking": _tracking,
}
"""Every key that a service may have, beside image and volumes, which refer to what else there is."""
