"""A small evaluation run of a Korean insurance QA service, the same every time but for its run_id; about 6 kB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .conventions import (
    canonical,
    check_folders,
    check_keys,
    check_metrics,
    metrics_csv,
    metrics_document,
    snapshot_tags,
)
from .documents import pdf, xlsx

AXES = ("faithfulness", "relevance", "groundedness")
DATASET, MODEL = "insurance_qa_korean", "internal-llm-ko"
PROMPT = """당신은 보험 약관 상담원입니다. 아래 약관 조항만 근거로 답하고, 근거 조항을 밝히십시오.

{context}

질문: {question}"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question of the dataset, with what was found and answered, and a score for each axis."""

    question: str
    answer: str
    context: str
    split: str
    scores: tuple[float, float, float]


CASES = (
    Case(
        question="암 진단비는 가입 후 언제부터 받을 수 있나요?",
        answer="보장 개시일은 계약일부터 90일이 지난 다음 날입니다.",
        context="제5조(보장개시) 암에 대한 보장은 계약일부터 90일이 지난 날의 다음 날에 시작한다.",
        split="train",
        scores=(0.92, 0.88, 0.90),
    ),
    Case(
        question="실손의료보험의 통원 자기부담금은 얼마인가요?",
        answer="의원급은 1만 원과 20% 중 큰 금액입니다.",
        context="제12조(공제금액) 통원 1회당 의원 1만 원과 보장대상 의료비의 20% 중 큰 금액을 공제한다.",
        split="train",
        scores=(0.85, 0.81, 0.79),
    ),
    Case(
        question="보험료를 두 달 밀리면 계약은 어떻게 되나요?",
        answer="14일 이상의 납입최고 뒤에도 내지 않으면 해지됩니다.",
        context="제21조(납입최고와 해지) 회사는 14일 이상의 기간을 정하여 납입을 최고하고, 그 뒤 계약을 해지한다.",
        split="train",
        scores=(0.78, 0.74, 0.70),
    ),
    Case(
        question="청약을 철회할 수 있는 기간은요?",
        answer="보험증권을 받은 날부터 15일 이내입니다.",
        context="제17조(청약의 철회) 계약자는 보험증권을 받은 날부터 15일 이내에 청약을 철회할 수 있다.",
        split="test",
        scores=(0.95, 0.93, 0.91),
    ),
    Case(
        question="음주 운전 사고도 자동차보험이 보상하나요?",
        answer="대인배상은 되지만 사고부담금을 내야 합니다.",
        context="제11조(음주운전 사고부담금) 피보험자는 음주운전 사고에 대하여 정해진 사고부담금을 부담한다.",
        split="test",
        scores=(0.70, 0.77, 0.66),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One span of the trace: its name, its OpenInference kind and its attributes."""

    name: str
    kind: str
    attributes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Everything that one run says, as it must come back: keys are both tags and attributes of the first span."""

    keys: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    files: dict[str, bytes]
    steps: tuple[Step, ...]

    @property
    def size(self) -> int:
        """Bytes of all artifacts."""
        return sum(map(len, self.files.values()))


def make_sample(run_id: str, pipeline_version: str) -> Sample:
    """The sample run called `run_id`.

    Raises ConventionError when it breaks its own conventions.
    """
    keys = {
        "run_id": run_id,
        "dataset_name": DATASET,
        "dataset_version": "2026.11",
        "model_name": MODEL,
        "model_version": "1.0.0",
        "prompt_version": "v3",
        "retrieval_version": "bm25-v2",
        "evaluation_profile": "dev",
        "git_commit": "sample",
        "git_branch": "sample",
        "pipeline_version": pipeline_version,
    }
    scores = [dict(zip(AXES, case.scores, strict=True)) for case in CASES]
    metrics = metrics_document(scores, {"dataset_split": [case.split for case in CASES]})
    config = {"seed": 7, "top_k": 1, "temperature": 0.0, "metrics": list(AXES)}
    files = _files(keys, metrics, config)
    snapshots = {
        "dataset": files[f"dataset/{DATASET}.json"],
        "prompt": files["prompts/prompt_snapshot.json"],
        "parameters": files["config/run_config.json"],
    }
    check_keys(keys)
    check_metrics(metrics)
    check_folders(list(files))
    overall = {f"overall_{name}": value for name, value in metrics["aggregations"].items()}
    return Sample(
        keys=keys,
        params={**keys, **{name: str(value) for name, value in config.items()}},
        metrics={**metrics["scores"], **overall},
        tags={**keys, **snapshot_tags(snapshots), "tracker": "mlflow+phoenix"},
        files=files,
        steps=_steps(keys, metrics["scores"]),
    )


def _files(
    keys: dict[str, str], metrics: dict[str, Any], config: dict[str, Any]
) -> dict[str, bytes]:
    dataset = [
        {
            "question": case.question,
            "ground_truth": case.answer,
            "contexts": [case.context],
            "answer": case.answer,
            "split": case.split,
        }
        for case in CASES
    ]
    worst = min(CASES, key=lambda case: sum(case.scores)).question
    analysis = {"run_id": keys["run_id"], "cases": len(CASES), "weakest": worst, **metrics}
    rows: list[tuple[str | float, ...]] = [("question", *AXES)]
    rows += [(case.question, *case.scores) for case in CASES]
    scores = [f"{axis}: {score:.3f}" for axis, score in metrics["scores"].items()]
    listed = "\n".join(f"- {line}" for line in scores)
    return {
        f"dataset/{DATASET}.json": canonical(dataset),
        "metrics/metrics.json": canonical(metrics),
        "metrics/metrics.csv": metrics_csv(metrics),
        "analysis/analysis.json": canonical(analysis),
        "analysis/analysis.md": f"# 보험 QA 평가\n\n{listed}\n\n가장 약한 질문: {worst}\n".encode(),
        "reports/report.pdf": pdf("보험 QA 평가 보고서", ["Insurance QA evaluation", *scores]),
        "reports/report.xlsx": xlsx(rows),
        "prompts/prompt_snapshot.json": canonical(
            {"version": keys["prompt_version"], "template": PROMPT}
        ),
        "config/run_config.json": canonical(config),
        "config/model_config.json": canonical({"name": MODEL, "version": keys["model_version"]}),
    }


def _steps(keys: dict[str, str], scores: dict[str, float]) -> tuple[Step, ...]:
    """The RAG steps of the first case: what was asked, found, answered and scored."""
    case, shared = CASES[0], {"run_id": keys["run_id"]}
    asked = {"input.value": case.question}
    found = {
        "retrieval.documents.0.document.id": "clause-5",
        "retrieval.documents.0.document.content": case.context,
        "retrieval.documents.0.document.score": 0.87,
    }
    prompt = PROMPT.format(context=case.context, question=case.question)
    generated = {
        "llm.model_name": MODEL,
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": prompt,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": case.answer,
        "llm.token_count.prompt": 64,
        "llm.token_count.completion": 21,
        "llm.token_count.total": 85,
    }
    scored = {"output.value": canonical(scores).decode()}
    return (
        Step(
            name="evaluate", kind="CHAIN", attributes=keys | asked | {"output.value": case.answer}
        ),
        Step(name="retrieve", kind="RETRIEVER", attributes={**shared, **asked, **found}),
        Step(name="generate", kind="LLM", attributes={**shared, **generated}),
        Step(name="score", kind="EVALUATOR", attributes={**shared, **scored}),
    )
