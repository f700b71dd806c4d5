"""Scores of benchmarks from a model's answers: records of all items, and each benchmark's number beside the paper's.

OUT/items/MODEL/chartqa.jsonl    a record an item (evaluation/items.py)
OUT/benchmarks.json              scores beside the paper's
OUT/tasks/MODEL/submissions/     answers for a benchmark's own server
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vl3.errors import DataError
from vl3.evaluation.catalogue.copies import BenchmarkCopy
from vl3.evaluation.catalogue.entry import Benchmark
from vl3.evaluation.harness.asking import OpenTask
from vl3.evaluation.harness.model import request_name
from vl3.evaluation.harness.scoring import NOT_JUDGED, TaskScores, score_task
from vl3.evaluation.items import ItemRecord, items_path, write_items
from vl3.evaluation.judge_gateway import JudgeGateway
from vl3.evaluation.published import PublishedNumbers, published
from vl3.system.files import atomic_write_text


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkScore:
    """What a model reached on a benchmark."""

    benchmark: str
    score: float | None
    """On the paper's scale; None if there is none, and `why_no_score` says why."""
    why_no_score: str
    items: int
    """Questions of the copy."""
    scored: int
    failed: int
    """Questions that could not be asked or whose answer the task's code refused."""
    not_judged: int
    failures: tuple[str, ...]
    """The first of them with their reasons."""
    parts: dict[str, dict[str, float]]
    """The tasks' values by task and metric, on their own scales."""
    submission: str
    """File for the benchmark's server, within the evaluation's folder; empty if it has none."""
    is_complete: bool
    """Whether the copy is the whole benchmark, so that the score may stand beside published ones."""
    copy_problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLimits:
    """What is asked, and what may fail."""

    max_failed_share: float = 0.01
    """Share of the items that may fail or stay unjudged; above it there is no score."""
    max_items: int | None = None
    """Questions of each task, for a trial; scores are then marked as of a part."""


def score_benchmark(
    about: BenchmarkCopy,
    tasks: Sequence[OpenTask],
    answers: Mapping[str, ItemRecord],
    *,
    model: str,
    out: Path,
    limits: RunLimits,
    gateway: JudgeGateway,
    told: Callable[[], None] = lambda: None,
) -> BenchmarkScore:
    """Judge a model's answers to one benchmark, and write the record of each item.

    Args:
        about: the copy that was asked.
        tasks: the benchmark's.
        answers: the unscored records by item.
        model: the model's name in the results.
        out: folder of the evaluation.
        limits: what was asked, and what may fail.
        gateway: where the tasks find the judge.
        told: called before each item.

    Raises:
        DataError: a question has no answer.
    """
    benchmark = tasks[0].benchmark
    scores: dict[str, TaskScores] = {}
    for one in tasks:
        lacking = [request_name(request) for request in one.requests if request_name(request) not in answers]
        if lacking:
            raise DataError(f"{len(lacking)} questions got no answer, such as {lacking[0]}. Run the evaluation again.")
        folder = out / "tasks" / model
        scores[one.part.task] = score_task(
            benchmark, one.part, one.task, answers, folder=folder, gateway=gateway, told=told
        )
    items = [item for found in scores.values() for item in found.items]
    write_items(items_path(out, model, benchmark.name), items)
    written = next((Path(found.submission) for found in scores.values() if found.submission), None)
    submission = "" if written is None else written.relative_to(out).as_posix()
    return _summary(benchmark, about, scores, items, limits, submission)


def write_scores(path: Path, model: str, scores: Iterable[BenchmarkScore], entries: Mapping[str, Benchmark]) -> None:
    """Add a model's scores to the result file, beside the paper's and the best peer's numbers."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"models": {}}
    of_model = content["models"].setdefault(model, {})
    for score in scores:
        entry = entries[score.benchmark]
        of_model[score.benchmark] = {
            **asdict(score),
            "published": {size: _published(rows[entry.name]) for size, rows in published().items()},
            "differences": list(entry.differences),
        }
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _published(row: PublishedNumbers) -> dict[str, Any]:
    return {"paper": row.paper, "best_peer": row.best_peer, "differences": list(row.differences)}


def _summary(
    benchmark: Benchmark,
    about: BenchmarkCopy,
    scores: Mapping[str, TaskScores],
    items: list[ItemRecord],
    limits: RunLimits,
    submission: str,
) -> BenchmarkScore:
    # What a benchmark's own server scores is not judged here, which is no fault.
    lacking = [] if benchmark.submission else [item for item in items if item.why_no_score]
    not_judged = [item for item in lacking if item.why_no_score.startswith(NOT_JUDGED)]
    failed = [item for item in lacking if not item.why_no_score.startswith(NOT_JUDGED)]
    value, why = _combine(benchmark, scores)
    share = (len(failed) + len(not_judged)) / max(len(items), 1)
    if share > limits.max_failed_share:
        value = None
        why = (
            f"{len(not_judged)} of {len(items)} not judged and {len(failed)} failed, more than "
            f"{limits.max_failed_share:.1%}; the first, {(not_judged + failed)[0].item_id}: "
            f"{(not_judged + failed)[0].why_no_score}"
        )
    problems = about.problems
    if limits.max_items is not None:
        problems = (*problems, f"only the first {limits.max_items} questions of each task were asked")
    return BenchmarkScore(
        benchmark=benchmark.name,
        score=value,
        why_no_score=why if value is None else "",
        items=len(items),
        scored=sum(item.score is not None for item in items),
        failed=len(failed),
        not_judged=len(not_judged),
        failures=tuple(f"{item.item_id}: {item.why_no_score}" for item in (failed + not_judged)[:10]),
        parts={task: found.values for task, found in scores.items()},
        submission=submission,
        is_complete=not problems,
        copy_problems=problems,
    )


def _combine(benchmark: Benchmark, scores: Mapping[str, TaskScores]) -> tuple[float | None, str]:
    """The benchmark's score on the paper's scale from its tasks' values."""
    for task, found in scores.items():
        if not found.values:
            return None, f"{task}: {found.why_no_value}"
    if benchmark.combine == "sum":
        total = sum(value for found in scores.values() for value in found.values.values())
        return total * benchmark.scale, ""
    weights = {task: _weight(benchmark, found) for task, found in scores.items()}
    total = sum(weights[task] * found.values[benchmark.metric] for task, found in scores.items())
    return total / sum(weights.values()) * benchmark.scale, ""


def _weight(benchmark: Benchmark, found: TaskScores) -> int:
    """A part's share in the mean: one, or its number of scored questions."""
    return sum(item.score is not None for item in found.items) if benchmark.combine == "items" else 1
