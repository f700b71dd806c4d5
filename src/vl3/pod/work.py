"""What a pod of a TrainJob is to do: train a stage, or answer the questions of an evaluation.

The document in VL3_JOB says which by its fields. What differs between the two is here; the rest of the pod, its
processes, events, signals and errors, is the same for both.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vl3.config.placement import BENCHMARKS, EVALUATION
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.evaluation.job import EvaluationJob, evaluation_config, parse_evaluation_job
from vl3.pod.sources import EVALUATION_ENTRIES, TRAINING_ENTRIES, require_same_sources
from vl3.store.artifacts import find, is_intact
from vl3.training.job import StageJob, config_of, parse_job
from vl3.training.watchdog import Watchdog

Job: TypeAlias = StageJob | EvaluationJob


@dataclass(frozen=True, kw_only=True, slots=True)
class PodWork:
    """A job with what the pod needs to know of its kind."""

    job: Job
    config: RunConfig
    what: str
    """What it is, for messages: `stage video`."""
    placement: str
    """Name of its placement."""
    module: str
    """What each process runs."""
    entries: tuple[str, ...]
    """The modules whose code the launcher must share."""
    processes: tuple[int, ...]
    """Numbers of processes that it may have."""
    patience_seconds: float
    """How long a process may wait for data or the store."""
    when_asked_to_stop: str
    """What its processes do when they are asked to stop."""
    is_done: Callable[[], bool]
    """Whether an earlier attempt has finished it: a recreated pod must not do it again."""

    def require_sources(self) -> None:
        """Refuse a job that other code launched; see vl3.pod.sources."""
        require_same_sources(self.what, self.job.code_version, self.entries)

    def require_processes(self, count: int, shown: str) -> None:
        """Check the number of processes.

        Raises:
            ConfigError: it is not one that the job may have.
        """
        if count in self.processes:
            return
        expected = " or ".join(map(str, self.processes))
        raise ConfigError(
            f"the {self.what} needs {expected} processes, but its pods have {shown} = {count}. The TrainJob does not "
            f"match the job in VL3_JOB: correct placements.{self.placement} and launch it again."
        )

    def watchdog(self, hearts: Path) -> Watchdog:
        """What notices a rank of this pod that has stalled."""
        margin = self.config.engine.rank_stall_seconds
        return Watchdog(hearts, margin_seconds=margin, patience_seconds=self.patience_seconds)


def read_work(text: str, where: str) -> PodWork:
    """The work that a document describes; errors start with `where`, its origin.

    Raises:
        ConfigError: it is no job of this version.
    """
    data = _parsed(text)
    if isinstance(data, dict) and "models" in data:
        return _evaluation(parse_evaluation_job(data, where))
    return _training(parse_job(text, where))


def _training(job: StageJob) -> PodWork:
    config = config_of(job)

    def is_published() -> bool:
        reference = find(job.output_uri)
        return reference is not None and is_intact(reference)

    return PodWork(
        job=job,
        config=config,
        what=f"stage {job.stage}",
        placement=job.stage,
        module="vl3.training.worker",
        entries=TRAINING_ENTRIES,
        processes=tuple(config.world_sizes(job.stage)),
        patience_seconds=config.stages[job.stage].stall_seconds,
        when_asked_to_stop="the workers finish their step and write a checkpoint",
        is_done=is_published,
    )


def _evaluation(job: EvaluationJob) -> PodWork:
    config = evaluation_config(job)
    name, module = (
        (BENCHMARKS, "vl3.evaluation.harness.worker") if job.benchmarks else (EVALUATION, "vl3.evaluation.worker")
    )
    placement = config.placements.get(name)
    if placement is None:
        raise ConfigError(
            f"the evaluation's configuration has no placements.{name}, so it was not made for pods. Launch it "
            "with the TrainJob that belongs to it."
        )
    return PodWork(
        job=job,
        config=config,
        what="evaluation",
        placement=name,
        module=module,
        entries=EVALUATION_ENTRIES,
        processes=tuple(count * placement.processes_per_node for count in placement.node_counts(None)),
        patience_seconds=config.launch.task_stall_seconds,
        when_asked_to_stop="the workers keep the answers so far",
        is_done=lambda: False,  # its processes see that every question is answered, and end
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
