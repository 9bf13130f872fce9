"""A user's client: stock packages and the environment of users.env, and nothing else of ours or of this machine."""

from __future__ import annotations

import json
import re
import shutil
import venv
from pathlib import Path
from typing import Any

import pytest

from bundle import rehearse
from bundle.errors import CommandError
from bundle.run import run
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).parent
LOCK = HERE.parents[1] / "requirements/dev.lock"
FOLDER = Path("/var/tmp/tracking-bundle-tests/client")
PACKAGES = ("mlflow-skinny", "arize-phoenix-client", "arize-phoenix-otel")
SIZES = ("16", "600")
LIMIT_S = 400  # both sizes up and down took 15 s; a client that is sent to the object store hangs for ten minutes


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of a virtual environment with the stock packages only, kept between runs."""
    versions = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text("utf-8"), re.MULTILINE))
    wanted = [f"{name}=={versions[name]}" for name in PACKAGES]
    mark, folder = FOLDER / "packages", FOLDER / "venv"
    if not mark.exists() or mark.read_text("utf-8").split() != wanted:
        shutil.rmtree(FOLDER, ignore_errors=True)
        venv.create(folder, with_pip=True)
        run([str(folder / "bin/pip"), "install", "--quiet", *wanted], timeout=600)
        mark.write_text("\n".join(wanted), "utf-8")
    return folder / "bin/python"


def environment(stack: Stack, name: str, folder: Path) -> dict[str, str]:
    """What users.env wrote for a person, with the CA file brought over as a user would."""
    inside = f"/root/{name}.env"
    answer = stack.invoke("users.env", "--user", name, "--out", inside, timeout=120)
    assert answer == f"{inside}\n"
    file = stack.host.root / inside.lstrip("/")
    assert file.stat().st_mode & 0o777 == 0o600
    found = dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())
    own = f"{inside}.ca.crt"
    shutil.copy(stack.host.root / own.lstrip("/"), folder / "ca.crt")
    return {key: value.replace(own, str(folder / "ca.crt")) for key, value in found.items()}


def add(stack: Stack, name: str, role: str) -> None:
    """Add a person, unless an earlier run has."""
    if name not in stack.invoke("users.list").split():
        stack.invoke("users.add", name, "--role", role)


def client(stack: Stack, folder: Path, env: dict[str, str], *command: str, timeout: float) -> str:
    """Run a command on this machine in the closed host's network, with `env` only and a name for its loopback."""
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 closed.internal\n", "ascii")
    inner = 'mount --bind "$1" /etc/hosts && cd "$2" && shift 2 && exec "$@"'
    line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner, "sh"]
    bare = {"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", "HOME": str(folder)}
    return stack.host.beside(
        [*line, str(hosts), str(folder), *command], timeout=timeout, env={**bare, **env}
    )


def test_stock_client_logs_to_both_and_moves_large_artifacts(
    stack: Stack, python: Path, tmp_path: Path
) -> None:
    add(stack, "kim", "editor")
    env = environment(stack, "kim", tmp_path)
    script = str(HERE / "stock_client.py")
    answer = client(stack, tmp_path, env, str(python), script, *SIZES, timeout=LIMIT_S)
    found: dict[str, Any] = json.loads(answer.strip().splitlines()[-1])
    assert found["params"] == {"dataset_name": "insurance_qa_korean", "질문": "보장 개시일"}
    assert found["metrics"] == {"faithfulness": 0.9}
    assert (found["grpc"], found["http"]) == (1, 1)
    assert [part["equal"] for part in found["artifacts"]] == [True, True]


def test_viewer_reads_and_writes_nothing(stack: Stack, python: Path, tmp_path: Path) -> None:
    add(stack, "lee", "viewer")
    env = environment(stack, "lee", tmp_path)
    read = "import mlflow; print(len(mlflow.search_runs(output_format='list')) >= 0)"
    assert client(stack, tmp_path, env, str(python), "-c", read, timeout=120).endswith("True\n")
    write = "import mlflow; mlflow.start_run()"
    with pytest.raises(CommandError, match=r"PERMISSION_DENIED|Permission denied|403"):
        client(stack, tmp_path, env, str(python), "-c", write, timeout=120)


def test_admin_has_an_environment_too(stack: Stack, python: Path, tmp_path: Path) -> None:
    add(stack, "choi", "admin")
    stack.invoke("users.enable", "choi")
    env = environment(stack, "choi", tmp_path)
    read = "import mlflow; print(mlflow.get_experiment_by_name('evalvault').name)"
    assert "evalvault" in client(stack, tmp_path, env, str(python), "-c", read, timeout=120)
    assert stack.containers()["mlflow"].health == "healthy"


def test_unknown_person_is_an_argument_error(stack: Stack) -> None:
    with pytest.raises(CommandError, match=r"exit code 2(?s:.*)invoke users\.add"):
        stack.invoke("users.env", "--user", "nobody", "--out", "/root/nobody.env", timeout=60)


def test_people_are_in_both_trackers(stack: Stack) -> None:
    add(stack, "park", "editor")
    with pytest.raises(CommandError, match=r"exit code 2(?s:.*)there already"):
        stack.invoke("users.add", "park", timeout=60)
    lines = [line.split() for line in stack.invoke("users.list").splitlines()]
    assert ["park", "editor", "-", "editor"] in lines
    assert f"{rehearse.PRODUCT_ROOT}" not in "".join(map("".join, lines))
