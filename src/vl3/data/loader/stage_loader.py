"""The rows of one rank, step by step, prepared ahead by decoding processes.

A sample that cannot be used is left out and recorded in the ledger, up to the number that the configuration allows. It
is never replaced by another sample. Whatever the order in which samples are finished, rows and ledger are the same.
"""

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vl3.data.build.index import INDEX_NAME, read_row_from
from vl3.data.loader.decoder import DecoderSetup, Job, Reading
from vl3.data.loader.ledger import BadSample, Ledger
from vl3.data.loader.pool import DecoderPool, Result
from vl3.data.loader.rows import Allocator, PackedRow, StepRows, empty_row, pack_row
from vl3.data.plan.stage_plan import Pack, PlannedSample, StagePlan
from vl3.data.sample.prepare import PreparedSample
from vl3.store.reader import open_range
from vl3.store.uris import join_uri
from vl3.system.cores import usable_cores
from vl3.system.files import storage_errors

_MAX_DEFAULT_PROCESSES = 16
_STEPS_AHEAD = 2
"""Steps that are always prepared ahead, whatever they hold."""
_SAMPLES_AHEAD = 16
"""Samples for each process that wait to be taken: a step of a rank may be two samples, and one of them a long video."""
_MAX_HELD_BYTES = 1 << 30
"""Pixels that are prepared and not taken: beyond it, the processes pause."""


def default_processes(ranks_of_machine: int) -> int:
    """Decoding processes of a rank: its share of the machine's cores but the one that trains; 1 to 16."""
    return max(1, min(_MAX_DEFAULT_PROCESSES, usable_cores() // ranks_of_machine - 1))


@dataclass(kw_only=True, slots=True)
class _OpenPack:
    """A pack of which not all samples are there yet."""

    samples: tuple[PlannedSample, ...]
    prepared: list[PreparedSample | None]
    missing: int
    row: PackedRow | None = None


@dataclass(kw_only=True, slots=True)
class _OpenStep:
    """A step of which not all rows are there yet."""

    step: int
    packs: list[_OpenPack] = field(default_factory=list)
    bad: dict[tuple[int, int], tuple[PlannedSample, str]] = field(default_factory=dict)
    """What cannot be used and why, by place of the pack and of the sample in it."""
    reading: Reading = field(default_factory=Reading)

    @property
    def is_complete(self) -> bool:
        return all(pack.row is not None for pack in self.packs)


class StageLoader:
    """Iterates over the steps of a stage and yields this rank's packed rows. Close it, or use it in a `with`."""

    def __init__(
        self,
        plan: StagePlan,
        setup: DecoderSetup,
        ledger: Ledger,
        *,
        processes: int,
        timeout_seconds: float,
        rank: int,
        world_size: int,
        start_step: int = 0,
        allocate: Allocator = np.empty,
    ) -> None:
        """Start preparing at `start_step`.

        Args:
            plan: the stage's packs.
            setup: the datasets, by their numbers in the plan, and how their samples are prepared.
            ledger: the samples that are known to be bad; grows.
            processes: number of decoding processes.
            timeout_seconds: how long the decoding of a sample may take.
            rank: number of this process, 0 to `world_size - 1`.
            world_size: number of processes of the stage.
            start_step: first step to yield; nothing is read for the steps before it.
            allocate: makes the arrays of the pixels.
        """
        self._plan, self._setup, self.ledger = plan, setup, ledger
        self._processes, self._timeout_seconds = processes, timeout_seconds
        self._rank, self._world_size, self._allocate = rank, world_size, allocate
        self._next_step, self._next_job = start_step, 0
        self._steps: deque[_OpenStep] = deque()
        self._places: dict[int, tuple[_OpenStep, int, int]] = {}
        self._prepared_bytes = self._finished_samples = 0
        self._taken_bytes = self._taken_samples = 0
        self._known_bad: set[tuple[int, int]] = set()
        self._finished: queue.SimpleQueue[StepRows | BaseException] = queue.SimpleQueue()
        self._left = plan.steps - start_step
        self._is_closing = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"loader-{rank}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "StageLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[StepRows]:
        """Rows of each step from `start_step` on; iterate only once.

        Raises:
            DataError: more samples cannot be used than data.max_bad_fraction allows.
            StorageError: a dataset cannot be read; the message names the object.
            ClusterError: decoding processes do not start.
        """
        while self._left:
            finished = self._finished.get()
            if isinstance(finished, BaseException):
                raise finished
            self._left -= 1
            self._taken_bytes += _num_bytes(finished)
            self._taken_samples += _num_samples(finished)
            os.eventfd_write(self._wake, 1)
            yield finished

    def close(self) -> None:
        """End the decoding processes, whatever they are at."""
        if not self._is_closing:
            self._is_closing = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)

    def _run(self) -> None:
        """The thread: it alone has the processes, which end with it."""
        try:
            pool = DecoderPool(self._setup, processes=self._processes, timeout_seconds=self._timeout_seconds)
            with pool:
                while not self._is_closing:
                    self._submit(pool)
                    for result in pool.wait(self._wake):
                        self._take(result)
                    self._deliver()
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
        except BaseException as error:  # noqa: BLE001 - raised where the step is taken
            self._finished.put(error)

    def _submit(self, pool: DecoderPool) -> None:
        """Begin steps until enough samples are finished, or the processes have enough to do."""
        while self._next_step < self._plan.steps:
            is_ahead = len(self._steps) + self._finished.qsize() >= _STEPS_AHEAD
            if is_ahead and (pool.waiting >= pool.room or self._has_enough()):
                return
            opened = _OpenStep(step=self._next_step)
            self._steps.append(opened)
            for pack in self._plan.deal(self._next_step, self._rank, self._world_size):
                self._open(opened, pack, pool)
            self._next_step += 1
            self._deliver()

    def _has_enough(self) -> bool:
        samples = self._finished_samples - self._taken_samples
        held_bytes = self._prepared_bytes - self._taken_bytes
        return samples >= _SAMPLES_AHEAD * self._processes or held_bytes >= _MAX_HELD_BYTES

    def _open(self, opened: _OpenStep, pack: Pack, pool: DecoderPool) -> None:
        wanted = [place for place, sample in enumerate(pack.samples) if not self._is_bad(sample)]
        opened.packs.append(_OpenPack(samples=pack.samples, prepared=[None] * len(pack.samples), missing=len(wanted)))
        for place in wanted:
            sample = pack.samples[place]
            self._places[self._next_job] = opened, len(opened.packs) - 1, place
            pool.submit(Job(number=self._next_job, dataset=sample.dataset, row=sample.row, span=sample.span))
            self._next_job += 1
        if not wanted:
            opened.packs[-1].row = empty_row(self._setup.tokenizer)

    def _is_bad(self, sample: PlannedSample) -> bool:
        return (sample.dataset, sample.row) in self._known_bad or self.ledger.has(sample)

    def _take(self, result: Result) -> None:
        """Put a sample into its pack, and pack the row when it is whole."""
        opened, number, place = self._places.pop(result.job.number)
        pack = opened.packs[number]
        opened.reading += result.reading
        pack.prepared[place] = result.sample
        if result.sample is not None:
            self._prepared_bytes += result.sample.pixels_PC.nbytes
        else:
            self._known_bad.add((result.job.dataset, result.job.row))
            opened.bad[number, place] = pack.samples[place], result.reason
        pack.missing -= 1
        if not pack.missing:
            samples = [sample for sample in pack.prepared if sample is not None]
            pack.row = pack_row(samples, self._allocate) if samples else empty_row(self._setup.tokenizer)
            pack.prepared = []

    def _deliver(self) -> None:
        """Hand over the steps that are finished, in order, and enter what they lack into the ledger."""
        while self._steps and self._steps[0].is_complete:
            done = self._steps.popleft()
            for _, (sample, reason) in sorted(done.bad.items(), key=lambda item: item[0]):
                if not self.ledger.has(sample):
                    self.ledger.add(self._bad_sample(sample, done.step, reason))
            rows = [pack.row for pack in done.packs if pack.row is not None]
            reading = done.reading
            finished = StepRows(rows=rows, read_bytes=reading.read_bytes, retries=reading.retries)
            self._finished_samples += _num_samples(finished)
            self._finished.put(finished)

    def _bad_sample(self, sample: PlannedSample, step: int, reason: str) -> BadSample:
        """The entry of a sample; its name is read from the index, since its own bytes may be damaged."""
        place = join_uri(self._setup.uris[sample.dataset], INDEX_NAME)
        with storage_errors(Path(place)), open_range(place) as file:
            names = read_row_from(file, sample.row, ["sample_id", "where"], place=place)
        return BadSample(dataset=sample.dataset, row=sample.row, step=step, reason=reason, **names)


def _num_samples(step: StepRows) -> int:
    return sum(len(row.sample_ids) for row in step.rows)


def _num_bytes(step: StepRows) -> int:
    return sum(row.pixels_PC.nbytes for row in step.rows)
