"""Points for tests that need some."""

from __future__ import annotations

import datetime
from typing import Any

from bundle.points import Pack, Point

NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)


def make_point(number: int = 1, at: datetime.datetime = NOON, **more: Any) -> Point:
    """The point `number`, of a chain of as many packs."""
    packs = tuple(
        Pack(pack=f"pack{n}", index=f"index{n}", sha256="ab" * 32, count=n, size=n * 10)
        for n in range(1, number + 1)
    )
    values: dict[str, Any] = {
        "id": f"cp-{number}",
        "at": at,
        "segment": f"{number:024X}".replace("0" * 8, "00000001", 1),
        "database": "20261121-110000F",
        "packs": packs,
        "config": f"config{number}",
        "opener": "ef" * 32,
        "objects": number,
        "state": "cd" * 32,
        "size": number * 10,
        "databases": 1000,
        "stored": 5,
        "version": "1.2.3",
        "images": {"mlflow": "sha256:1"},
    }
    return Point(**values | more)
