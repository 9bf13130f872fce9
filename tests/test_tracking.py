"""The conventions of a run: keys, folders, metrics.json, digests; and a sample that keeps them."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from typing import Any

import pytest

from bundle.config import parse_site
from bundle.environment import client_environment
from bundle.model import Secret
from bundle.tracking import conventions, environment
from bundle.tracking.conventions import ConventionError
from bundle.tracking.documents import pdf, xlsx
from bundle.tracking.readback import flatten
from bundle.tracking.sample import make_sample

SEED_METRICS = {
    "axes": ["faithfulness", "relevance", "groundedness"],
    "scores": {"faithfulness": 0.83, "relevance": 0.79, "groundedness": 0.74},
    "aggregations": {"mean": 0.79, "median": 0.80, "p50": 0.80, "p90": 0.92},
    "by_group": {"dataset_split": {"train": 0.78, "test": 0.81}},
}
SEED_FILES = {
    "metrics/metrics.json",
    "metrics/metrics.csv",
    "analysis/analysis.json",
    "analysis/analysis.md",
    "reports/report.pdf",
    "reports/report.xlsx",
    "prompts/prompt_snapshot.json",
    "config/run_config.json",
    "config/model_config.json",
}


def test_missing_keys_are_told_all_at_once() -> None:
    keys = dict.fromkeys(conventions.REQUIRED_KEYS, "x")
    conventions.check_keys(keys)
    del keys["run_id"]
    keys["git_commit"] = " "
    with pytest.raises(ConventionError, match="missing keys: run_id, git_commit"):
        conventions.check_keys(keys)


def test_agreed_example_of_metrics_is_right() -> None:
    conventions.check_metrics(SEED_METRICS)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("axes", ["faithfulness"], "two or three"),
        ("axes", ["relevance", "relevance", "groundedness"], "two or three"),
        ("scores", {"faithfulness": 1.0}, "one for each axis"),
        ("aggregations", {"mean": 1.0}, "median, p50, p90 missing"),
        ("aggregations", {"mean": math.nan, "median": 1, "p50": 1, "p90": 1}, "not finite"),
        ("by_group", {"split": {"train": "high"}}, "not finite numbers: train"),
        ("by_group", {"split": {"train": True}}, "not finite numbers: train"),
    ],
)
def test_wrong_metrics_are_refused(key: str, value: Any, named: str) -> None:
    with pytest.raises(ConventionError, match=named):
        conventions.check_metrics({**SEED_METRICS, key: value})


def test_metrics_are_computed_over_the_cases() -> None:
    cases = [{"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5}, {"a": 0.2, "b": 0.4}]
    found = conventions.metrics_document(cases, {"split": ["x", "y", "x"]})
    assert found["scores"] == {"a": 0.566667, "b": 0.3}
    assert found["aggregations"] == {"mean": 0.433333, "median": 0.5, "p50": 0.5, "p90": 0.5}
    assert found["by_group"] == {"split": {"x": 0.4, "y": 0.5}}
    conventions.check_metrics(found)


@pytest.mark.parametrize(
    "cases",
    [
        [],
        [{"a": 1.0}],
        [{"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0}],
        [{"a": math.inf, "b": 1.0}],
    ],
)
def test_impossible_cases_are_refused(cases: list[dict[str, float]]) -> None:
    with pytest.raises(ConventionError):
        conventions.metrics_document(cases, {})


def test_quantiles_interpolate() -> None:
    assert conventions.quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert conventions.quantile([5.0], 0.9) == 5.0


@pytest.mark.parametrize("path", ["metrics.json", "other/x", "/etc/passwd", "metrics"])
def test_stray_artifacts_are_refused(path: str) -> None:
    with pytest.raises(ConventionError, match="outside"):
        conventions.check_folders(["metrics/metrics.json", path])


def test_equal_values_have_equal_bytes() -> None:
    one, other = {"나": 1, "a": [1.5]}, {"a": [1.5], "나": 1}
    assert conventions.canonical(one) == conventions.canonical(other)
    assert "나".encode() in conventions.canonical(one)
    with pytest.raises(ValueError, match="JSON"):
        conventions.canonical({"a": math.nan})


def test_sample_is_small_deterministic_and_by_the_rule() -> None:
    one, other = make_sample("r1", "1.2.3"), make_sample("r1", "1.2.3")
    assert one == other
    assert one.size <= 100_000
    assert set(one.files) > SEED_FILES
    assert {path.split("/")[0] for path in one.files} == set(conventions.FOLDERS)
    conventions.check_keys(one.keys)
    conventions.check_metrics(json.loads(one.files["metrics/metrics.json"]))
    digests = {tag: value for tag, value in one.tags.items() if tag.startswith("snapshot.")}
    assert set(digests) == {f"snapshot.{n}.sha256" for n in ("dataset", "prompt", "parameters")}
    assert digests["snapshot.prompt.sha256"] == conventions.sha256(
        one.files["prompts/prompt_snapshot.json"]
    )
    assert {step.kind for step in one.steps} == {"CHAIN", "RETRIEVER", "LLM", "EVALUATOR"}
    assert {step.attributes["run_id"] for step in one.steps} == {"r1"}
    assert "보험" in one.files["analysis/analysis.md"].decode()


def test_workbook_has_its_parts() -> None:
    data = xlsx([("질문 <1>", 0.5), ("b", 1.0)])
    assert data == xlsx([("질문 <1>", 0.5), ("b", 1.0)])
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        assert book.testzip() is None
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "질문 &lt;1&gt;" in sheet
    assert "<v>0.5</v>" in sheet


def test_page_has_a_right_cross_reference_table() -> None:
    data = pdf("제목 (1)", ["a (b) \\ 한글"])
    start = int(re.findall(rb"startxref\n(\d+)\n", data)[0])
    assert data[start : start + 4] == b"xref"
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n", data)]
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(f"{number} 0 obj".encode())
    assert rb"(a \(b\) \\ ??) Tj" in data


def test_either_tracker_missing_is_told() -> None:
    variables = dict.fromkeys((*environment.REQUIRED, *environment.STOCK), "x")
    environment.check(variables)
    del variables["PHOENIX_ENDPOINT"]
    variables["MLFLOW_TRACKING_URI"] = ""
    with pytest.raises(
        environment.EnvironmentIncompleteError, match="MLFLOW_TRACKING_URI, PHOENIX_ENDPOINT"
    ):
        environment.check(variables)


def test_nested_attributes_get_their_names_back() -> None:
    nested = {"a": {"b": [{"c": 1}]}, "d": "x", "e": {}}
    assert flatten(nested) == {"a.b.0.c": 1, "d": "x"}


def test_library_names_every_variable_that_the_product_hands_out() -> None:
    site = parse_site('domain = "lab.internal"')
    made = client_environment(
        site, user="kim", password=Secret("p"), key=Secret("k"), certificate="/ca.crt"
    )
    assert set(made) == {*environment.REQUIRED, *environment.STOCK}
