"""Entry point of one training process: `python -m vl3.training.worker --job job.json` under torchrun.

Only this module handles a worker's environment, signals, log and exit status.
"""

import argparse
import logging
import os
import time
from pathlib import Path

from vl3.errors import Vl3Error
from vl3.system.imports import lean_imports
from vl3.system.rank import (
    LAUNCHED_AT_VARIABLE,
    StopRequest,
    log_as_rank,
    rank_numbers,
    record_failure,
    run_as_rank,
    start_lifelines,
)
from vl3.training.heart import Heart
from vl3.training.job import StageJob, read_job
from vl3.training.outcome import STOPPED_EXIT_CODE

log = logging.getLogger("vl3.training")


def main(arguments: list[str]) -> int:
    """Run one worker; returns its exit status."""
    start_lifelines()
    stop = StopRequest(log, "finishing the step and writing a checkpoint")
    stop.install()
    # DeepSpeed decorates an optimizer that we do not use with torch.compile, whose set-up takes seconds.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    parser = argparse.ArgumentParser(prog="python -m vl3.training.worker")
    parser.add_argument("--job", type=Path, required=True, help="the stage's job file")
    job = read_job(parser.parse_args(arguments).job)
    log_as_rank()
    try:
        is_finished = _train(job, stop)
    except Vl3Error as error:
        log.error("%s: %s", type(error).__name__, error, exc_info=error)
        record_failure(Path(job.failure_path), error, log)
        return error.exit_code
    return 0 if is_finished else STOPPED_EXIT_CODE


def _train(job: StageJob, stop: StopRequest) -> bool:
    """Join the other ranks and run the stage; returns whether it is finished."""
    numbers = rank_numbers()
    with lean_imports():  # torch too: garbage collection takes a tenth of the start-up time
        from vl3.training.engine import start_process_group, stop_process_group
        from vl3.training.stage import Rank, run_stage

    start_process_group(
        local_rank=numbers["LOCAL_RANK"], threads=job.config["launch"]["threads_per_process"], seed=job.config["seed"]
    )
    heart = Heart.of_environment(os.environ, numbers["RANK"])
    launched_at = float(os.environ.get(LAUNCHED_AT_VARIABLE, time.time()))
    rank = Rank(
        rank=numbers["RANK"],
        world_size=numbers["WORLD_SIZE"],
        launched_at=launched_at,
        ranks_of_machine=numbers["LOCAL_WORLD_SIZE"],
        heart=heart,
    )
    is_finished = run_stage(job, rank, stop_requested=stop)
    stop_process_group()
    return is_finished


if __name__ == "__main__":
    run_as_rank(main, log)
