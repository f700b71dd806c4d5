"""Benchmarks of a model: ask, keep each answer as it comes, judge, write records and scores.

OUT/answers/MODEL/chartqa.jsonl    answers as they come; a killed run goes on after the last one
OUT/items/MODEL/chartqa.jsonl      a record an item (evaluation/items.py)
OUT/benchmarks.json                scores beside the paper's
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vl3.errors import DataError
from vl3.evaluation.catalogue.copies import BenchmarkCopy, read_copy
from vl3.evaluation.catalogue.entry import Benchmark
from vl3.evaluation.harness.answers import TaskAnswer
from vl3.evaluation.harness.asks import TaskAsk
from vl3.evaluation.harness.model import read_request, request_name
from vl3.evaluation.harness.scoring import NOT_JUDGED, TaskScores, Watch, score_task
from vl3.evaluation.harness.tasks import load_task, task_manager
from vl3.evaluation.items import ItemRecord, items_path, write_items
from vl3.evaluation.published import PublishedNumbers, published
from vl3.system.files import atomic_write_text

RESULT_FILE = "benchmarks.json"
Answering = Callable[[Iterator[TaskAsk | TaskAnswer]], Iterator[TaskAnswer]]
"""Answers questions, such as `Vl3.answer`."""
Tell = Callable[[str], None]


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
    """File for the benchmark's server; empty if it has none."""
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
    max_new_tokens: int | None = None


def run_benchmark(
    benchmark: Benchmark,
    copy: Path,
    answering: Answering,
    *,
    model: str,
    out: Path,
    limits: RunLimits,
    watch: Watch,
    tell: Tell = lambda _: None,
) -> BenchmarkScore:
    """Evaluate a model on one benchmark.

    Args:
        benchmark: the entry.
        copy: folder of its local copy.
        answering: answers questions.
        model: the model's name in the results.
        out: folder of the evaluation.
        limits: what is asked.
        watch: tells whether an item needed a judge and got no verdict; JudgeGateway.watch.
        tell: called with a line of progress.

    Raises:
        DataError: the copy is missing, of another benchmark, or cannot be read by the task.
    """
    about = read_copy(copy, benchmark)
    manager = task_manager(part.task for part in benchmark.parts)
    journal = _Journal(out / "answers" / model / f"{benchmark.name}.jsonl")
    scores: dict[str, TaskScores] = {}
    for part in benchmark.parts:
        task = load_task(benchmark, part, copy, manager, out / "datasets")
        task.build_all_requests(limit=limits.max_items)
        documents = {part.task: task.dataset}
        requests = list(task.instances)
        asks: dict[str, TaskAsk] = {}
        answers = _answer(requests, documents, asks, journal, answering, limits)
        tell(f"{benchmark.name}: {part.task}: {len(answers)} answers")
        scores[part.task] = score_task(benchmark, part, task, asks, answers, folder=out / "tasks" / model, watch=watch)
    items = [item for found in scores.values() for item in found.items]
    write_items(items_path(out, model, benchmark.name), items)
    return _summary(benchmark, about, scores, items, limits)


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


def _answer(
    requests: list[Any],
    documents: Mapping[str, Any],
    asks: dict[str, TaskAsk],
    journal: "_Journal",
    answering: Answering,
    limits: RunLimits,
) -> dict[str, TaskAnswer]:
    """An answer to every request: the journal's where the same question was answered before, else the model's."""
    answers: dict[str, TaskAnswer] = {}

    def open_asks() -> Iterator[TaskAsk | TaskAnswer]:
        for request in requests:
            ask = read_request(request, documents, limits.max_new_tokens)
            if isinstance(ask, TaskAsk):
                asks[ask.name] = _without_pixels(ask)
                known = journal.find(ask)
                if known is not None:
                    answers[known.name] = known
                    continue
            yield ask

    for answer in answering(open_asks()):
        answers[answer.name] = answer
        if answer.name in asks:
            journal.add(asks[answer.name], answer)
    lacking = [request_name(request) for request in requests if request_name(request) not in answers]
    if lacking:
        raise DataError(f"{len(lacking)} questions got no answer, such as {lacking[0]}. Run the evaluation again.")
    return answers


def _without_pixels(ask: TaskAsk) -> TaskAsk:
    """What is kept of a question until its record is written; pictures of a benchmark do not fit into memory."""
    return replace(ask, images=())


class _Journal:
    """Answers on disk by question, so that a killed evaluation goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, str, int], TaskAnswer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = b""
        if path.is_file():
            # A line that a kill cut short is dropped, and its question is asked again.
            whole = path.read_bytes()
            whole = whole[: whole.rfind(b"\n") + 1]
            path.write_bytes(whole)
        for line in whole.decode(errors="replace").splitlines():
            fields = json.loads(line)
            key = (fields.pop("sha256"), fields.pop("most_tokens"))
            self._known[fields["name"], *key] = TaskAnswer(**fields)

    def find(self, ask: TaskAsk) -> TaskAnswer | None:
        """The answer to the very same question: name, text, media and limit."""
        return self._known.get((ask.name, ask.sha256, ask.max_new_tokens))

    def add(self, ask: TaskAsk, answer: TaskAnswer) -> None:
        """Keep an answer; one that failed is tried again by the next run."""
        if answer.text is None:
            return
        fields = {**asdict(answer), "sha256": ask.sha256, "most_tokens": ask.max_new_tokens}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")


def _summary(
    benchmark: Benchmark,
    about: BenchmarkCopy,
    scores: Mapping[str, TaskScores],
    items: list[ItemRecord],
    limits: RunLimits,
) -> BenchmarkScore:
    not_judged = [item for item in items if item.why_no_score.startswith(NOT_JUDGED)]
    failed = (
        [item for item in items if item.why_no_score and item not in not_judged] if not benchmark.submission else []
    )
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
        submission=next((found.submission for found in scores.values() if found.submission), ""),
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
