"""Known vulnerabilities of what travels, from an offline database in OSV form that the operator gives.

The report is frozen with its date: it says what that database knew, and which ecosystems it knew nothing of.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bundle.components import SUITES, Component, Inventory, debian
from bundle.errors import BROKEN_ARCHIVE, ConfigError
from bundle.sbom import moment
from bundle.versions import COMPARE, is_affected, sort_key
from bundle.words import say

ECOSYSTEMS = {"deb": "Debian", "pypi": "PyPI", "golang": "Go"}
SEVERITIES = ("CRITICAL", "HIGH", "MODERATE", "MEDIUM", "LOW", "UNKNOWN")
LARGEST, MOST = 32 << 20, 2_000_000
HINT = (
    "Give a zip or a folder of OSV JSON records, as osv.dev exports them for PyPI, Debian and Go."
)
NONE_GIVEN = (
    "No advisory database was given when this bundle was made (invoke bundle --advisories FILE). "
    "Nothing was checked: this report says nothing about vulnerabilities, neither that there are some "
    "nor that there are none."
)


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """One known vulnerability of one component."""

    id: str
    component: str
    version: str
    ecosystem: str
    severity: str = "UNKNOWN"
    summary: str = ""
    fixed: str = ""
    also: tuple[str, ...] = ()
    cvss: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Database:
    """What the given database is: its digest, its newest record, and how many records each ecosystem has."""

    sha256: str
    as_of: str
    records: Mapping[str, int]


@dataclass
class _Reading:
    """What has been read so far."""

    digest: Any = field(default_factory=hashlib.sha256)
    as_of: str = ""
    records: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def _not_a_record(error: Exception) -> str:
    return say(f"not an OSV record: {error}", f"OSV 기록이 아닙니다: {error}")


def _hint() -> str:
    return say(
        "Give a zip or a folder of OSV JSON records, as osv.dev exports them for PyPI, Debian and Go.",
        "osv.dev가 PyPI, Debian, Go용으로 내보내는 OSV JSON 기록의 zip 파일이나 폴더를 지정하십시오.",
    )


def check(database: str) -> None:
    """Look whether the file or folder `database` (empty: none) can be one at all, before anything long is done.

    Raises ConfigError when it cannot.
    """
    path = Path(database)
    if database and not path.is_dir() and not zipfile.is_zipfile(path):
        there = say("is neither a zip nor a folder", "zip 파일도 폴더도 아닙니다")
        message = there if path.exists() else say("is not there", "없습니다")
        raise ConfigError(message, where=str(path), hint=_hint())


def look_up(inventory: Inventory, path: Path) -> tuple[Database, tuple[Finding, ...]]:
    """What the database at `path` knows of the inventory.

    Raises ConfigError when it is not a database in OSV form.
    """
    wanted = _wanted(inventory)
    reading, count = _Reading(), 0
    for count, (name, raw) in enumerate(_records(path), 1):
        if count > MOST:
            raise ConfigError(f"more than {MOST} records", where=str(path), hint=_hint())
        reading.digest.update(f"{name} {hashlib.sha256(raw).hexdigest()}\n".encode())
        record = _parse(raw, f"{path}: {name}")
        reading.as_of = max(reading.as_of, str(record["modified"]))
        try:
            _read(record, wanted, inventory, reading)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            where = f"{path}: {name}"
            raise ConfigError(_not_a_record(error), where=where, hint=_hint()) from error
    if not count:
        message = say("holds no OSV record", "OSV 기록이 없습니다")
        raise ConfigError(message, where=str(path), hint=_hint())
    database = Database(
        sha256=reading.digest.hexdigest(),
        as_of=reading.as_of,
        records=dict(sorted(reading.records.items())),
    )
    return database, merge(reading.findings)


def _wanted(inventory: Inventory) -> dict[tuple[str, str], list[Component]]:
    """The components by ecosystem and the name that advisories use: Debian's are about source packages."""
    found: dict[tuple[str, str], list[Component]] = {}
    for one in (c for c in inventory.components if is_looked_up(c, inventory)):
        name = one.source or one.name if one.kind == "deb" else one.name
        found.setdefault((ECOSYSTEMS[one.kind], name), []).append(one)
    return found


def is_looked_up(component: Component, inventory: Inventory) -> bool:
    """Whether a record could be about it: of systems only the images' own release of Debian is known here."""
    return component.kind not in ("deb", "apk") or component.system in ("", debian(inventory.suite))


def _records(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every record's name and bytes, in a fixed order; a zip inside a folder counts as a folder."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if file.suffix == ".json" and file.is_file():
                if file.stat().st_size > LARGEST:
                    raise ConfigError("too large for a record", where=str(file), hint=_hint())
                yield name, file.read_bytes()
            elif file.suffix == ".zip":
                yield from ((f"{name}!{inner}", raw) for inner, raw in _zipped(file))
        return
    yield from _zipped(path)


def _zipped(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if info.filename.endswith(".json"):
                    if info.file_size > LARGEST:
                        where = f"{path}: {info.filename}"
                        raise ConfigError("too large for a record", where=where, hint=_hint())
                    yield info.filename, archive.read(info)
    except (*BROKEN_ARCHIVE, RuntimeError) as error:  # the last: it is encrypted
        raise ConfigError(f"cannot be read: {error}", where=str(path), hint=_hint()) from error


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(raw)
        if not isinstance(record["id"], str) or not isinstance(record["modified"], str):
            raise TypeError("id or modified is not a text")
        if not isinstance(record.get("affected", []), list):
            raise TypeError("affected is not a list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(_not_a_record(error), where=where, hint=_hint()) from error
    return dict(record)


def _read(
    record: Mapping[str, Any],
    wanted: Mapping[tuple[str, str], list[Component]],
    inventory: Inventory,
    reading: _Reading,
) -> None:
    """Count the record for its ecosystems, and take what it says of our components."""
    ecosystems = set()
    for affected in record.get("affected", []):
        package = affected.get("package", {})
        ecosystem, _, release = str(package.get("ecosystem", "")).partition(":")
        if ecosystem not in COMPARE or (release and release != SUITES.get(inventory.suite)):
            continue
        ecosystems.add(ecosystem)
        name = str(package.get("name", ""))
        name = re.sub(r"[-_.]+", "-", name).lower() if ecosystem == "PyPI" else name
        for component in wanted.get((ecosystem, name), ()):
            version = component.source_version or component.version
            if not record.get("withdrawn") and is_affected(affected, version, ecosystem):
                reading.findings.append(_finding(record, affected, component, ecosystem))
    for ecosystem in ecosystems:
        reading.records[ecosystem] = reading.records.get(ecosystem, 0) + 1


def _finding(
    record: Mapping[str, Any], affected: Mapping[str, Any], component: Component, ecosystem: str
) -> Finding:
    version = component.source_version or component.version
    compare = COMPARE[ecosystem]
    fixes = [
        str(event["fixed"])
        for one in affected.get("ranges", ())
        if one.get("type") in ("ECOSYSTEM", "SEMVER")
        for event in one.get("events", ())
        if "fixed" in event and compare(str(event["fixed"]), version) > 0
    ]
    said = record.get("database_specific") or {}
    severity = str(said.get("severity", "UNKNOWN")).upper() if isinstance(said, dict) else "UNKNOWN"
    vectors = [*record.get("severity", ()), *affected.get("severity", ())]
    summary = str(record.get("summary") or record.get("details") or "").strip()
    return Finding(
        id=str(record["id"]),
        component=component.source or component.name if component.kind == "deb" else component.name,
        version=version,
        ecosystem=ecosystem,
        severity=severity if severity in SEVERITIES else "UNKNOWN",
        summary=summary.splitlines()[0][:200] if summary else "",
        fixed=min(fixes, key=sort_key(ecosystem), default=""),  # type: ignore[arg-type]
        also=tuple(str(name) for name in record.get("aliases") or ()),
        cvss=tuple(str(vector.get("score", "")) for vector in vectors),
        places=component.places,
        patched=_patched(component, {str(record["id"]), *map(str, record.get("aliases") or ())}),
    )


def _patched(component: Component, names: set[str]) -> tuple[str, ...]:
    """The patches of ours that close a hole of one of these `names`."""
    return tuple(patch.name for patch in component.patches if names & set(patch.closes))


def merge(findings: list[Finding]) -> tuple[Finding, ...]:
    """One finding for each vulnerability of a component: several records and packages may tell of the same."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in sorted(findings):
        names = sorted({finding.id, *finding.also})
        known = next((name for name in names if name.startswith("CVE-")), None)
        also_known = re.search(r"CVE-\d+-\d+", finding.id)
        name = known or (also_known[0] if also_known else names[0])
        groups.setdefault((name, finding.component, finding.version), []).append(finding)
    merged = []
    for (name, _, _), group in groups.items():
        every = {n for f in group for n in (f.id, *f.also)} - {name}
        merged.append(
            replace(
                group[0],
                id=name,
                also=tuple(sorted(every)),
                severity=min((f.severity for f in group), key=SEVERITIES.index),
                summary=next((f.summary for f in group if f.summary), ""),
                fixed=next((f.fixed for f in group if f.fixed), ""),
                cvss=tuple(sorted({vector for f in group for vector in f.cvss if vector})),
                places=tuple(sorted({place for f in group for place in f.places})),
                patched=tuple(sorted({patch for f in group for patch in f.patched})),
            )
        )
    return tuple(
        sorted(merged, key=lambda f: (SEVERITIES.index(f.severity), f.component, f.version, f.id))
    )


def report(
    inventory: Inventory, database: Database | None, findings: tuple[Finding, ...]
) -> dict[str, Any]:
    """The frozen report."""
    head: dict[str, Any] = {"version": inventory.version, "arch": inventory.arch}
    head["created"] = moment(inventory.created)
    if database is None:
        return {**head, "database": None, "statement": NONE_GIVEN, "findings": None}
    return {
        **head,
        "database": {
            "as_of": database.as_of,
            "sha256": database.sha256,
            "records": dict(database.records),
        },
        "statement": statement(database, findings) + passed_over(inventory),
        "findings": [_as_dict(finding) for finding in findings],
    }


def statement(database: Database, findings: tuple[Finding, ...]) -> str:
    """What the report says, in one or two sentences."""
    missing = [name for name in COMPARE if not database.records.get(name)]
    known = f"As of {database.as_of} the given database knows {len(findings)} vulnerabilities of what travels."
    if closed := sum(bool(finding.patched) for finding in findings):
        known += f" {closed} of them are closed by patches of ours, which it cannot know."
    if not missing:
        return known
    return f"{known} It holds no record for {', '.join(missing)}: those packages were not checked."


def passed_over(inventory: Inventory) -> str:
    """What of a site's images no record is compared with."""
    systems = {c.system for c in inventory.components if not is_looked_up(c, inventory)}
    words = [f"packages of {system}" for system in sorted(systems)]
    words += [f"the image {name}, which lists no packages" for name in inventory.unread]
    return f" Of the site's images these were not checked: {', '.join(words)}." if words else ""


def _as_dict(finding: Finding) -> dict[str, Any]:
    values = vars(finding)
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def page(found: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"# Known vulnerabilities of tracking-bundle {found['version']} ({found['arch']})", ""]
    lines += [f"Made {found['created']}. {found['statement']}"]
    if found["database"] is None:
        lines += [
            "",
            "이 번들을 만들 때 취약점 데이터베이스가 주어지지 않았습니다. 아무것도 검사하지 않았습니다.",
        ]
    if found["findings"]:
        lines += [
            "",
            "| severity | id | package | version | fixed in | in | what |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in found["findings"]:
            cells = [one["severity"].lower(), one["id"], one["component"], one["version"]]
            fixed = f"closed here: {', '.join(one['patched'])}" if one["patched"] else one["fixed"]
            cells += [fixed or "—", ", ".join(one["places"]), one["summary"]]
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
