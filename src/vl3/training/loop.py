"""The training loop. Everything except training itself (metrics, checkpoints) is a callback."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch

from vl3.config.run import OptimizerConfig
from vl3.data.loader.ledger import BadSample, Ledger
from vl3.data.loader.rows import StepRows
from vl3.training.checkpoint import TrainerState
from vl3.training.code_change import CodeHistory
from vl3.training.collectives import gather_json
from vl3.training.engine import TrainingEngine
from vl3.training.events import EventLog
from vl3.training.fragments import KINDS, WEIGHTS
from vl3.training.heart import Activity, Heart
from vl3.training.meter import Meter
from vl3.training.optimizer_groups import PARTS
from vl3.training.saver import Saver
from vl3.training.schedule import stage_factor
from vl3.training.skipped import SkippedUpdates
from vl3.training.snapshot import EngineState

_BEAT_SECONDS = 10.0
"""Slow steps are reported between two metrics, too, at most this often: to the launcher silence means a stall."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDone:
    """What a callback gets after each step; the same on every rank."""

    done: int
    """Number of steps done."""
    total: int
    """Number of steps of the stage."""
    learning_rates: dict[str, float]
    """Learning rate of each trained part in this step."""
    is_applied: bool
    """Whether the weights were updated."""
    stop_requested: bool
    """Whether training stops after this step on request."""


Callback = Callable[[StepDone], None]


def run_steps(
    engine: TrainingEngine,
    batches: Iterable[StepRows],
    meter: Meter,
    skipped: SkippedUpdates,
    callbacks: Sequence[Callback],
    *,
    heart: Heart,
    start: int,
    steps: int,
    optimizer: OptimizerConfig,
    stop_requested: Callable[[], bool],
) -> int:
    """Train from step `start` to the end, or until a rank is asked to stop.

    Args:
        engine: the sharded model.
        batches: this rank's rows of each step, from `start` on.
        meter: collects the measurements of each step.
        skipped: counts the updates that are left out.
        callbacks: called after each step, in order, on every rank.
        heart: says what this rank is doing.
        start: number of steps already done.
        steps: number of steps of the stage.
        optimizer: the schedule.
        stop_requested: whether this process was asked to stop.

    Returns:
        Number of steps done, less than `steps` if asked to stop.

    Raises:
        ConfigError: training has diverged.
    """
    done, iterator = start, iter(batches)
    while done < steps:
        rates = engine.set_learning_rates(stage_factor(done, steps, optimizer))
        heart.begin_step(done)
        # The loader prepares ahead, so any time spent here is time that the device was idle because of missing data.
        waited_from = time.perf_counter()
        taken = next(iterator)
        data_seconds = time.perf_counter() - waited_from
        result = engine.step(taken.rows, stop_requested=stop_requested())
        meter.add(taken, result.loss_sum, result.supervised_tokens, {"data": data_seconds} | result.seconds)
        heart.beat(Activity.MEASURING)
        done += 1
        if not result.is_applied:
            skipped.add(done, taken.rows, result.row_losses)
        event = StepDone(
            done=done,
            total=steps,
            learning_rates=rates,
            is_applied=result.is_applied,
            stop_requested=result.stop_requested,
        )
        for callback in callbacks:
            callback(event)
        if result.stop_requested:
            break
    return done


class StepSeed:
    """Seeds torch's random numbers (for LoRA's dropout) before each step, so that a resumed run draws the same ones."""

    def __init__(self, seed: int, rank: int, *, start: int) -> None:
        self._seed = seed
        self._rank = rank
        self._set(start)

    def __call__(self, step: StepDone) -> None:
        """Seed the next step."""
        self._set(step.done)

    def _set(self, step: int) -> None:
        torch.manual_seed(((self._seed * 1_000_003 + step) * 65_536 + self._rank) % 2**64)


class MetricsWriter:
    """Writes a metrics event and a progress event every few steps and after the last step."""

    def __init__(
        self,
        events: EventLog,
        meter: Meter,
        engine: TrainingEngine,
        *,
        skipped: SkippedUpdates,
        every_steps: int,
        drawn: Callable[[int], dict[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`drawn` returns the number of samples of each kind drawn up to a step."""
        self._events = events
        self._meter = meter
        self._engine = engine
        self._skipped = skipped
        self._every_steps = every_steps
        self._drawn = drawn
        self._clock = clock
        self._said = "training"
        self._said_at = clock()

    def __call__(self, step: StepDone) -> None:
        """Write the metrics if the step is due."""
        if step.done % self._every_steps and step.done != step.total:
            if self._clock() - self._said_at >= _BEAT_SECONDS:
                self._progress(step, self._said)
            return
        values = self._meter.flush()
        values["skipped_updates"] = len(self._skipped.steps)
        if step.is_applied:
            values["grad_norm"] = self._engine.grad_norm
        values |= {f"lr/{part}": step.learning_rates.get(part, 0.0) for part in PARTS}
        values |= {f"mix/{kind}": count for kind, count in self._drawn(step.done).items()}
        self._events.write("metrics", step=step.done, time=time.time(), values=values)
        self._progress(step, f"loss {values['loss']:.3f}")

    def _progress(self, step: StepDone, text: str) -> None:
        self._said, self._said_at = text, self._clock()
        self._events.write("progress", done=step.done, total=step.total, text=text)


class CheckpointSaver:
    """Saves a resumable checkpoint every few steps, and when asked to stop.

    If the previous one is still being written to a slow store, a regular checkpoint is skipped before anything is
    copied. One on request is never skipped. The last step's has the weights alone, from which they are published.
    """

    def __init__(
        self,
        saver: Saver,
        state: EngineState,
        meter: Meter,
        *,
        every_steps: int,
        fingerprint: str,
        code: CodeHistory,
        skipped: SkippedUpdates,
        ledger: Ledger,
    ) -> None:
        self._saver = saver
        self._state = state
        self._meter = meter
        self._every_steps = every_steps
        self._fingerprint = fingerprint
        self._code = code
        self._skipped = skipped
        self._ledger = ledger

    def __call__(self, step: StepDone) -> None:
        """Save a checkpoint if the step is due; every rank must call it."""
        is_last = step.done == step.total
        if step.done % self._every_steps and not step.stop_requested and not is_last:
            return
        if len(self._skipped.steps) == step.done and not is_last:  # nothing is learned: there are no moments to save
            return
        if self._saver.has_room(step.done, must_wait=step.stop_requested or is_last):
            self._saver.save(self._trainer(step.done), (WEIGHTS,) if is_last else KINDS)

    def _trainer(self, done: int) -> TrainerState:
        return TrainerState(
            step=done,
            optimizer_step=self._state.step_count,
            fingerprint=self._fingerprint,
            window=self._meter.gather().to_dict(),
            code_version=self._code.version,
            commit=self._code.commit,
            code_changes=list(self._code.changes),
            skipped_steps=list(self._skipped.steps),
            bad_samples=[asdict(bad) for bad in merge_ledgers(self._ledger, self._meter.device)],
        )


def merge_ledgers(ledger: Ledger, device: torch.device) -> list[BadSample]:
    """Make the ledgers of all ranks one, so that the limit counts for all; every rank must call it.

    Raises:
        DataError: together they have more bad samples than data.max_bad_fraction allows, on every rank.
    """
    mine = [asdict(bad) for bad in ledger.bad_samples]
    all_bad = sorted((bad for part in gather_json(mine, device) for bad in part), key=lambda bad: bad["step"])
    return ledger.merge(map(BadSample.from_dict, all_bad))
