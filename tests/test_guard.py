"""The guard's decisions: whose request it is, the deny list, the lock; every way in can be refused."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bundle.guard.decide import FAILURES, KNOWN_S, MOST, WINDOW_S, Answer, Found, Known, Locks
from bundle.guard.requests import Asked, read
from bundle.guard.service import DenyList, Guard, encoded, found_in, headers_of


@dataclass(kw_only=True)
class World:
    """A clock, a deny list, and a tracker that knows some credentials; it counts how often it is asked."""

    now: float = 1000.0
    denied: frozenset[str] = frozenset()
    people: dict[str, Found] = field(default_factory=dict)
    asked: int = 0

    def guard(self) -> Guard:
        return Guard(denied=lambda: self.denied, ask=self.ask, clock=lambda: self.now)

    def ask(self, asked: Asked) -> Found:
        self.asked += 1
        return self.people.get(asked.authorization or asked.cookie, Found())


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def at(door: str, source: str = "10.0.0.1", **headers: str) -> Asked:
    return read({"x-guard-door": door, "x-guard-from": source, **headers})


def decide(guard: Guard, asked: Asked) -> Answer:
    return asyncio.run(guard.decide(asked))


KIM = basic("kim", "right")
WRONG = basic("kim", "wrong")


@pytest.fixture
def world() -> World:
    found = Found(names=("kim", "kim@lab.internal"))
    return World(
        people={
            KIM: Found(names=("kim",)),
            WRONG: Found(wrong=True),
            "Bearer key": found,
            "s": found,
        }
    )


WAYS = {
    "basic": at("mlflow", authorization=KIM),
    "api key": at("phoenix", authorization="Bearer key"),
    "session": at("phoenix", cookie="a=b; phoenix-access-token=s; c=d"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_is_known_and_ends_at_once(world: World, way: str) -> None:
    guard = world.guard()
    assert decide(guard, WAYS[way]) == Answer(status=200, who="kim")
    assert decide(guard, WAYS[way]).who == "kim"
    assert world.asked == 1, "remembered"
    world.denied = frozenset(["kim"])
    assert decide(guard, WAYS[way]) == Answer(status=403, who="kim", why="disabled")
    world.denied = frozenset()
    assert decide(guard, WAYS[way]).status == 200


def test_address_on_the_list_counts_as_the_name(world: World) -> None:
    world.denied = frozenset(["kim@lab.internal"])
    assert decide(world.guard(), WAYS["session"]).why == "disabled"


def test_name_is_asked_again_after_a_while(world: World) -> None:
    guard = world.guard()
    decide(guard, WAYS["session"])
    world.now += KNOWN_S + 1
    decide(guard, WAYS["session"])
    assert world.asked == 2


def test_nobody_is_guessed(world: World) -> None:
    guard = world.guard()
    assert decide(guard, at("phoenix", authorization="Bearer other")).who == "unknown"
    assert decide(guard, at("mlflow", authorization=basic("lee", "x"))).who == "unknown"
    assert decide(guard, at("mlflow")) == Answer(status=200, who="")
    assert decide(guard, at("mlflow", authorization="Bearer x")).who == ""


def test_claimed_name_on_the_list_is_refused_without_asking(world: World) -> None:
    world.denied = frozenset(["kim"])
    for door in ("mlflow", "phoenix"):
        assert decide(world.guard(), at(door, authorization=WRONG)).why == "disabled"
    assert world.asked == 0


def test_too_many_wrong_passwords_lock_the_name_for_that_address(world: World) -> None:
    guard = world.guard()
    for _ in range(FAILURES):
        assert decide(guard, at("mlflow", authorization=WRONG)) == Answer(status=401)
    assert decide(guard, at("mlflow", authorization=WRONG)).why == "locked"
    assert decide(guard, at("mlflow", authorization=KIM)).why == "locked", "the right one too"
    assert decide(guard, at("mlflow", "10.0.0.2", authorization=KIM)).status == 200
    world.now += WINDOW_S + 1
    assert decide(guard, at("mlflow", authorization=KIM)).status == 200


def test_right_password_ends_the_count(world: World) -> None:
    guard = world.guard()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            decide(guard, at("mlflow", authorization=WRONG))
        world.now += KNOWN_S + 1
        assert decide(guard, at("mlflow", authorization=KIM)).status == 200


def test_tables_stay_small() -> None:
    locks, known = Locks(clock=lambda: 0.0), Known(clock=lambda: 0.0)
    for number in range(MOST + 50):
        locks.failed(str(number), "10.0.0.1")
        known.put(str(number).encode(), Found(names=("kim",)))
    assert len(locks.rows) == len(known.rows) == MOST


def test_without_a_list_nobody_passes(tmp_path: Path, world: World) -> None:
    guard = Guard(denied=DenyList(path=tmp_path / "denied.json").now, ask=world.ask)
    for asked in (*WAYS.values(), at("mlflow")):
        with pytest.raises(OSError, match=r"denied\.json"):
            decide(guard, asked)
    (tmp_path / "denied.json").write_text("[")
    with pytest.raises(ValueError, match="Expecting"):
        decide(guard, WAYS["basic"])


def test_list_is_read_when_another_is_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "denied.json"
    path.write_text(json.dumps({"denied": []}))
    denied = DenyList(path=path)
    assert denied.now() == frozenset()
    for names in (["kim"], ["lee"], []):
        (tmp_path / "new").write_text(json.dumps({"denied": names}))
        os.replace(tmp_path / "new", path)
        assert denied.now() == frozenset(names)


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (basic("김철수", "비밀"), "김철수"),
        (basic("a b", "x:y"), "a b"),
        ("basic " + base64.b64encode(b"kim:x").decode(), "kim"),
        ("Basic ???", ""),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(), ""),
        ("Basic", ""),
        ("", ""),
    ],
)
def test_claimed_name(authorization: str, name: str) -> None:
    assert at("mlflow", authorization=authorization).claimed == name


def test_phoenix_reads_the_header_before_the_cookie() -> None:
    both = at("phoenix", authorization="Bearer key", cookie="phoenix-access-token=s")
    assert (both.authorization, both.cookie) == ("Bearer key", "")
    other = at("phoenix", authorization="Basic eA==", cookie="phoenix-access-token=s")
    assert other.anonymous, "Phoenix takes neither"


@pytest.mark.parametrize(
    ("door", "status", "body", "found"),
    [
        ("mlflow", 200, b'{"user": {"username": "kim"}}', Found(names=("kim",))),
        (
            "phoenix",
            200,
            b'{"data": {"username": "kim", "email": "k@l"}}',
            Found(names=("kim", "k@l")),
        ),
        ("mlflow", 401, b"no", Found(wrong=True)),
        ("mlflow", 503, b'{"user": {"username": "kim"}}', Found()),
        ("phoenix", 200, b"<html>", Found()),
        ("phoenix", 200, b'{"data": []}', Found()),
    ],
)
def test_answer_of_a_tracker(door: str, status: int, body: bytes, found: Found) -> None:
    assert found_in(door, status, body) == found


def test_what_nginx_writes_and_reads() -> None:
    head = b"GET / HTTP/1.1\r\nX-Guard-Door: mlflow\r\nAuthorization:  Basic eA==\r\n\r\n"
    assert headers_of(head) == {"x-guard-door": "mlflow", "authorization": "Basic eA=="}
    line = encoded(Answer(status=200, who="김 x\r\nSet-Cookie: a"))
    assert b"X-Guard-Who: %EA%B9%80%20x%0D%0ASet-Cookie%3A%20a\r\n" in line
    assert b"401 Unauthorized\r\n" in encoded(Answer(status=401))
    assert b"WWW-Authenticate: Basic" in encoded(Answer(status=401))
