"""Asks a model the questions of benchmarks, in portions that several processes share, and keeps what it answers.

What is kept is a record without a score: the task's own code judges all answers to a benchmark at once, in one process
(vl3.evaluation.harness.scores).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.evaluation.catalogue.entry import Benchmark, Part
from vl3.evaluation.harness.answers import ASKS_A_CALL, TaskAnswer
from vl3.evaluation.harness.asks import TaskAsk
from vl3.evaluation.harness.model import read_request, request_name
from vl3.evaluation.harness.tasks import load_task, task_manager
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.units import Claims, own_first

Answering = Callable[[Iterator[TaskAsk | TaskAnswer]], Iterator[TaskAnswer]]
"""Answers questions, and passes on what could not be asked; vl3.evaluation.harness.answers.answer_asks."""
Keep = Callable[[str, ItemRecord], None]
"""Takes a model's name and a record without a score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenTask:
    """One task of a benchmark on a copy of its data."""

    benchmark: Benchmark
    part: Part
    task: Any
    """lmms-eval's, with its requests built."""

    @property
    def requests(self) -> list[Any]:
        """lmms-eval's request for each document."""
        return list(self.task.instances)


def open_tasks(
    benchmarks: Iterable[Benchmark], copies: Mapping[str, Path], cache: Path, *, max_items: int | None = None
) -> list[OpenTask]:
    """The tasks of benchmarks, in their order.

    Args:
        benchmarks: the entries.
        copies: folder of each one's copy, by name.
        cache: folder for the tables that lmms-eval makes of the copies.
        max_items: questions of each task, for a trial; None for all.

    Raises:
        DataError: a copy cannot be read by its task.
    """
    opened = []
    for benchmark in benchmarks:
        manager = task_manager(part.task for part in benchmark.parts)
        for part in benchmark.parts:
            task = load_task(benchmark, part, copies[benchmark.name], manager, cache)
            task.build_all_requests(limit=max_items)
            opened.append(OpenTask(benchmark=benchmark, part=part, task=task))
    return opened


def ask_tasks(
    model: str,
    tasks: Sequence[OpenTask],
    answering: Answering,
    keep: Keep,
    *,
    known: Mapping[str, ItemRecord],
    claims: Claims,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Ask what has no answer yet, together with the other processes.

    Args:
        model: its name.
        tasks: what is asked.
        answering: answers.
        keep: called with each record.
        known: the records of earlier attempts, by item.
        claims: shared by the processes.
        rank: number of this process.
        world_size: number of processes.
    """
    portions = [
        (task, task.requests[start : start + ASKS_A_CALL])
        for task in tasks
        for start in range(0, len(task.requests), ASKS_A_CALL)
    ]
    for number in own_first(len(portions), rank, world_size):
        task, requests = portions[number]
        left = [request for request in requests if request_name(request) not in known]
        if left and claims.take(f"{model}/{number}"):
            for item in _ask(task, left, answering):
                keep(model, item)


def _ask(task: OpenTask, requests: Sequence[Any], answering: Answering) -> Iterator[ItemRecord]:
    documents = {task.part.task: task.task.dataset}
    asks: dict[str, TaskAsk] = {}

    def read() -> Iterator[TaskAsk | TaskAnswer]:
        for request in requests:
            ask = read_request(request, documents, None)
            if isinstance(ask, TaskAsk):
                asks[ask.name] = ask
            yield ask

    for answer in answering(read()):
        ask = asks.pop(answer.name, None)
        yield ItemRecord(
            benchmark=task.benchmark.name,
            group=task.part.task if len(task.benchmark.parts) > 1 else "",
            item_id=answer.name,
            sha256=ask.sha256 if ask else "",
            prompt=ask.text if ask else "",
            media=ask.media_names if ask else (),
            reference="",
            answer=answer.text,
            score=None,
            chance=task.benchmark.chance,
            why_no_score=answer.failure,
            tokens=answer.tokens,
            seconds=answer.seconds,
        )
