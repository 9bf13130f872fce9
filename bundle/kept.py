"""What a delta takes from the closed side: wheels out of the store, small files out of the releases that lie there.

Standard library only. Each is taken by its digest; what is not there as it was sealed is asked for in request.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from bundle.unseal import PRECONDITION, SealError, say


def parts(manifest: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Every part of the release of one kind: those in the file, and those that a delta needs from here."""
    own = [member for member in manifest["members"] if member["path"].startswith(prefix)]
    return own + needs(manifest, prefix)


def needs(manifest: dict[str, Any], *prefixes: str) -> list[dict[str, Any]]:
    """What a delta needs from here, by the beginnings of the paths."""
    return [need for need in manifest.get("needs", []) if need["path"].startswith(prefixes)]


def kept(root: Path, part: dict[str, Any]) -> bytes | None:
    """A wheel out of the store, which outlives the bundles, or a file out of a release; None if it is not there."""
    places = [root / "wheels" / part["sha256"]]
    if part["path"].startswith("small/"):
        homes = sorted((root / "releases").iterdir()) if (root / "releases").is_dir() else []
        places = [home / part["path"][6:] for home in homes]
    for place in places:
        with contextlib.suppress(OSError):
            data: bytes = place.read_bytes()
            if hashlib.sha256(data).hexdigest() == part["sha256"]:
                return data
    return None


def check_needs(manifest: dict[str, Any], root: Path) -> None:
    """Refuse a delta whose wheels and files are not all here, with the request that brings them; no more is written.

    Raises SealError.
    """
    wanted = needs(manifest, "wheels/", "small/")
    missing = [need["path"] for need in wanted if kept(root, need) is None]
    version, count = (manifest.get("base") or {}).get("version", ""), len(missing)
    if not missing:
        return
    problems = [
        say(
            f"the bundle is a delta on {version}, and {count} wheels and files of that are not in {root}",
            f"번들은 {version}의 델타인데 그 휠과 파일 {count}개가 {root}에 없습니다",
        )
    ]
    problems += [f"{path}: {say('needed, and not here', '필요하지만 없음')}" for path in missing]
    hint = say(
        "Name the installation's folder with --root, or bring the full bundle.",
        "--root로 설치 폴더를 지정하거나 전체 번들을 반입하세요.",
    )
    place = root / "request.json"
    if (root / "releases").is_dir():
        text = json.dumps(_request(manifest, missing), ensure_ascii=False, indent=1)
        staging = place.with_name(".request.json.new")
        staging.write_text(text + "\n", "utf-8")
        staging.replace(place)
        hint = say(
            f"Bring the full bundle, or a delta made with: invoke bundle --base {place}",
            f"전체 번들을 반입하거나 다음으로 만든 델타를 반입하세요: invoke bundle --base {place}",
        )
    raise SealError(PRECONDITION, problems, hint)


def _request(manifest: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    """An inventory that says of the images what this delta relies on (install looks), and of the rest what is here."""
    relied = {need["path"] for need in manifest["needs"]}
    images = []
    for image in manifest["images"]:
        layers = []
        for diff_id, digest in zip(image["diff_ids"], image["layers"], strict=True):
            if f"blobs/{digest.replace(':', '/')}" not in relied:
                break
            layers.append({"diff_id": diff_id, "digest": digest})
        images.append(layers)
    here = [need for need in manifest["needs"] if need["path"] not in missing]
    head = {"format": 1, "product": manifest["product"], "kind": "inventory", "gone": missing}
    head |= {"version": manifest["base"]["version"], "arch": manifest["arch"]}
    return {
        **head,
        "store": manifest["base"]["store"],
        "images": [image for image in images if image],
        "wheels": [{**n, "name": n["path"][7:]} for n in here if n["path"].startswith("wheels/")],
        "small": [need for need in here if need["path"].startswith("small/")],
    }
