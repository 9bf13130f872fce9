"""The inventory's readings of upstream's own files, its two bills of materials, and the provenance."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import licences, notices, provenance, sbom
from bundle.components import (
    BESIDE,
    Component,
    Inventory,
    Text,
    deb_source,
    is_licence_file,
    merge,
    parse_build_info,
    parse_go_sum,
    read_patch,
)
from bundle.recipes import read_recipes
from tests.bundles import TOP
from tests.supplies import BUILD_INFO, INVENTORY, TEXTS


def validate_spdx(document: bytes, folder: Path) -> list[str]:
    """What SPDX's own tool says against a document."""
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    path = folder / "sbom.spdx.json"
    path.write_bytes(document)
    found = validate_full_spdx_document(parse_file(str(path)))
    return [message.validation_message for message in found]


def validate_cyclonedx(document: bytes) -> str:
    """What CycloneDX' own schema says against a document."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) or "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_spdx_passes_its_own_tool(tmp_path: Path) -> None:
    assert validate_spdx(sbom.dump(sbom.spdx(INVENTORY)), tmp_path) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_spdx_tool_goes_red(tmp_path: Path) -> None:
    document = sbom.spdx(INVENTORY)
    document["packages"][-1]["licenseDeclared"] = "LicenseRef-nobody-knows"
    assert validate_spdx(sbom.dump(document), tmp_path)


def test_cyclonedx_passes_its_own_schema() -> None:
    assert validate_cyclonedx(sbom.dump(sbom.cyclonedx(INVENTORY))) == ""


def test_both_bills_say_what_was_patched() -> None:
    (patched,) = (c for c in sbom.cyclonedx(INVENTORY)["components"] if "pedigree" in c)
    assert patched["name"] == "github.com/minio/minio"
    first, second = patched["pedigree"]["patches"]
    assert [one["id"] for one in first["resolves"]] == ["CVE-2026-1", "GHSA-1-2-3"]
    assert "resolves" not in second
    (package,) = (p for p in sbom.spdx(INVENTORY)["packages"] if "annotations" in p)
    assert package["name"] == "github.com/minio/minio"
    said = [one["comment"] for one in package["annotations"]]
    assert said[0] == f"patched: patches/1.patch (sha256 {'8' * 64}) CVE-2026-1 GHSA-1-2-3"


def test_patch_says_by_its_head_what_it_closes() -> None:
    text = b"CVE-2026-1 (GHSA-abcd-efgh-2345): a\n\nand CVE-2026-1\n\n--- a/x\n+// CVE-2026-2\n"
    found = read_patch("patches/1.patch", text)
    assert found.closes == ("CVE-2026-1", "GHSA-abcd-efgh-2345")


def test_cyclonedx_schema_goes_red() -> None:
    document = sbom.cyclonedx(INVENTORY)
    document["components"][0]["type"] = "nothing"
    assert validate_cyclonedx(sbom.dump(document))


def test_both_bills_name_every_component_in_every_place() -> None:
    spdx, cyclone = sbom.spdx(INVENTORY), sbom.cyclonedx(INVENTORY)
    pairs = {
        (one["spdxElementId"], one["relatedSpdxElement"])
        for one in spdx["relationships"]
        if one["relationshipType"] == "CONTAINS"
    }
    tree = {node["ref"]: set(node["dependsOn"]) for node in cyclone["dependencies"]}
    for component in INVENTORY.components:
        for place in component.places:
            holder = "tracking-bundle" if place in BESIDE else f"image-{place}"
            assert (f"SPDXRef-{holder}", f"SPDXRef-{component.id}") in pairs
            assert component.id in tree[holder]
    assert len(pairs) == len(INVENTORY.images) + sum(len(c.places) for c in INVENTORY.components)


def test_bills_do_not_depend_on_order_and_do_on_content() -> None:
    shuffled = replace(INVENTORY, components=merge(reversed(INVENTORY.components)))
    assert sbom.dump(sbom.spdx(shuffled)) == sbom.dump(sbom.spdx(INVENTORY))
    assert sbom.dump(sbom.cyclonedx(shuffled)) == sbom.dump(sbom.cyclonedx(INVENTORY))
    other = replace(INVENTORY, components=INVENTORY.components[1:])
    assert sbom.spdx(other)["documentNamespace"] != sbom.spdx(INVENTORY)["documentNamespace"]


def test_sites_own_image_is_named_and_said_to_be_unread() -> None:
    more = replace(
        INVENTORY, images={**INVENTORY.images, "site": "sha256:" + "9" * 64}, unread=("site",)
    )
    spdx, cyclone = sbom.spdx(more), sbom.cyclonedx(more)
    assert any("not listed" in package.get("comment", "") for package in spdx["packages"])
    assert {"aggregate": "unknown", "assemblies": ["image-site"]} in cyclone["compositions"]
    told = replace(more, unread=(), told=("site",))
    spdx, cyclone = sbom.spdx(told), sbom.cyclonedx(told)
    assert any(
        "its own package lists" in package.get("comment", "") for package in spdx["packages"]
    )
    assert {"aggregate": "incomplete", "assemblies": ["image-site"]} in cyclone["compositions"]


def test_ids_are_unique_whatever_the_letters() -> None:
    names = ["a+b", "a-b", "a_b", "a/b", "a.b", "A.b"]
    ids = {Component(kind="golang", name=name, version="v1").id for name in names}
    assert len(ids) == len(names)
    assert all(
        set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
        for one in ids
    )


@pytest.mark.parametrize(
    ("component", "purl"),
    [
        (
            Component(kind="deb", name="libstdc++6", version="1:2.0-1+b1", arch="amd64"),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A2.0-1%2Bb1?arch=amd64&distro=debian-13",
        ),
        (Component(kind="pypi", name="a-b", version="1.0+x"), "pkg:pypi/a-b@1.0%2Bx"),
        (
            Component(kind="golang", name="github.com/A/b", version="v1.0.0"),
            "pkg:golang/github.com/A/b@v1.0.0",
        ),
    ],
)
def test_package_urls(component: Component, purl: str) -> None:
    assert component.purl("trixie") == purl


def test_build_info_has_the_program_itself_and_all_it_links() -> None:
    info = parse_build_info(BUILD_INFO)
    assert info.go == "go1.26.11"
    assert [m.path for m in info.modules] == ["github.com/minio/minio", "golang.org/x/sys"]
    assert info.modules[1].h1 == "h1:bbb="


@pytest.mark.parametrize(
    "damage", [BUILD_INFO[:20], b"x" + BUILD_INFO, BUILD_INFO[:15] + b"\0" + BUILD_INFO[16:]]
)
def test_other_build_info_is_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match="not the build information"):
        parse_build_info(damage)


def test_module_that_we_patched_has_no_sum_in_the_program() -> None:
    from tests.supplies import build_info

    lines = "path\tm/n\nmod\tm/n\tv1\n=>\t./patched\t(devel)\t\ndep\ta\tv1\th1:a=\n"
    info = parse_build_info(build_info(lines))
    assert [(m.path, m.version, m.h1) for m in info.modules] == [
        ("a", "v1", "h1:a="),
        ("m/n", "v1", ""),
    ]


def test_replaced_module_is_refused() -> None:
    from tests.supplies import build_info

    with pytest.raises(ValueError, match="replaced"):
        parse_build_info(build_info("dep\ta\tv1\th1:a=\n=>\tb\tv1\th1:b=\n"))


def test_go_sum_is_read_in_both_kinds() -> None:
    modules, files = parse_go_sum("a v1 h1:x=\na v1/go.mod h1:y=\n")
    assert modules == {("a", "v1"): "h1:x="}
    assert files == {("a", "v1"): "h1:y="}


@pytest.mark.parametrize(
    ("control", "source"),
    [
        ("Package: a\nVersion: 1-2\n", ("a", "1-2")),
        ("Package: a\nSource: b\nVersion: 1-2\n", ("b", "1-2")),
        ("Package: a\nSource: b (3)\nVersion: 1-2+b1\n", ("b", "3")),
    ],
)
def test_debian_source_of_a_binary_rebuild(control: str, source: tuple[str, str]) -> None:
    assert deb_source(control) == source


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("LICENSE", True),
        ("a/b/COPYING.LESSER", True),
        ("licence.txt", True),
        ("x-1.dist-info/licenses/whatever", True),
        ("NOTICE.md", True),
        ("pkg/license.py", False),
        ("pkg/licenses.json", False),
        ("README.md", False),
    ],
)
def test_licence_files_by_their_name(path: str, found: bool) -> None:
    assert is_licence_file(path) is found


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("Expat", "MIT"),
        ("GPL-2+ or BSD-3-clause", "GPL-2.0-or-later OR BSD-3-Clause"),
        ("Expat and Zlib", "MIT AND Zlib"),
        ("something of our own", "LicenseRef-something-of-our-own"),
    ],
)
def test_debian_licence_names(name: str, expression: str) -> None:
    assert licences.debian_short(name) == expression


def test_debian_copyright_is_all_of_its_stanzas_and_a_free_text_is_none() -> None:
    text = "Format: x\n\nFiles: *\nLicense: GPL-2+\n\nFiles: a\nLicense: Expat\n text\n\nLicense: GPL-2+\n text\n"
    assert licences.of_copyright(text) == "GPL-2.0-or-later AND MIT"
    assert (
        licences.of_copyright("This package was debianized by somebody.\nLicense: GPL-2+\n") == ""
    )


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        (("MIT AND Zlib", "", []), "MIT AND Zlib"),
        (("", "Apache 2.0", []), "Apache-2.0"),
        (("", "Elastic-2.0", []), "Elastic-2.0"),
        (("", "", ["License :: OSI Approved :: MIT License"]), "MIT"),
        (("", "", ["License :: OSI Approved :: BSD License"]), ""),
        (("not one of them", "", []), ""),
    ],
)
def test_wheel_metadata(given: tuple[str, str, list[str]], expression: str) -> None:
    assert licences.of_metadata(*given) == expression


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Apache License\n   Version 2.0, January 2004", "Apache-2.0"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007", "AGPL-3.0-or-later"),
        ("Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
        (
            "Redistribution and use in source and binary forms ... Neither the name of",
            "BSD-3-Clause",
        ),
        ("Redistribution and use in source and binary forms", "BSD-2-Clause"),
        ("Do as you like", ""),
    ],
)
def test_plain_texts(text: str, licence: str) -> None:
    assert licences.of_text(text) == licence


def test_archive_has_each_text_once_and_an_index_of_all() -> None:
    raw = notices.archive(INVENTORY, TEXTS.__getitem__)
    assert raw == notices.archive(replace(INVENTORY, version="2", created=1), TEXTS.__getitem__)
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(raw))) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    index = files["INDEX.txt"].decode()
    for component in INVENTORY.components:
        assert f"{component.kind} {component.name} {component.version}\t" in index
        assert component.name in files["OVERVIEW.md"].decode()
        for text in component.texts:
            assert files[notices.text_path(text.sha256)] == TEXTS[text.sha256]
    assert len([name for name in files if name.startswith("texts/")]) == len(TEXTS)


def test_notice_states_the_terms_that_bind() -> None:
    text = notices.notice(INVENTORY, "tracking-bundle 1", "x-sources.tar")
    assert "third parties as a hosted or managed service" in text
    assert "x-sources.tar" in text
    assert "20.26.1" in text


def statement(inventory: Inventory = INVENTORY) -> dict[str, object]:
    locks = {"images/base/apt.lock": "a" * 64}
    documents = {"sbom.spdx.json.gz": "b" * 64}
    return provenance.statement(
        inventory, parameters={"base.source": "debootstrap"}, locks=locks, documents=documents
    )


def test_provenance_has_the_form_of_in_toto_and_slsa() -> None:
    found = json.loads(provenance.dump(statement()))
    assert set(found) == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    for one in found["subject"]:
        assert set(one) == {"name", "digest"}
        assert len(bytes.fromhex(one["digest"]["sha256"])) == 32
    assert {one["name"] for one in found["subject"]} == {
        f"tracking-bundle/{n}" for n in INVENTORY.images
    }
    predicate = found["predicate"]
    assert set(predicate) == {"buildDefinition", "runDetails"}
    definition, run = predicate["buildDefinition"], predicate["runDetails"]
    assert (
        {"buildType", "externalParameters"}
        <= set(definition)
        <= {*("buildType", "externalParameters", "internalParameters", "resolvedDependencies")}
    )
    assert ":" in definition["buildType"]
    assert ":" in run["builder"]["id"]
    assert set(run) <= {"builder", "metadata", "byproducts"}
    assert set(run["metadata"]) <= {"invocationId", "startedOn", "finishedOn"}
    for one in (*definition["resolvedDependencies"], *run["byproducts"]):
        assert set(one) <= {
            "uri",
            "digest",
            "name",
            "downloadLocation",
            "mediaType",
            "content",
            "annotations",
        }
        assert one["digest"]


def test_provenance_changes_with_the_images_only() -> None:
    other = replace(INVENTORY, images={"minio": "sha256:" + "7" * 64})
    assert statement(other) != statement()
    assert provenance.dump(statement()) == provenance.dump(statement())


def test_one_component_is_listed_once_with_all_places() -> None:
    one = Component(
        kind="deb", name="a", version="1", places=("x",), texts=(Text(name="c", sha256="0"),)
    )
    assert merge([one, replace(one, places=("y",))]) == (replace(one, places=("x", "y")),)


def test_each_hole_that_upstream_leaves_open_has_its_patch() -> None:
    patches = read_recipes(TOP).patches("minio").items()
    closed = {one for patch in patches for one in read_patch(*patch).closes}
    assert {f"CVE-2026-{n}" for n in (41145, 40344, 34204, 39414)} <= closed
