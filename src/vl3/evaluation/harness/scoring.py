"""Scores of one task's answers: its own filters, its own judging of each answer, its own aggregation.

What lmms-eval's evaluator does in one loop is done here item by item, because there a failed question counts as wrong
and a judge that is down as zero.
"""

import hashlib
import inspect
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vl3.evaluation.catalogue.entry import Benchmark, Part
from vl3.evaluation.harness.model import TASK_ERRORS, request_name
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.judge_gateway import JudgeGateway
from vl3.system.files import atomic_write_text

NOT_JUDGED = "not judged: "
"""How `why_no_score` begins where no judge has given a verdict."""

_AHEAD = 256
"""Answers about which a judge is asked together, within its own limits: more would be long without a sign of life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScores:
    """What a task's answers are worth."""

    items: list[ItemRecord]
    values: dict[str, float]
    """The task's values by metric, of the items with a score, on the task's own scale; empty if there are none."""
    why_no_value: str
    """Why there is no value; empty if there is one."""
    submission: str
    """File of answers for the benchmark's server; empty if the task writes none."""


def score_task(
    benchmark: Benchmark,
    part: Part,
    task: Any,
    answers: Mapping[str, ItemRecord],
    *,
    folder: Path,
    gateway: JudgeGateway,
    told: Callable[[], None],
) -> TaskScores:
    """Judge the answers to one task.

    Args:
        benchmark: the entry.
        part: which of its tasks.
        task: the task, whose requests were built.
        answers: the unscored record of every request, by name (vl3.evaluation.harness.asking).
        folder: where the task may write its submission.
        gateway: where the task's own code finds the judge.
        told: called before each item.
    """
    for instance in task.instances:
        instance.resps = [answers[request_name(instance)].answer or ""]
    task.apply_filters()
    documents, key = task.eval_docs_no_media, _filter_key(task)
    items: list[ItemRecord] = []
    results: list[Mapping[str, Any]] = []
    for place, instance in enumerate(task.instances):
        if benchmark.needs_judge and place % _AHEAD == 0:
            _ask_ahead(task, task.instances[place : place + _AHEAD], answers, key, gateway)
        told()
        name = request_name(instance)
        asked, document = answers[name], documents[instance.doc_id]
        why, found = asked.why_no_score, None
        if asked.answer is not None:
            why_not = gateway.watch(name)
            found, why = _process(task, document, instance.filtered_resps[key], name)
            why = why or why_not()
        score, reason = (None, why) if why or found is None else _item_score(benchmark, task, found, folder)
        if not why and found is not None:
            results.append(found)
        items.append(_scored(asked, document, str(task.doc_to_target(document)), score, why or reason))
    if benchmark.submission:
        submission = _write_submission(benchmark, part, results, folder)
        reason = f"the references are not public: send {submission.name} to the benchmark's server"
        return TaskScores(items=items, values={}, why_no_value=reason, submission=str(submission))
    values, why_no_value = _aggregate(benchmark, task, results, folder)
    return TaskScores(items=items, values=values, why_no_value=why_no_value, submission="")


def _ask_ahead(
    task: Any, instances: Sequence[Any], answers: Mapping[str, ItemRecord], key: str, gateway: JudgeGateway
) -> None:
    """Have the judge asked about some answers at once; what the task makes of them, without verdicts, is dropped."""
    with gateway.asking_ahead():
        for instance in instances:
            name = request_name(instance)
            if answers[name].answer is not None:
                _process(task, task.eval_docs_no_media[instance.doc_id], instance.filtered_resps[key], name)


def _filter_key(task: Any) -> str:
    """The last filter's name: `none` where a task has none."""
    return list(task.instances[0].filtered_resps)[-1]


def _process(task: Any, document: Any, response: Any, name: str) -> tuple[Mapping[str, Any] | None, str]:
    """What the task makes of one answer, or why it makes nothing of it.

    Several tasks draw a letter where an answer has none; the seed is the item's, so that each run draws the same.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    try:
        # Without tenacity's five tries of two seconds: what fails here fails always.
        return inspect.unwrap(type(task).process_results)(task, document, [response]), ""
    except (SystemExit, *TASK_ERRORS) as error:
        return None, f"the task's code refused the answer ({type(error).__name__}: {error})"


def _item_score(benchmark: Benchmark, task: Any, found: Mapping[str, Any], folder: Path) -> tuple[float | None, str]:
    rule = benchmark.item_score
    if rule == "none":
        return None, f"{NOT_JUDGED}scored by the benchmark's server"
    if rule == "aggregate":
        value = _run(task.aggregation()[benchmark.metric], [found[benchmark.metric]], folder)
        return float(value or 0.0) * benchmark.scale / 100.0, ""
    if rule.startswith("@"):
        one, _, other = rule[1:].partition("=")
        fields = found[benchmark.metric]
        return float(fields[one] == fields[other]), ""
    metric, *path = rule.split(".")
    value = next(iter(found.values())) if metric == "*" else found[metric]
    for key in path:
        value = value[key]
    return float(value), ""


def _aggregate(
    benchmark: Benchmark, task: Any, results: Sequence[Mapping[str, Any]], folder: Path
) -> tuple[dict[str, float], str]:
    values: dict[str, float] = {}
    for metric in (benchmark.metric, *benchmark.metrics):
        rows = [found[metric] for found in results if metric in found]
        if not rows:
            continue
        try:
            value = _run(task.aggregation()[metric], rows, folder)
        except TASK_ERRORS as error:
            return {}, f"{metric} cannot be computed ({type(error).__name__}: {error})"
        if value is not None:
            values[metric] = float(value)
        else:  # MathVista's says None where it means 0
            values[metric] = 0.0
    return values, "" if values else "the task gives no value"


def _run(aggregation: Callable[..., Any], rows: list[Any], folder: Path) -> Any:
    if "args" in inspect.signature(aggregation).parameters:
        return aggregation(rows, args=SimpleNamespace(output_path=str(folder)))
    return aggregation(rows)


def _write_submission(benchmark: Benchmark, part: Part, results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """The file for the benchmark's server. lmms-eval's own function for EgoSchema would send it there unasked."""
    rows = [found["submission"] for found in results]
    content = {key: value for row in rows for key, value in row.items()} if benchmark.submission == "merged" else rows
    path = folder / "submissions" / f"{part.task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def _scored(asked: ItemRecord, document: Any, reference: str, score: float | None, why_no_score: str) -> ItemRecord:
    """The record of a question with its score; one that could not be asked is known by its document."""
    digest = hashlib.sha256((asked.sha256 or json.dumps(document, default=str, sort_keys=True)).encode())
    digest.update(reference.encode(errors="surrogatepass"))
    return replace(asked, sha256=digest.hexdigest(), reference=reference, score=score, why_no_score=why_no_score)
