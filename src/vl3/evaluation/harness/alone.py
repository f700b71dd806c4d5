"""Benchmarks of one model in this process: what `vl3 eval run` does. A workflow's evaluation does the same in many."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.evaluation.catalogue.copies import read_copy, show_media
from vl3.evaluation.catalogue.entry import Benchmark
from vl3.evaluation.document import BENCHMARKS_FILE
from vl3.evaluation.harness.offline import offline_variables, quiet
from vl3.evaluation.journal import Journal, read_answers
from vl3.evaluation.judge_gateway import JudgeGateway
from vl3.evaluation.judges import AnswerJudge
from vl3.evaluation.units import OwnClaims
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference

if TYPE_CHECKING:
    from vl3.evaluation.harness.scores import BenchmarkScore, RunLimits


def evaluate_alone(
    model: Path,
    entries: Sequence[Benchmark],
    copies: Mapping[str, Reference],
    *,
    name: str,
    out: Path,
    judge: AnswerJudge | None,
    max_items: int | None,
    max_failed_share: float,
    device: str | None,
    dtype: str | None,
) -> Iterator["BenchmarkScore"]:
    """The score of each benchmark as soon as it is known; what was answered before is not asked again.

    Args:
        model: its folder.
        entries: the benchmarks.
        copies: the copy of each, by name.
        name: the model's name in the results.
        out: folder of the evaluation, which is made.
        judge: None leaves answers that need one not judged.
        max_items: questions of each task, for a trial.
        max_failed_share: share of the items that may fail or stay unjudged.
        device: such as `cuda:1`; None uses a GPU if there is one.
        dtype: float32, bfloat16 or float16; None for bf16 on a GPU, else as stored.

    Raises:
        ConfigError: the folder is not a model.
        DataError: a copy cannot be read by its task.
        StorageError: a copy is damaged, or a result cannot be written.
    """
    folders = {one: fetch(copy) for one, copy in copies.items()}
    with JudgeGateway(judge) as gateway:
        # lmms-eval, its tasks and the hub's client read these when they are imported.
        os.environ.update(gateway.environment | offline_variables(out / "hf"))
        quiet()
        from vl3.evaluation.harness.answers import answer_asks
        from vl3.evaluation.harness.model import Vl3
        from vl3.evaluation.harness.scores import RunLimits, write_scores

        limits = RunLimits(max_failed_share=max_failed_share, max_items=max_items)
        answering = partial(answer_asks, Vl3(checkpoint=str(model), device=device, dtype=dtype).engine)
        for entry in entries:
            identity = _identity(model, copies[entry.name], dtype)
            score = _ask_and_judge(entry, folders, answering, gateway, limits, name=name, out=out, identity=identity)
            write_scores(out / BENCHMARKS_FILE, name, [score], {entry.name: entry})
            yield score


def _ask_and_judge(
    entry: Benchmark,
    folders: Mapping[str, Path],
    answering: Callable[..., Any],
    gateway: JudgeGateway,
    limits: "RunLimits",
    *,
    name: str,
    out: Path,
    identity: str,
) -> "BenchmarkScore":
    """Ask what has no answer yet, and judge all answers to one benchmark."""
    from vl3.evaluation.harness.asking import ask_tasks, open_tasks
    from vl3.evaluation.harness.scores import score_benchmark

    show_media(out / "hf", entry, folders[entry.name])
    tasks = open_tasks([entry], folders, out / "datasets", max_items=limits.max_items)
    work_uri = (out / "work" / entry.name).resolve().as_uri()
    known = read_answers(work_uri, identity).get(name, {})
    with Journal(work_uri, identity, 0) as kept:
        ask_tasks(name, tasks, answering, kept.add, known=known, claims=OwnClaims())
    gateway.expect(entry.judge_reply)
    copy, answers = read_copy(folders[entry.name], entry), read_answers(work_uri, identity)[name]
    return score_benchmark(copy, tasks, answers, model=name, out=out, limits=limits, gateway=gateway)


def _identity(model: Path, copy: Reference, dtype: str | None) -> str:
    """What answers follow from: the model's files by size and time, the data, the type of the weights."""
    files = [path for path in sorted(model.iterdir()) if path.is_file()]
    facts = {
        "model": [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files],
        "copy": copy.sha256,
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
