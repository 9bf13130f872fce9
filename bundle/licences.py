"""Upstream's words about licences as SPDX expressions: Debian's copyright files, wheels' metadata, plain texts.

What is not recognised stays unsaid here and is never guessed; the texts themselves travel in any case.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

# As upstream writes them, lower case; Debian's names are those of its copyright format 1.0.
NAMES = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd-2": "BSD-2-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "bsd-4-clause-uc": "BSD-4-Clause-UC",
    "artistic": "Artistic-1.0-Perl",
    "boost-1.0": "BSL-1.0",
    "cc0": "CC0-1.0",
    "curl": "curl",
    "expat": "MIT",
    "mit license": "MIT",
    "the mit license (mit)": "MIT",
    "fsfap": "FSFAP",
    "fsful": "FSFUL",
    "fsfullr": "FSFULLR",
    "isc": "ISC",
    "lgpl v3": "LGPL-3.0-only",
    "lgpl-2": "LGPL-2.0-only",
    "lgpl-2+": "LGPL-2.0-or-later",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "openssl": "OpenSSL",
    "postgresql": "PostgreSQL",
    "psf-2": "PSF-2.0",
    "python": "Python-2.0",
    "unicode": "Unicode-DFS-2016",
    "x11": "X11",
    "zlib": "Zlib",
    "zpl-2.1": "ZPL-2.1",
    "the unlicense": "Unlicense",
}
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
GNU = re.compile(
    r"(?P<family>A?GPL|LGPL|GFDL)-?(?:v)?(?P<number>\d(?:\.\d)?)(?P<later>\+)?", re.IGNORECASE
)
# The most telling sentence of each text; the first that is found decides.
SENTENCES = (
    ("AGPL-3.0-or-later", "gnu affero general public license version 3"),
    ("Apache-2.0", "apache license version 2.0"),
    ("MPL-2.0", "mozilla public license version 2.0"),
    ("MPL-2.0", "mozilla public license, version 2.0"),
    ("LGPL-3.0-only", "gnu lesser general public license version 3"),
    ("CC0-1.0", "cc0 1.0 universal"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("BSL-1.0", "boost software license - version 1.0"),
    ("Elastic-2.0", "elastic license 2.0"),
    ("EPL-2.0", "eclipse public license - v 2.0"),
)
BSD = "redistribution and use in source and binary forms"
MIT = "permission is hereby granted, free of charge, to any person obtaining a copy"
ISC = "permission to use, copy, modify, and or distribute this software for any purpose"
ISC_OLD = "permission to use, copy, modify, and distribute this software for any purpose with"


@functools.cache
def canonical(expression: str) -> str:
    """`expression` as SPDX writes it; empty when it is none."""
    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression:
        return ""


def named(name: str) -> str:
    """The SPDX identifier of one licence by the name that upstream uses; empty when it is not known."""
    plain = re.sub(r"\s+", " ", name).strip()
    if match := GNU.fullmatch(plain):
        family, number = match["family"].upper(), match["number"]
        version = number if "." in number else f"{number}.0"
        return canonical(f"{family}-{version}-{'or-later' if match['later'] else 'only'}")
    return NAMES.get(plain.lower()) or canonical(plain)


def reference(name: str) -> str:
    """The name of a licence that SPDX has no identifier for."""
    return "LicenseRef-" + (re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "unnamed")


def conjunction(expressions: Iterable[str]) -> str:
    """All of `expressions` together, each once."""
    single = (e.split(" AND ") if " OR " not in e else [e] for e in expressions if e)
    parts = sorted({part for group in single for part in group})
    if len(parts) == 1:
        return parts[0]
    return " AND ".join(f"({part})" if " OR " in part else part for part in parts)


def debian_short(name: str) -> str:
    """The expression of a `License:` line of Debian's copyright format: names joined by commas, and, or."""
    text = re.sub(r"\s+", " ", name).strip()
    alternatives = []
    for alternative in re.split(r",?\s+or\s+|\s*\|\s*", text, flags=re.IGNORECASE):
        parts = re.split(r",?\s+and\s+|\s*,\s*|\s*&\s*", alternative, flags=re.IGNORECASE)
        alternatives.append(conjunction(named(part) or reference(part) for part in parts if part))
    return " OR ".join(dict.fromkeys(filter(None, alternatives)))


def of_copyright(text: str) -> str:
    """The expression that a Debian copyright file in format 1.0 gives; empty for a free text."""
    if not re.match(r"\s*Format(?:-Specification)?:", text):
        return ""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        short = re.search(r"^License:[ \t]*(\S.*)$", stanza, re.MULTILINE)
        if short and re.search(r"^(?:Files|Format):", stanza, re.MULTILINE):
            found.append(debian_short(short[1]))
    return conjunction(found)


def of_metadata(expression: str, licence: str, classifiers: Iterable[str]) -> str:
    """The expression that a wheel's metadata gives; empty when it gives none that is clear."""
    if expression:
        return canonical(expression)
    if licence and "\n" not in licence and (known := named(licence)):
        return known
    ends = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    known_all = [CLASSIFIERS.get(end, "") for end in ends]
    return known_all[0] if len(known_all) == 1 else ""


def of_text(text: str) -> str:
    """The licence whose text this is; empty when it is none that is known here."""
    plain = re.sub(r"[\s*#>/;]+", " ", text).lower()
    head = plain[:3000]
    for licence, sentence in SENTENCES:
        if sentence in head:
            return licence
    if BSD in plain:
        third = "neither the name" in plain or "may not be used to endorse" in plain
        fourth = "all advertising materials" in plain
        return "BSD-4-Clause" if fourth else "BSD-3-Clause" if third else "BSD-2-Clause"
    if MIT in plain:
        return "MIT"
    return "ISC" if ISC in plain or ISC_OLD in plain else ""
