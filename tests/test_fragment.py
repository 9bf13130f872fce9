"""The rules for a compose fragment: each can refuse, all at once, with line and key; a right one is taken whole."""

from __future__ import annotations

import pytest

from bundle.errors import ConfigError
from bundle.fragment import parse
from bundle.fragment.rules import FIXED, OF_FILE, REFUSED
from bundle.fragment.values import DEFAULT_USER
from bundle.model import ExtraService, Health, Volume

RIGHT = """\
# an evaluation service
services:
  evaluator:
    image: evaluator
    command: ["python3", "-m", "evaluate", "--cost=$$5"]
    entrypoint: /usr/bin/env -i
    environment: {LANG: C.UTF-8, DEPTH: 3, OFFLINE: true, KEY_FILE: /run/secrets/x, MODEL_TOKEN_FILE: /a}
    user: "12000:12000"
    working_dir: /srv
    mem_limit: 1g
    pids_limit: 64
    cpus: "0.5"
    shm_size: 128m
    restart: no
    stop_grace_period: 1m5s
    healthcheck: {test: ["CMD", "true"], interval: 5s, timeout: 2s, retries: 2, start_period: 1m}
    volumes:
      - ./files/models/sub:/models:ro
      - {type: bind, source: ./wheels, target: /wheels, read_only: true}
      - state:/state
    tmpfs: [/tmp, "/scratch:size=256m"]
    depends_on: {queue: {condition: service_healthy}}
    cap_drop: [ALL]
    read_only: true
    x-tracking: {client: true, writable: it compiles kernels}
  queue:
    image: queue
    healthcheck: {disable: true}
volumes:
  state: {}
"""


def services(text: str) -> tuple[ExtraService, ...]:
    """What the fragment `text` makes."""
    return parse(text.encode(), "f.yaml", images=("evaluator", "queue"), files=("models",))


def problems(text: str) -> list[str]:
    """Everything that is wrong with `text`."""
    with pytest.raises(ConfigError) as caught:
        services(text)
    return [f"{p.where}: {p.message}" for p in caught.value.problems]


def one(lines: str) -> list[str]:
    """What is wrong with a service that has `lines` (indented by four) beside its image."""
    return problems(f"services:\n  evaluator:\n    image: evaluator\n{lines}\n")


def test_right_fragment_is_taken_whole() -> None:
    evaluator, queue = services(RIGHT)
    assert evaluator == ExtraService(
        name="evaluator",
        image="evaluator",
        user=12000,
        entrypoint=("/usr/bin/env", "-i"),
        command=("python3", "-m", "evaluate", "--cost=$5"),
        environment={
            "LANG": "C.UTF-8",
            "DEPTH": "3",
            "OFFLINE": "true",
            "KEY_FILE": "/run/secrets/x",
            "MODEL_TOKEN_FILE": "/a",
        },
        working_dir="/srv",
        memory_mb=1024,
        pids=64,
        cpus=0.5,
        shm_mb=128,
        restart="no",
        stop_s=65,
        health=Health(test=("CMD", "true"), interval=5, timeout=2, retries=2, start_period=60),
        files=(("files/models/sub", "/models"), ("wheels", "/wheels")),
        volumes=(Volume(name="state", path="/state"),),
        tmpfs=("/tmp:size=64m", "/scratch:size=256m"),
        needs=("queue",),
        writable="it compiles kernels",
        client=True,
    )
    assert queue == ExtraService(name="queue", image="queue", user=DEFAULT_USER)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_each_refused_key_is_named_with_its_line(key: str) -> None:
    (problem,) = one(f"    {key}: x")
    assert problem.startswith(f"f.yaml:4: services.evaluator.{key}: ")


@pytest.mark.parametrize("key", sorted(FIXED))
def test_each_fixed_key_keeps_its_value(key: str) -> None:
    (problem,) = one(f"    {key}: [SYS_ADMIN]")
    assert problem.startswith(f"f.yaml:4: services.evaluator.{key}: ")


@pytest.mark.parametrize("key", sorted(OF_FILE))
def test_each_refused_key_of_the_file_is_named(key: str) -> None:
    (problem,) = problems(f"services:\n  queue: {{image: queue}}\n{key}: x\n")
    assert problem.startswith(f"f.yaml:3: {key}: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("privileged: true", "rights on the host"),
        ("pull_policy: always", "nothing is pulled"),
        ("read_only: false", "a writable root needs its reason"),
        ("security_opt: ['seccomp=unconfined']", "rights on the host"),
        ("user: root", "cannot be the user"),
        ("user: 0", "cannot be the user"),
        ("user: 10001", "cannot be the user"),
        ("user: '1000:0'", "cannot be the user"),
        ("volumes: ['/:/host:ro']", "is a path of the host"),
        ("volumes: ['~/x:/host:ro']", "is a path of the host"),
        ("volumes: ['../secrets:/s:ro']", "is a path of the host"),
        ("volumes: ['./files/models/../../secrets:/s:ro']", "is a path of the host"),
        ("volumes: ['./files:/all:ro']", "is a path of the host"),
        ("volumes: ['/var/run/docker.sock:/d.sock']", "the engine's socket"),
        ("volumes: ['./files/other:/m:ro']", "is none of extras.files"),
        ("volumes: ['./files/models:/m']", "is mounted writable"),
        ("volumes: ['./files/models:/m:rw']", "is mounted writable"),
        ("volumes: ['./files/models:/m:z']", "is not SOURCE:TARGET"),
        ("volumes: [/data]", "is not SOURCE:TARGET"),
        ("volumes: ['state:/state']", "is no volume of this file"),
        ("volumes: ['./wheels:/run/secrets:ro']", "cannot be mounted on"),
        ("volumes: ['./wheels:/:ro']", "cannot be mounted on"),
        ("volumes: ['./wheels:/proc/x:ro']", "cannot be mounted on"),
        ("volumes: ['./wheels:/w:ro', './files/models:/w:ro']", "have one target"),
        ("tmpfs: /sys/x", "cannot be mounted on"),
        ("tmpfs: ['/tmp:exec']", "is not a path, or PATH:size"),
        ("environment: {MLFLOW_TRACKING_PASSWORD: x}", "looks like a secret"),
        ("environment: {OPENAI_API_KEY: x}", "looks like a secret"),
        ("environment: {secret: x}", "looks like a secret"),
        ("environment: {AWS_SECRET_ACCESS_KEY: x}", "looks like a secret"),
        ("environment: {'A B': x}", "is not the name of a variable"),
        ("environment: [HOME]", "is not a table"),
        ("environment: {A: $HOME}", "variables are not put in"),
        ("command: [a, '${X:-y}']", "variables are not put in"),
        ("command: [a, [b]]", "is not a list of words"),
        ('command: ["a\\0b"]', "control character"),
        ('command: ["a\\eb"]', "control character"),
        ("mem_limit: 1t", "is not a size"),
        ("mem_limit: -1", "is not a size"),
        ("pids_limit: -1", "is not a number"),
        ("pids_limit: true", "is not a number"),
        ("cpus: nan", "is not a number of processors"),
        ("restart: always", "is not no or"),
        ("stop_grace_period: 0s", "is not a duration"),
        ("healthcheck: {test: [x]}", "is not a test"),
        ("healthcheck: {tset: [CMD, x]}", "is not a table"),
        ("depends_on: [mlflow]", "is no service of this file"),
        ("depends_on: [evaluator]", "waits for itself"),
        ("x-tracking: {client: maybe}", "is not true or false"),
        ("x-tracking: {writable: ''}", "is not the reason"),
        ("x-tracking: {priviledge: true}", "is not a table"),
        ("comand: x", "is not a key"),
    ],
)
def test_rule_refuses(line: str, message: str) -> None:
    found = one(f"    {line}")
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is none"),
        ("services: {}", "there is none"),
        ("services: [a]", "is not a table"),
        ("- a", "is not a table"),
        ("services: {a: {image: evaluator}", "cannot be read"),
        ("services: {a: &x {image: evaluator}, b: *x}", "anchors and aliases"),
        ("services: {a: !!python/object/apply:os.system [x]}", "is not a table"),
        ("services: {a: {image: !!python/name:os.system ''}}", "could not determine"),
        ("services: {queue: {image: queue}, queue: {image: queue}}", "there twice"),
        ("services: {queue: {image: queue}}\n---\nservices: {}", "cannot be read"),
        ("a: " + "[" * 30 + "]" * 30, "nested too deep"),
        ("#" * 70_000, "larger than"),
        ("services: {mlflow: {image: queue}}", "service of ours"),
        ("services: {Queue: {image: queue}}", "cannot be a name"),
        ("services: {queue: {image: nginx}}", "none of extras.images"),
        ("services: {queue: {}}", "has no image"),
        (
            "services: {queue: {image: queue}}\nvolumes: {a: {driver_opts: {device: /}}}",
            "no options",
        ),
        ("servics: {}", "is not a key"),
        (
            "services: {a: {image: queue, depends_on: [b]}, b: {image: queue, depends_on: [a]}}",
            "waits for itself",
        ),
    ],
)
def test_form_is_refused(text: str, message: str) -> None:
    found = problems(text)
    assert any(message in problem for problem in found), found


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        parse("a: 한국".encode("euc-kr"), "f.yaml", images=(), files=())


def test_everything_is_told_at_once() -> None:
    found = one("    privileged: true\n    ports: ['80:80']\n    comand: x\n    user: root")
    assert [problem.split(":")[1] for problem in found] == ["4", "5", "6", "7"]


def test_typing_error_gets_its_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        services("services: {queue: {image: queue, mem_limt: 1g}}")
    assert caught.value.problems[0].hint == "Did you mean mem_limit?"


def test_usual_settings_are_no_secrets() -> None:
    names = ("TOKENIZERS_PARALLELISM", "MAX_TOKENS", "PASSES", "KEYBOARD", "HF_TOKEN_FILE")
    pairs = ", ".join(f"{name}: x" for name in names)
    (queue,) = services(f"services: {{queue: {{image: queue, environment: {{{pairs}}}}}}}")
    assert tuple(queue.environment) == names
