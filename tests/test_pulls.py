"""In which order images are pulled, so that the containerd store unpacks what they share once."""

from __future__ import annotations

import dataclasses

import pytest

from bundle import pulls
from bundle.manifest import SealedImage
from tests.test_delta import image

SIZES = {"gateway": 1, "postgres": 2, "minio": 3, "ops": 4, "phoenix": 5, "mlflow": 6}
LAYERS = {
    "mlflow": "apwm",
    "phoenix": "apwh",
    "ops": "apwo",
    "minio": "asi",
    "gateway": "asg",
    "postgres": "aq",
}


def stack(*names: str) -> list[SealedImage]:
    """Images of the layers above; each is as big as its number."""
    found = names or tuple(LAYERS)
    return [dataclasses.replace(image(name, *LAYERS[name]), size=SIZES[name]) for name in found]


def test_smallest_brings_what_is_shared_and_the_others_wait_for_it() -> None:
    assert pulls.turns(stack(), set()) == {
        "gateway": set(),
        "postgres": {"gateway"},
        "minio": {"gateway"},
        "ops": {"gateway"},
        "phoenix": {"gateway", "ops"},
        "mlflow": {"gateway", "ops"},
    }


def test_order_in_which_images_are_named_means_nothing() -> None:
    assert pulls.turns(stack()[::-1], set()) == pulls.turns(stack(), set())


@pytest.mark.parametrize(
    ("here", "waiting"),
    [
        ("a", {"minio": {"gateway"}, "mlflow": {"ops"}, "phoenix": {"ops"}}),
        ("ap", {"minio": {"gateway"}, "mlflow": {"ops"}, "phoenix": {"ops"}}),
        ("apw", {"minio": {"gateway"}}),
    ],
)
def test_nobody_waits_for_what_is_there(here: str, waiting: dict[str, set[str]]) -> None:
    there = set(image("here", *here).chains)
    found = pulls.turns(stack(), there)
    assert {name: others for name, others in found.items() if others} == waiting


def test_images_that_share_nothing_do_not_wait() -> None:
    found = pulls.turns([image("x", *"ab"), image("y", *"ca")], set())
    assert found == {"x": set(), "y": set()}  # the same layer on another base is unpacked anew


def test_no_layer_is_brought_by_two_at_once() -> None:
    """Whatever has not ended when an image begins has no layer in common with it that is missing."""
    images = {one.name: one for one in stack()}
    waits = pulls.turns(list(images.values()), set())

    def before(name: str) -> set[str]:
        return waits[name] | {one for other in waits[name] for one in before(other)}

    for one in images.values():
        at_once = {n for n in images if n != one.name and n not in before(one.name)}
        at_once -= {n for n in at_once if one.name in before(n)}
        ready = {chain for name in before(one.name) for chain in images[name].chains}
        for other in at_once:
            both = set(one.chains) & set(images[other].chains)
            assert both <= ready | {c for n in before(other) for c in images[n].chains}, other
