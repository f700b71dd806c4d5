"""What is launched: one stage in several processes, with its log, its events and its deadline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vl3.config.checks import Count, OneOf, Seconds, Workers, check_fields
from vl3.config.placement import PlacementConfig
from vl3.config.stages import STALL_SECONDS, STARTUP_SECONDS
from vl3.errors import ConfigError

BACKENDS = ("local", "trainjob", "rayjob")
"""Where a stage's processes can be started."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """How messages speak of a kind of work."""

    name: str
    """What it is."""
    unit: str
    """What its progress is counted in."""
    unfinished: str
    """What is missing when all units are done and it goes on."""
    resumes: str
    """What another start of it does."""
    setting: str
    """The field of the configuration that has a limit, with `{stage}` and `{field}` for the stage and the limit."""


TRAINING = Words(
    name="stage",
    unit="step",
    unfinished="its weights were not published",
    resumes="resumes from its last checkpoint",
    setting="stages.{stage}.{field}",
)
BUILDING = Words(
    name="build",
    unit="line",
    unfinished="it did not end",
    resumes="makes the units that are missing",
    setting="launch.task_stall_seconds",
)


EVALUATING = Words(
    name="evaluation",
    unit="answer",
    unfinished="it did not end",
    resumes="asks the questions that have no answer yet",
    setting="launch.task_stall_seconds",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchJob:
    """One training stage to be run to its end, a build of a dataset, or an evaluation."""

    name: str
    """Name of the task, for messages."""
    backend: Annotated[str, OneOf(BACKENDS)]
    """`local`: processes on this machine under torchrun; `trainjob`: pods of a Kubeflow TrainJob; `rayjob`: a Ray
    cluster of a KubeRay RayJob."""
    run_id: str
    """Identity of the workflow run; with the stage it determines the job's name."""
    stage: str
    """Name of the stage in the configuration."""
    module: str
    """Module that each local process runs, as with `python -m`, or the driver on a Ray cluster; the pods of a TrainJob
    run their runtime's command."""
    python: str = ""
    """Interpreter of local processes, of another environment than this one's; empty for this one's."""
    packs_per_step: Count | None = 1
    """Packed rows of a step, or what their number is a multiple of: each process gets as many of them, whatever number
    of nodes the placement lets it have. None if the processes share no rows."""
    document: dict[str, Any]
    """The stage's job as plain data: a file for local processes (`--job FILE`), VL3_JOB for pods."""
    processes_per_node: Workers
    """Number of local processes; for pods the placement says it."""
    threads_per_process: Workers
    """CPU threads of each process."""
    placement: PlacementConfig | None = None
    """Where the pods run; None for local processes."""
    log_path: Path | None = None
    """File to which the output of all processes is appended; None uses `workers.log` next to the events (local) or
    this process's own log (pods)."""
    events_path: Path
    """File of JSON lines to which the stage's events are appended."""
    failure_path: Path
    """File that a process writes when an error of a known family ends it."""
    work_uri: str
    """Where the stage's unfinished work is stored: checkpoints, and the events of pods."""
    startup_seconds: Seconds = STARTUP_SECONDS
    """Time that the processes may take before their first step, and again after their last one."""
    stall_seconds: Seconds = STALL_SECONDS
    """Time without a finished step after which the processes are stopped; longer where steps are slow (StallWatch)."""
    rank_stall_seconds: Seconds = 45.0
    """How much longer than the slowest step the ranks may be silent before one of them counts as stalled (Watchdog)."""
    timeout_seconds: Seconds | None = None
    """Time after which the processes are stopped whatever progress they make; time in a queue does not count."""
    grace_seconds: Count | None = None
    """Time that a pod may take to end, for a last checkpoint; None leaves it to the pool's runtime."""
    words: Words = TRAINING
    """How messages speak of its work, and which settings have its limits."""

    @property
    def node_counts(self) -> list[int]:
        """Numbers of nodes with which the job may run, the largest first."""
        return self.placement.node_counts(self.packs_per_step) if self.placement else []

    def __post_init__(self) -> None:
        check_fields(self, "launch")
        if self.backend != "local" and self.placement is None:
            raise ConfigError(
                f"launch.placement of {self.name} is missing: a job on a cluster needs a pool, a size and a queue. Set "
                f"placements.{self.stage} in the recipe."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class StateChange:
    """A change in a launch that is worth reporting to a person."""

    state: str
    """queued, admitted, pulling, starting, running, preempted, resumed, retrying, complete or failed."""
    text: str
    """One line: which object, why, how many."""
    time: float
    """Unix time at which the launcher saw it."""

    def as_event(self) -> dict[str, Any]:
        """The event that the handler gets."""
        return {"type": "state", "state": self.state, "text": self.text, "time": self.time}


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchResult:
    """Summary of a launch that succeeded."""

    attempts: int
    """Attempts of this run's stage, including those of an earlier launcher."""
    seconds_queued: float
    """Time without quota or nodes, over all attempts that this launcher saw."""
    seconds_running: float
    """Time with processes, over all attempts that this launcher saw."""
    states: tuple[StateChange, ...]
    """The state changes in order."""
    images: tuple[str, ...] = ()
    """The images that the pods ran, by digest as their nodes say; one, unless its tag was moved meanwhile."""
