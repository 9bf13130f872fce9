"""Let the engine pull several images from one registry at once, and unpack what they share once.

The containerd store unpacks a layer again for each image that asks while no other has finished it. There an image waits
for those that bring what it shares with them; a graph driver sees to that itself.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from bundle import store
from bundle.engine import Engine
from bundle.errors import BundleError
from bundle.manifest import Manifest, SealedImage
from bundle.model import Secret
from bundle.run import Progress, log
from bundle.words import say


def turns(images: Sequence[SealedImage], there: Set[tuple[str, ...]]) -> dict[str, set[str]]:
    """For each image the names of those that it waits for, since they bring layers that it has too; smallest first.

    `there`: the chains of layers that nobody must bring.
    """
    bringer: dict[tuple[str, ...], str] = {}
    waits: dict[str, set[str]] = {}
    for image in sorted(images, key=lambda image: (image.size, image.name)):
        missing = (chain for chain in image.chains if chain not in there)
        waits[image.name] = {bringer.setdefault(chain, image.name) for chain in missing}
        waits[image.name].discard(image.name)
    return waits


def pull_all(
    manifest: Manifest,
    images: Sequence[SealedImage],
    engine: Engine,
    base: str,
    waits: Mapping[str, Set[str]],
    login: Secret | None = None,
) -> tuple[dict[str, float], list[BundleError]]:
    """Pull `images` from the registry and folder `base`, each when those that it `waits` for are done.

    From the bundle's door by digest, then they get their names; from the site's, with its `login`, by their names.
    Returns the seconds of each image that was pulled, and why others were not.
    """
    gauge, done, errors = _Gauge(manifest, images), dict[str, float](), list[BundleError]()
    ended = {image.name: threading.Event() for image in images}
    interrupted = threading.Event()

    def pull(image: SealedImage) -> None:
        for name in waits.get(image.name, ()):
            ended[name].wait()
        begin = time.monotonic()
        try:
            if interrupted.is_set():
                return
            for event in _pull(engine, base, image, login):
                gauge.note(event)
            gauge.finish(image)
            done[image.name] = time.monotonic() - begin
        except BundleError as error:
            errors.append(error)
        finally:
            ended[image.name].set()

    # daemons: a tool that is interrupted twice ends at once
    threads = [threading.Thread(target=pull, args=(image,), daemon=True) for image in images]
    for thread in threads:
        thread.start()
    _wait(threads, interrupted)
    gauge.progress.close()
    return done, errors


def _pull(
    engine: Engine, base: str, image: SealedImage, login: Secret | None
) -> Iterator[dict[str, Any]]:
    own = dataclasses.replace(engine)  # a connection of its own
    wanted = image.manifest if login is None else image.reference.rpartition(":")[2]
    yield from store.pull(own, base + image.name, wanted, login)
    if login is None:
        source = f"{base}{image.name}@{image.manifest}"
        store.tag(own, source, image.reference)
        store.untag(own, source)


def _wait(threads: Sequence[threading.Thread], interrupted: threading.Event) -> None:
    """Wait for the pulls, on an interrupt too: engines were seen to crash when a pull of zstd layers was broken off."""
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        interrupted.set()
        text = say(
            "ending once the engine has taken what it began; again: at once",
            "엔진이 시작한 작업을 마치면 끝냅니다. 다시 누르면 즉시 끝냅니다",
        )
        log.info("  %s", text)
        for thread in threads:
            thread.join()
        raise


class _Gauge:
    """Bytes of layers that the engine has taken, out of the events of several pulls.

    Half of a layer counts when it has been sent, half when it is unpacked; one kind of store tells of the first only.
    """

    def __init__(self, manifest: Manifest, images: Sequence[SealedImage]) -> None:
        layers = {layer for image in images for layer in image.layers}
        self.sizes = {layer[7:19]: manifest.size_of(layer) for layer in layers}
        self.done = dict.fromkeys(self.sizes, 0)
        self.progress = Progress("importing images", sum(self.sizes.values()))
        self.lock = threading.Lock()

    def note(self, event: Mapping[str, Any]) -> None:
        """Count what `event` says about a layer."""
        layer, status = event.get("id", ""), event.get("status", "")
        size, current = self.sizes.get(layer, 0), event.get("progressDetail", {}).get("current", 0)
        counts = {
            "Downloading": current // 2,
            "Download complete": size // 2,
            "Extracting": (size + current) // 2,
            "Pull complete": size,
            "Already exists": size,
        }
        self.count(layer, counts.get(status, 0))

    def finish(self, image: SealedImage) -> None:
        """Count all of `image` as taken."""
        for layer in image.layers:
            self.count(layer[7:19], self.sizes[layer[7:19]])

    def count(self, layer: str, current: int) -> None:
        with self.lock:
            current = min(current, self.sizes.get(layer, 0))
            if current > self.done.get(layer, 0):
                self.progress.add(current - self.done[layer])
                self.done[layer] = current
