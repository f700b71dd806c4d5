"""Entry point of one process of an evaluation: `python -m vl3.evaluation.worker --job job.json` under torchrun.

It asks the held-out samples; the benchmarks' process is vl3.evaluation.harness.worker.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from vl3.errors import Vl3Error
from vl3.evaluation.asking import ProcessPlace, Questions, ask_models
from vl3.evaluation.dataset import HeldoutSamples
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.job import EvaluationJob, evaluation_config, read_evaluation_job
from vl3.evaluation.journal import Journal
from vl3.evaluation.judging.rule import rules_by_dataset
from vl3.evaluation.processes import (
    EvaluationStoppedError,
    StoreClaims,
    Telling,
    count_answers,
    device_of,
    fetch_models,
    join_processes,
    read_former_answers,
)
from vl3.store.reference import Reference
from vl3.system.imports import lean_imports
from vl3.system.rank import StopRequest, log_as_rank, rank_numbers, record_failure, run_as_rank, start_lifelines
from vl3.training.events import EventLog
from vl3.training.outcome import STOPPED_EXIT_CODE

log = logging.getLogger("vl3.evaluation")


def main(arguments: list[str]) -> int:
    """Run one process; returns its exit status."""
    start_lifelines()
    stop = StopRequest(log, "the answers so far are kept")
    stop.install()
    parser = argparse.ArgumentParser(prog="python -m vl3.evaluation.worker")
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
    numbers, config = rank_numbers(), evaluation_config(job)
    with lean_imports():  # garbage collection takes a tenth of the start-up time
        import torch

        import vl3.evaluation.engine.engine  # noqa: F401  # imported only so that it is loaded here
    rank, world_size = numbers["RANK"], numbers["WORLD_SIZE"]
    place = ProcessPlace(rank=rank, world_size=world_size, device=device_of(numbers["LOCAL_RANK"], torch.cuda))
    torch.set_num_threads(config.launch.threads_per_process)
    store = join_processes(rank, world_size)
    models, config = fetch_models(job, config, store, local_rank=numbers["LOCAL_RANK"])
    answered = read_former_answers(job, store, rank)
    events = EventLog(Path(job.events_path) if rank == 0 else None)
    with (
        tempfile.TemporaryDirectory(prefix="vl3-heldout-") as scratch,
        Journal(job.work_uri, job.identity, rank) as kept,
    ):
        samples = HeldoutSamples(Reference.from_dict(job.dataset), Path(scratch))
        questions = Questions.of_samples(samples, config, rules_by_dataset(job.judging))
        total = len(questions.rows) * len(models)
        telling = Telling(store, events, rank=rank, total=total, before=count_answers(answered))

        def keep(model: str, item: ItemRecord) -> None:
            kept.add(model, item)
            telling.answered(model)
            if stop():
                raise EvaluationStoppedError

        try:
            ask_models(models, questions, config, keep, answered=answered, claims=StoreClaims(store), place=place)
            telling.wait_for_others(world_size, stop)
        except EvaluationStoppedError:
            return STOPPED_EXIT_CODE
    return 0


if __name__ == "__main__":
    run_as_rank(main, log)
