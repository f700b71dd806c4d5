"""Entry point of one training process: `python -m vl3.training.worker --job job.json` under torchrun.

Only this module handles a worker's environment, signals, log and exit status.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from vl3.errors import FAMILIES, ConfigError, Vl3Error
from vl3.lifeline import RUNNER_VARIABLE, start_lifeline
from vl3.system.imports import lean_imports
from vl3.training.heart import Heart
from vl3.training.job import StageJob, read_job
from vl3.training.outcome import STOPPED_EXIT_CODE

LAUNCHER_VARIABLE = "VL3_LAUNCHER"
"""Identifies the process that launched the stage; a worker ends when that process ends."""
LAUNCHED_AT_VARIABLE = "VL3_LAUNCHED_AT"
"""Unix time of the launch, for startup_seconds."""

log = logging.getLogger("vl3.training")


class StopRequest:
    """Remembers that the process was asked to stop; the training loop checks it between steps."""

    def __init__(self) -> None:
        self._is_set = False

    def __call__(self) -> bool:
        """Whether the process was asked to stop."""
        return self._is_set

    def install(self) -> None:
        """On SIGTERM and SIGINT, finish the step, write a checkpoint and end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self._is_set:
            log.warning("asked to stop by %s: finishing the step and writing a checkpoint", signal.Signals(number).name)
        self._is_set = True


def main(arguments: list[str]) -> int:
    """Run one worker; returns its exit status."""
    _start_lifelines()
    stop = StopRequest()
    stop.install()
    # DeepSpeed decorates an optimizer that we do not use with torch.compile, whose set-up takes seconds.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    parser = argparse.ArgumentParser(prog="python -m vl3.training.worker")
    parser.add_argument("--job", type=Path, required=True, help="the stage's job file")
    job = read_job(parser.parse_args(arguments).job)
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s rank {os.environ.get('RANK', '?')} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        is_finished = _train(job, stop)
    except Vl3Error as error:
        log.error("%s: %s", type(error).__name__, error, exc_info=error)
        record_failure(Path(job.failure_path), error)
        return error.exit_code
    return 0 if is_finished else STOPPED_EXIT_CODE


def _train(job: StageJob, stop: StopRequest) -> bool:
    """Join the other ranks and run the stage; returns whether it is finished."""
    try:
        numbers = {name: int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    except KeyError as error:
        raise ConfigError(f"{error.args[0]} is not set. Start workers with torchrun, as vl3.launch does.") from error
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


def record_failure(path: Path, error: Vl3Error) -> None:
    """Record the error that ended the stage. The first rank to record one wins, because the others fail as a result."""
    family = type(error).__name__ if type(error).__name__ in FAMILIES else "ClusterError"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"family": family, "message": str(error)}), encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError as storage_error:  # a full disk, for example; the error is still in the log
        log.error("%s could not be written: %s", path, storage_error)
    finally:
        temporary.unlink(missing_ok=True)


def _start_lifelines() -> None:
    start_lifeline(os.environ, kill_group=True)
    start_lifeline({RUNNER_VARIABLE: os.environ.get(LAUNCHER_VARIABLE, "")}, kill_group=True)


def _run() -> int:
    try:
        return main(sys.argv[1:])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Vl3Error as error:
        log.error("%s: %s", type(error).__name__, error)
        return error.exit_code
    except BaseException as error:  # nothing above would log it
        reason = (str(error).splitlines() or [""])[0]
        log.error("ended by %s: %s", type(error).__name__, reason, exc_info=error)  # the launcher quotes this line
        return 1


if __name__ == "__main__":
    exit_code = _run()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # threads and libraries have nothing left to clean up, and waiting for them takes seconds
