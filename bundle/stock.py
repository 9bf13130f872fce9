"""What is on this closed host: layers in its engine and wheels in its store, as an inventory; reads only.

The engine is asked for its images; which blob a layer came from is read in the manifests of the unpacked releases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bundle import manifest, site, store
from bundle.delta import Inventory, Layer, Wheel
from bundle.engine import Engine
from bundle.errors import IntegrityError
from bundle.host import Host
from bundle.manifest import Manifest, Need
from bundle.registry import Registry


def releases(root: Path) -> tuple[Manifest, ...]:
    """The manifest of each release that is unpacked under `root`; one that cannot be read is left out."""
    return tuple(_readable(sorted(root.glob("releases/*/MANIFEST.json"))))


def _readable(paths: Iterable[Path]) -> Iterator[Manifest]:
    for path in paths:
        try:
            yield manifest.parse(path.read_bytes())
        except (OSError, IntegrityError):
            continue


def look(
    engine: Engine, root: Path, current: Manifest, registry: Registry | None = None
) -> Inventory:
    """The inventory of this host, whose release is `current`; with the site's `registry` the layers are those there.

    Raises PreconditionError when no engine or registry answers, CommandError when it refuses.
    """
    known = (*releases(root), current)
    found = in_registry(registry, current, known) if registry else in_engine(engine, current, known)
    wheels, small = tuple(_wheels(root, known)), tuple(_small(root))
    return replace(found, wheels=wheels, small=small, files=_files(root))


def _files(root: Path) -> tuple[str, ...]:
    """The digests of the site's own files that are as we placed them."""
    host = Host(root=root)
    right = {digest for path, digest in site.placed(host).items() if digest}
    found = {site.digest_of(host.path(path)) for path in site.placed(host)}
    return tuple(sorted(right & found))


def in_registry(registry: Registry, current: Manifest, known: Sequence[Manifest] = ()) -> Inventory:
    """The layers that the registry has of the releases `known` and of `current`, in any image's repository.

    Raises PreconditionError when it does not answer.
    """
    images = [image for release in (*known, current) for image in release.images]
    names = sorted({image.name for image in images})
    pairs = {
        (diff_id, blob)
        for image in images
        for diff_id, blob in zip(image.diff_ids, image.layers, strict=True)
    }
    here = sorted(pair for pair in pairs if any(registry.has(name, pair[1]) for name in names))
    return Inventory(
        version=current.version,
        arch=current.arch,
        store="registry",
        images=tuple((Layer(diff_id=diff_id, digest=blob),) for diff_id, blob in here),
    )


def in_engine(engine: Engine, current: Manifest, known: Sequence[Manifest] = ()) -> Inventory:
    """The layers that the engine has of the releases `known` and of `current`, whose version the inventory bears.

    Raises PreconditionError when no engine answers, CommandError when it refuses.
    """
    known = (*known, current)
    in_containerd = store.is_containerd(engine)
    images = _by_digest(engine, known) if in_containerd else _by_chain(engine, known)
    return Inventory(
        version=current.version,
        arch=current.arch,
        store="containerd" if in_containerd else "graphdriver",
        images=tuple(sorted(set(images), key=repr)),
    )


def _by_digest(engine: Engine, known: Sequence[Manifest]) -> Iterator[tuple[Layer, ...]]:
    """The images whose manifest the containerd store has: it keeps all of their blobs."""
    here = set(store.ids(engine))
    for release in known:
        for image in release.images:
            if image.manifest in here:
                pairs = zip(image.diff_ids, image.layers, strict=True)
                yield tuple(Layer(diff_id=diff_id, digest=blob) for diff_id, blob in pairs)


def _by_chain(engine: Engine, known: Sequence[Manifest]) -> Iterator[tuple[Layer, ...]]:
    """The layers of the graph driver's images, as far as a release of ours has them too."""
    blobs = {
        diff_id: blob
        for release in known
        for image in release.images
        for diff_id, blob in zip(image.diff_ids, image.layers, strict=True)
    }
    for name in store.ids(engine):
        facts = store.inspect(engine, name)
        chain = tuple(facts["RootFS"].get("Layers") or ()) if facts else ()
        while chain and chain[-1] not in blobs:
            chain = chain[:-1]
        if chain:
            yield tuple(Layer(diff_id=one, digest=blobs.get(one, "")) for one in chain)


def _wheels(root: Path, known: Sequence[Manifest]) -> Iterator[Wheel]:
    parts = {
        part.sha256: part
        for release in known
        for part in release.parts
        if part.path.startswith("wheels/")
    }
    for digest, part in sorted(parts.items()):
        try:
            data = (root / "wheels" / digest).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == digest:
            yield Wheel(name=part.path.removeprefix("wheels/"), sha256=digest, size=len(data))


def _small(root: Path) -> Iterator[Need]:
    """The files of the small part that lie in a release as they were sealed."""
    seen: set[tuple[str, str]] = set()
    for path in sorted(root.glob("releases/*/MANIFEST.json")):
        for part in (part for one in _readable([path]) for part in one.parts):
            place = path.parent / part.path.removeprefix("small/")
            if not part.path.startswith("small/") or (part.path, part.sha256) in seen:
                continue
            if site.digest_of(place) == part.sha256:
                seen.add((part.path, part.sha256))
                yield Need(path=part.path, size=part.size, sha256=part.sha256)
