"""What every run carries: connection keys, artifact folders, metrics.json, digests of its snapshots."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

REQUIRED_KEYS = (
    "run_id",
    "dataset_name",
    "dataset_version",
    "model_name",
    "model_version",
    "prompt_version",
    "retrieval_version",
    "evaluation_profile",
    "git_commit",
    "git_branch",
    "pipeline_version",
)
FOLDERS = ("dataset", "metrics", "analysis", "reports", "prompts", "config")
AGGREGATIONS = ("mean", "median", "p50", "p90")
TOLERANCE = 1e-6


class ConventionError(ValueError):
    """A run breaks the conventions; the message names everything that is wrong with it."""


def check_keys(keys: Mapping[str, str]) -> None:
    """See that every connection key has a value.

    Raises ConventionError with all that have none.
    """
    missing = [key for key in REQUIRED_KEYS if not str(keys.get(key, "")).strip()]
    if missing:
        raise ConventionError(f"missing keys: {', '.join(missing)}")


def check_folders(paths: Sequence[str]) -> None:
    """See that every artifact lies in one of the agreed folders.

    Raises ConventionError with all that do not.
    """
    stray = [path for path in paths if path.partition("/")[0] not in FOLDERS or "/" not in path]
    if stray:
        raise ConventionError(
            f"outside of the agreed folders ({', '.join(FOLDERS)}): {', '.join(stray)}"
        )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lies, interpolated between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def aggregate(values: Sequence[float]) -> dict[str, float]:
    """Mean, median and quantiles of per-case values.

    Raises ConventionError when there are none, or one is not a finite number.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ConventionError("scores must be finite numbers, at least one")
    figures = {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "p50": quantile(values, 0.5),
        "p90": quantile(values, 0.9),
    }
    return {name: round(value, 6) for name, value in figures.items()}


def metrics_document(
    cases: Sequence[Mapping[str, float]], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """metrics.json out of the per-case scores (one mapping of axis to score a case) and each case's place in `groups`.

    Raises ConventionError when there are not two or three axes, or the cases differ in theirs.
    """
    axes = list(cases[0]) if cases else []
    if len(axes) not in (2, 3) or any(list(case) != axes for case in cases):
        raise ConventionError(f"every case needs the same two or three axes, not {axes}")
    overall = [statistics.fmean(case.values()) for case in cases]
    by_group: dict[str, dict[str, float]] = {}
    for group, places in groups.items():
        by_group[group] = {
            place: round(
                statistics.fmean(s for s, p in zip(overall, places, strict=True) if p == place), 6
            )
            for place in dict.fromkeys(places)
        }
    return {
        "axes": axes,
        "scores": {axis: round(statistics.fmean(c[axis] for c in cases), 6) for axis in axes},
        "aggregations": aggregate(overall),
        "by_group": by_group,
    }


def check_metrics(document: Mapping[str, Any]) -> None:
    """See that `document` has the form of metrics.json.

    Raises ConventionError with everything that is wrong with it.
    """
    axes, scores = document.get("axes") or [], document.get("scores") or {}
    aggregations, wrong = document.get("aggregations") or {}, []
    if len(axes) not in (2, 3) or len(set(axes)) != len(axes):
        wrong.append(f"axes: two or three different ones, not {axes}")
    if set(scores) != set(axes):
        wrong.append(f"scores: one for each axis, not {sorted(scores)}")
    missing = [name for name in AGGREGATIONS if name not in aggregations]
    if missing:
        wrong.append(f"aggregations: {', '.join(missing)} missing")
    numbers = {**scores, **aggregations}
    for group in (document.get("by_group") or {}).values():
        numbers.update(group)
    bad = [
        name
        for name, number in numbers.items()
        if isinstance(number, bool)
        or not isinstance(number, int | float)
        or not math.isfinite(number)
    ]
    if bad:
        wrong.append(f"not finite numbers: {', '.join(bad)}")
    if wrong:
        raise ConventionError("metrics.json: " + "; ".join(wrong))


def metrics_csv(document: Mapping[str, Any]) -> bytes:
    """metrics.csv beside a metrics.json: kind, name, value."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("kind", "name", "value"))
    rows.writerows(("score", name, value) for name, value in document["scores"].items())
    rows.writerows(("aggregation", name, value) for name, value in document["aggregations"].items())
    for group, values in document["by_group"].items():
        rows.writerows((group, name, value) for name, value in values.items())
    return out.getvalue().encode()


def canonical(value: Any) -> bytes:
    """JSON of which equal values give equal bytes: keys sorted, Korean as it is, a line break at the end.

    Raises ValueError for NaN and infinity.
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return text.encode() + b"\n"


def sha256(data: bytes) -> str:
    """The digest by which a snapshot is known."""
    return hashlib.sha256(data).hexdigest()


def snapshot_tags(snapshots: Mapping[str, bytes]) -> dict[str, str]:
    """A tag with the digest of each snapshot (dataset, prompt, parameters) by its name."""
    return {f"snapshot.{name}.sha256": sha256(data) for name, data in snapshots.items()}
