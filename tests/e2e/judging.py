"""A site's own evaluation service: what its bundle.toml names, ready to be sealed."""

from __future__ import annotations

import os
from pathlib import Path

from bundle import images
from bundle.config import parse_bundle
from bundle.engine import Engine
from bundle.run import run
from tests.test_extras import sound_wheel

TOP = Path(__file__).parents[2]
JUDGE = Path(__file__).parent / "judge"
IMAGE = "tracking-bundle-test/judge:1"
TOML = f"""[extras]
images = ["judge={IMAGE}"]
files = ["models"]
wheels = ["wheels"]
compose = "compose.yaml"
"""


def build_judge() -> None:
    """The service's image: ours of ops, which has the stock clients, and one script."""
    workshop = images.open_workshop(parse_bundle(""), Engine(), TOP)
    images.ensure(workshop, "ops")
    parent = f"PARENT={workshop.reference('ops')}"
    command = ["docker", "build", "--quiet", "--network", "none", "--build-arg", parent]
    run([*command, "--tag", IMAGE, str(JUDGE)], timeout=300)


def write_site(folder: Path) -> Path:
    """The bundle.toml of the service in `folder`, with its model and its helper beside it; its image is built."""
    (folder / "models").mkdir()
    (folder / "models" / "model.bin").write_bytes(os.urandom(2_000_000))
    (folder / "wheels").mkdir()
    sound_wheel(folder / "wheels")
    (folder / "compose.yaml").write_bytes((JUDGE / "compose.yaml").read_bytes())
    (folder / "bundle.toml").write_text(TOML)
    build_judge()
    return folder / "bundle.toml"
