"""The two bills of materials, SPDX 2.3 and CycloneDX 1.6, out of one inventory: the same list gives the same bytes."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from typing import Any

from bundle.components import BESIDE, Component, Inventory, Patch

PRODUCT = "tracking-bundle"
OWN_LICENCE = "Apache-2.0"
SPACE = uuid.UUID("6f1ac0de-5eed-5b0c-8a11-7261636b6267")  # ours, for names made of content
TEXTS = "the text travels in small/release/licences.tar.xz"
NONE = "NOASSERTION"


def moment(seconds: int) -> str:
    """Seconds since 1970 as both forms write a time."""
    found = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


def identity(inventory: Inventory, form: str) -> uuid.UUID:
    """A number that is the same for the same inventory only."""
    digest = hashlib.sha256(repr(inventory).encode()).hexdigest()
    return uuid.uuid5(SPACE, f"{form} {digest}")


def dump(document: dict[str, Any]) -> bytes:
    """The document's bytes."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def spdx(inventory: Inventory) -> dict[str, Any]:
    """The inventory as an SPDX 2.3 document."""
    name = f"{PRODUCT}-{inventory.version}-{inventory.arch}"
    packages = [_spdx_product(inventory)]
    packages += [_spdx_image(inventory, image) for image in inventory.images]
    packages += [_spdx_package(inventory, component) for component in inventory.components]
    expressions = (component.licence for component in inventory.components)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{identity(inventory, 'spdx')}",
        "creationInfo": {
            "created": moment(inventory.created),
            "creators": [f"Tool: {PRODUCT}-{inventory.version}"],
        },
        "packages": packages,
        "relationships": _spdx_relations(inventory),
        "hasExtractedLicensingInfos": [
            {"licenseId": name, "name": name.removeprefix("LicenseRef-"), "extractedText": TEXTS}
            for name in _own_names(expressions)
        ],
    }


def _own_names(expressions: Iterable[str]) -> list[str]:
    found = (re.findall(r"LicenseRef-[A-Za-z0-9.-]+", text) for text in expressions)
    return sorted({name for names in found for name in names})


def _spdx_product(inventory: Inventory) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{PRODUCT}",
        "name": PRODUCT,
        "versionInfo": inventory.version,
        "supplier": NONE,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": OWN_LICENCE,
        "copyrightText": NONE,
        "primaryPackagePurpose": "APPLICATION",
    }


def _spdx_image(inventory: Inventory, name: str) -> dict[str, Any]:
    package = {
        "SPDXID": f"SPDXRef-image-{_plain(name)}",
        "name": f"{PRODUCT}/{name}",
        "versionInfo": inventory.version,
        "supplier": NONE,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": _hex(inventory.images[name])}],
    }
    if name in inventory.told:
        package["comment"] = "a site's own image; listed is what its own package lists name"
    elif name in inventory.unread:
        package["comment"] = "a site's own image; its contents are not listed"
    return package


def _spdx_package(inventory: Inventory, component: Component) -> dict[str, Any]:
    package: dict[str, Any] = {
        "SPDXID": f"SPDXRef-{component.id}",
        "name": component.name,
        "versionInfo": component.version,
        "supplier": NONE,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": component.licence or NONE,
        "copyrightText": NONE,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": component.purl(inventory.suite),
            }
        ],
    }
    if component.stated and not component.licence:
        package["licenseComments"] = f"upstream states: {component.stated}"
    if component.source:
        package["sourceInfo"] = f"source: {component.source} {component.source_version}"
    if component.h1:
        package["comment"] = f"go.sum: {component.h1}"
    if component.sha256:
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": component.sha256}]
    if component.patches:
        package["annotations"] = [_annotation(inventory, one) for one in component.patches]
    return package


def _annotation(inventory: Inventory, patch: Patch) -> dict[str, str]:
    return {
        "annotationDate": moment(inventory.created),
        "annotationType": "OTHER",
        "annotator": f"Tool: {PRODUCT}-{inventory.version}",
        "comment": f"patched: {patch.name} (sha256 {patch.sha256}) {' '.join(patch.closes)}".strip(),
    }


def _spdx_relations(inventory: Inventory) -> list[dict[str, str]]:
    product = f"SPDXRef-{PRODUCT}"
    pairs = [("SPDXRef-DOCUMENT", "DESCRIBES", product)]
    pairs += [(product, "CONTAINS", f"SPDXRef-image-{_plain(name)}") for name in inventory.images]
    for component in inventory.components:
        holders = (
            product if p in BESIDE else f"SPDXRef-image-{_plain(p)}" for p in component.places
        )
        pairs += [(h, "CONTAINS", f"SPDXRef-{component.id}") for h in dict.fromkeys(holders)]
    return [
        {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
        for one, kind, other in pairs
    ]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def cyclonedx(inventory: Inventory) -> dict[str, Any]:
    """The inventory as a CycloneDX 1.6 document."""
    root = {
        "type": "application",
        "bom-ref": PRODUCT,
        "name": PRODUCT,
        "version": inventory.version,
        "licenses": [{"license": {"id": OWN_LICENCE}}],
    }
    images = [
        {
            "type": "container",
            "bom-ref": f"image-{name}",
            "name": f"{PRODUCT}/{name}",
            "version": inventory.version,
            "hashes": [{"alg": "SHA-256", "content": _hex(digest)}],
        }
        for name, digest in inventory.images.items()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity(inventory, 'cyclonedx')}",
        "version": 1,
        "metadata": {
            "timestamp": moment(inventory.created),
            "tools": {
                "components": [
                    {"type": "application", "name": PRODUCT, "version": inventory.version}
                ]
            },
            "component": root,
        },
        "components": [
            *images,
            *(_cyclonedx_component(inventory, c) for c in inventory.components),
        ],
        "dependencies": _cyclonedx_tree(inventory),
        "compositions": _compositions(inventory),
    }


def _cyclonedx_component(inventory: Inventory, component: Component) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": component.id,
        "name": component.name,
        "version": component.version,
        "purl": component.purl(inventory.suite),
    }
    if component.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": component.sha256}]
    if component.licence:
        found["licenses"] = [{"expression": component.licence}]
    elif component.stated:
        found["licenses"] = [{"license": {"name": component.stated}}]
    if component.patches:
        found["pedigree"] = {"patches": [_cyclonedx_patch(one) for one in component.patches]}
    properties = {"go.sum": component.h1}
    if component.source:
        properties["source"] = f"{component.source} {component.source_version}"
    listed = [
        {"name": f"{PRODUCT}:{name}", "value": value}
        for name, value in sorted(properties.items())
        if value
    ]
    return found | ({"properties": listed} if listed else {})


def _cyclonedx_patch(patch: Patch) -> dict[str, Any]:
    """The patch itself is in the file with MinIO's source, under this name."""
    closed = [{"type": "security", "id": one} for one in patch.closes]
    where = {"diff": {"url": f"{patch.name}#sha256={patch.sha256}"}}
    return {"type": "unofficial", **where} | ({"resolves": closed} if closed else {})


def _cyclonedx_tree(inventory: Inventory) -> list[dict[str, Any]]:
    """Who holds what: the product its images and the wheels beside them, each image its packages."""
    top = [f"image-{name}" for name in inventory.images]
    beside = [c.id for c in inventory.components if set(BESIDE) & set(c.places)]
    tree = [{"ref": PRODUCT, "dependsOn": [*top, *beside]}]
    return tree + [
        {"ref": f"image-{name}", "dependsOn": [c.id for c in inventory.of(name)]}
        for name in inventory.images
    ]


def _compositions(inventory: Inventory) -> list[dict[str, Any]]:
    """Which lists are whole: those of our images are, a site's own are as far as they say it themselves, or unknown."""
    foreign = {*inventory.told, *inventory.unread}
    known = [name for name in inventory.images if name not in foreign]
    groups = {"complete": known, "incomplete": inventory.told, "unknown": inventory.unread}
    return [
        {"aggregate": kind, "assemblies": [f"image-{name}" for name in names]}
        for kind, names in groups.items()
        if names or kind == "complete"
    ]
