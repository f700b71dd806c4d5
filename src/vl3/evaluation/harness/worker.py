"""Entry point of one process of the benchmarks: `python -m vl3.evaluation.harness.worker --job job.json`, by torchrun.

It runs in lmms-eval's environment. All processes answer; then the first one scores all answers, for which the tasks'
own code may ask the judge, and stores records and scores below the work URI.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from vl3.config.run import RunConfig
from vl3.errors import Vl3Error
from vl3.evaluation.asking import ProcessPlace
from vl3.evaluation.candidates import EvaluatedModel, open_candidate
from vl3.evaluation.catalogue.copies import read_copy, show_media
from vl3.evaluation.catalogue.entry import Benchmark, choose_benchmarks
from vl3.evaluation.document import BENCHMARKS_FILE
from vl3.evaluation.harness.offline import offline_variables, quiet, require_harness
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.job import EvaluationJob, evaluation_config, read_evaluation_job
from vl3.evaluation.journal import Answers, Journal, read_answers
from vl3.evaluation.judge_gateway import JudgeGateway
from vl3.evaluation.judges import EndpointJudge
from vl3.evaluation.open_judge import JUDGE_RECORDS
from vl3.evaluation.processes import (
    EvaluationStoppedError,
    StoreClaims,
    Telling,
    count_answers,
    device_of,
    fetch_models,
    first_of_machine,
    join_processes,
    read_former_answers,
)
from vl3.store.artifacts import fetch
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.imports import lean_imports
from vl3.system.rank import StopRequest, log_as_rank, rank_numbers, record_failure, run_as_rank, start_lifelines
from vl3.training.events import EventLog
from vl3.training.outcome import STOPPED_EXIT_CODE

log = logging.getLogger("vl3.evaluation")

_TELL_SECONDS = 1.0
SCORES = "scores"
"""Folder of records and scores below the work URI."""


def main(arguments: list[str]) -> int:
    """Run one process; returns its exit status."""
    start_lifelines()
    stop = StopRequest(log, "the answers so far are kept")
    stop.install()
    parser = argparse.ArgumentParser(prog="python -m vl3.evaluation.harness.worker")
    parser.add_argument("--job", type=Path, required=True, help="the evaluation's job file")
    job = read_evaluation_job(parser.parse_args(arguments).job)
    log_as_rank()
    try:
        return _evaluate(job, stop)
    except Vl3Error as error:
        log.error("%s: %s", type(error).__name__, error, exc_info=error)
        record_failure(Path(job.failure_path), error, log)
        return error.exit_code


def _evaluate(job: EvaluationJob, stop: StopRequest) -> int:
    require_harness()
    numbers, config = rank_numbers(), evaluation_config(job)
    with lean_imports():
        import torch
    rank, world_size, local_rank = numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"]
    place = ProcessPlace(rank=rank, world_size=world_size, device=device_of(local_rank, torch.cuda))
    torch.set_num_threads(config.launch.threads_per_process)
    store = join_processes(rank, world_size)
    models, config = fetch_models(job, config, store, local_rank=local_rank)
    entries = choose_benchmarks([one["name"] for one in job.benchmarks])
    copies = _fetch_copies(job, store, local_rank)
    answered = read_former_answers(job, store, rank)
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="vl3-benchmarks-")))
        gateway = opened.enter_context(JudgeGateway(None) if rank else _gateway(job, config, scratch, opened))
        # lmms-eval, its tasks and the hub's client read these when they are imported.
        os.environ.update(gateway.environment | offline_variables(scratch / "hf"))
        quiet()
        for entry in entries:
            show_media(scratch / "hf", entry, copies[entry.name])
        from vl3.evaluation.harness.asking import open_tasks

        tasks = open_tasks(entries, copies, scratch / "datasets")
        total = sum(len(task.requests) for task in tasks) * len(models)
        events = EventLog(Path(job.events_path) if rank == 0 else None)
        # Each question is answered, then scored, which takes long where a judge is asked.
        telling = Telling(store, events, rank=rank, total=2 * total, before=count_answers(answered))
        try:
            with Journal(job.work_uri, job.identity, rank) as kept:

                def keep(model: str, item: ItemRecord) -> None:
                    kept.add(model, item)
                    telling.answered(model)
                    if stop():
                        raise EvaluationStoppedError

                _ask(models, tasks, config, keep, answered, StoreClaims(store), place)
            telling.wait_for_others(world_size, stop)
        except EvaluationStoppedError:
            return STOPPED_EXIT_CODE
        if not rank:
            answers = read_answers(job.work_uri, job.identity)
            told = ScoresTold(events, before=total, total=2 * total)
            _score(job, config, tasks, entries, copies, answers, gateway, told, scratch)
    return 0


def _fetch_copies(job: EvaluationJob, store: Any, local_rank: int) -> dict[str, Path]:
    """The verified copy of each benchmark; the first process of each machine reads the bytes."""
    with first_of_machine(store, local_rank, "copies") as is_first:
        verified = None if is_first else ()
        return {one["name"]: fetch(Reference.from_dict(one["copy"]), verified=verified) for one in job.benchmarks}


def _gateway(job: EvaluationJob, config: RunConfig, scratch: Path, opened: ExitStack) -> JudgeGateway:
    """The judge with the verdicts of earlier attempts, which are paid for."""
    settings = config.evaluation.judge
    if settings is None:
        return JudgeGateway(None, why_none="no judge is configured (evaluation.judge)")
    records = scratch / SCORES / JUDGE_RECORDS
    records.parent.mkdir()
    store = open_store(join_uri(job.work_uri, SCORES))
    known = store.read(JUDGE_RECORDS)
    if known is not None:
        records.write_bytes(known)
    judge = opened.enter_context(closing(EndpointJudge(settings, records)))
    return JudgeGateway(judge, keep=lambda: store.put_file(records, JUDGE_RECORDS))


class ScoresTold:
    """Tells how many answers are scored."""

    def __init__(self, events: EventLog, *, before: int, total: int) -> None:
        """Nothing is scored yet."""
        self._events, self._done, self._total, self._told_at = events, before, total, 0.0

    def __call__(self) -> None:
        """Count one more."""
        self._done += 1
        if time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._told_at = time.monotonic()
            self._events.write("progress", done=self._done, total=self._total, text="scores")


def _ask(
    models: Sequence[EvaluatedModel],
    tasks: Sequence[Any],
    config: RunConfig,
    keep: Any,
    answered: Answers,
    claims: StoreClaims,
    place: ProcessPlace,
) -> None:
    """Ask each model what has no answer yet; a model is loaded when there is a question for it."""
    from vl3.evaluation.engine.engine import Engine
    from vl3.evaluation.harness.answers import answer_asks
    from vl3.evaluation.harness.asking import ask_tasks
    from vl3.evaluation.harness.protocol import as_published

    settings = config.evaluation
    for model in models:
        candidate = open_candidate(model, config)
        engines: list[Engine] = []

        def answering(asks: Any, candidate: Any = candidate, engines: list[Engine] = engines) -> Any:
            if not engines:
                loaded = candidate.load(place.device, settings.dtype)
                engine = Engine(
                    loaded,
                    candidate.tokenizer(),
                    as_published(candidate.settings),
                    max_rows=settings.batch_size,
                    threads=settings.prepare_threads,
                    timeout_seconds=settings.prepare_timeout_seconds,
                )
                engines.append(engine)
            return answer_asks(engines[0], asks)

        ask_tasks(
            model.name,
            tasks,
            answering,
            keep,
            known=answered.get(model.name, {}),
            claims=claims,
            rank=place.rank,
            world_size=place.world_size,
        )


def _score(
    job: EvaluationJob,
    config: RunConfig,
    tasks: Sequence[Any],
    entries: Sequence[Benchmark],
    copies: Mapping[str, Path],
    answers: Answers,
    gateway: JudgeGateway,
    told: Callable[[], None],
    scratch: Path,
) -> None:
    """Judge all answers and store what came of it."""
    from vl3.evaluation.harness.scores import RunLimits, score_benchmark, write_scores

    limits, folder = RunLimits(max_failed_share=config.evaluation.max_failed_fraction), scratch / SCORES
    store = open_store(join_uri(job.work_uri, SCORES))
    for model in job.models:
        for entry in entries:
            gateway.expect(entry.judge_reply)
            score = score_benchmark(
                read_copy(copies[entry.name], entry),
                [task for task in tasks if task.benchmark.name == entry.name],
                answers.get(model["name"], {}),
                model=model["name"],
                out=folder,
                limits=limits,
                gateway=gateway,
                told=told,
            )
            write_scores(folder / BENCHMARKS_FILE, model["name"], [score], {entry.name: entry})
    result = folder / BENCHMARKS_FILE
    others = sorted(path for path in folder.rglob("*") if path.is_file() and path != result)
    for path in (*others, result):  # the result last: who finds it finds the records
        store.put_file(path, path.relative_to(folder).as_posix())


if __name__ == "__main__":
    run_as_rank(main, log)
