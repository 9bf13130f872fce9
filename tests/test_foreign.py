"""What a site's own image says of itself, over all of its layers: dpkg, apk, wheels; and what no record is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bundle import advisories, foreign, notices
from bundle.foreign import components, fold, look
from tests.supplies import INVENTORY

STATUS = """Package: libx1
Status: install ok installed
Architecture: amd64
Source: x (1.0)
Version: 1.0+b1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 2
"""
APK = (
    "C:Q1abc=\nP:musl\nV:1.2.5-r1\nA:x86_64\nL:MIT\no:musl\n\nP:odd\nV:1\nA:x86_64\nL:of our own\n"
)
WHEEL = "Metadata-Version: 2.4\nName: My_Helper\nVersion: 3\nLicense-Expression: MIT"
DEBIAN = 'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n'
SITE = "opt/venv/lib/python3.13/site-packages/my_helper-3.dist-info"


def read(**files: str) -> dict[str, tuple[str, str, str]]:
    """Kind, version and system of each package that `files` (dots for dashes) tell of."""
    found = components(files, "extra/one")
    return {c.name: (c.kind, c.version, c.system) for c in found}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("var/lib/dpkg/status", True),
        ("var/lib/dpkg/status.d/base", True),
        ("var/lib/dpkg/status-old", False),
        ("lib/apk/db/installed", True),
        ("usr/lib/apk/db/installed", True),
        (f"{SITE}/METADATA", True),
        ("usr/lib/python3/dist-packages/six-1.dist-info/METADATA", True),
        (f"{SITE}/RECORD", False),
        ("opt/venv/lib/python3.13/site-packages/pip/_vendor/x-1.dist-info/METADATA", False),
        ("etc/os-release", True),
        ("home/etc/os-release", False),
    ],
)
def test_files_that_tell_something(path: str, told: bool) -> None:
    assert foreign.is_told(path) == told


def test_each_kind_of_list_is_read() -> None:
    files = {"usr/lib/os-release": DEBIAN, "var/lib/dpkg/status": STATUS, f"{SITE}/METADATA": WHEEL}
    assert read(**files) == {
        "libx1": ("deb", "1.0+b1", "debian-12"),
        "my-helper": ("pypi", "3", "debian-12"),
    }
    (deb,) = (c for c in components(files, "extra/one") if c.kind == "deb")
    assert (deb.source, deb.source_version, deb.arch) == ("x", "1.0", "amd64")
    assert deb.purl("trixie") == "pkg:deb/debian/libx1@1.0%2Bb1?arch=amd64&distro=debian-12"
    alpine = {"etc/os-release": "ID=alpine\nVERSION_ID=3.22.1\n", "lib/apk/db/installed": APK}
    musl, odd = components(alpine, "extra/one")
    assert (musl.licence, odd.licence, odd.stated) == ("MIT", "", "of our own")
    assert musl.purl("trixie") == "pkg:apk/alpine/musl@1.2.5-r1?arch=x86_64&distro=alpine-3.22.1"


def test_upper_layers_replace_and_take_away() -> None:
    base = look(
        [], {"var/lib/dpkg/status": "", f"{SITE}/METADATA": WHEEL, "etc/os-release": "ID=a"}
    )
    upper = look(["etc"], {"var/lib/dpkg/status": STATUS})
    assert fold([base, upper])["var/lib/dpkg/status"] == STATUS
    place, _, last = SITE.rpartition("/")
    for name in (f"{SITE}/.wh.METADATA", f"{place}/.wh.{last}", "opt/.wh.venv", ".wh.opt"):
        assert f"{SITE}/METADATA" not in fold([base, look([name], {})]), name
    emptied = fold([base, look([f"{place}/.wh..wh..opq"], {f"{SITE}/METADATA": "again"})])
    assert emptied[f"{SITE}/METADATA"] == "again"
    assert f"{SITE}/METADATA" not in fold([base, look([f"{place}/.wh..wh..opq"], {})])
    assert f"{SITE}/METADATA" in fold([base, look(["opt/.wh.ven", "opt/.wh.venv2"], {})])


def test_same_package_as_ours_has_its_own_line_and_its_own_name() -> None:
    ours = next(c for c in INVENTORY.components if c.kind == "deb")
    theirs = replace(ours, sha256="", system="debian-13", texts=(), places=("extra/one",))
    assert ours.id != theirs.id
    both = replace(INVENTORY, components=(*INVENTORY.components, theirs), told=("extra/one",))
    assert notices.index(both) == notices.index(INVENTORY)  # no text of theirs is ours to give


def test_what_no_record_is_about_is_said() -> None:
    ours = next(c for c in INVENTORY.components if c.kind == "deb")
    more = [replace(ours, system=name) for name in ("debian-13", "debian-12", "ubuntu-24.04")]
    more.append(replace(ours, kind="apk", system="alpine-3.22"))
    both = replace(INVENTORY, components=(*INVENTORY.components, *more), unread=("extra/two",))
    looked_up = [c.system for c in both.components if advisories.is_looked_up(c, both)]
    assert set(looked_up) == {"", "debian-13"}
    said = advisories.passed_over(both)
    for word in ("debian-12", "ubuntu-24.04", "alpine-3.22", "the image extra/two"):
        assert word in said
    assert "debian-13" not in said
    assert advisories.passed_over(INVENTORY) == ""
