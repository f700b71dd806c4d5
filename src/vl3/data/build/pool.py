"""The processes of a dataset build: units in, made units out, and which sample made a worker crash or hang.

A worker says in shared memory what it is at, so that it need not send a message for each sample: `position`, the place
of the sample in its unit (-1 while it reads or stores, whose deadlines are the store's), and since when.
"""

import logging
import multiprocessing
import multiprocessing.connection
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from vl3.data.build.units import Unit
from vl3.data.build.worker import BuildSetup, Pulse, UnitJob, run_worker
from vl3.errors import FAMILIES, ClusterError

log = logging.getLogger(__name__)

_JOIN_SECONDS = 5
_LOOK_SECONDS = 0.2


class BuildPool:
    """Worker processes that make units. A sample on which one crashes or hangs is refused and its unit made again."""

    def __init__(
        self,
        setup: BuildSetup,
        *,
        workers: int,
        sample_timeout_seconds: float,
        on_sample: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Start the processes. Use as a context manager.

        Args:
            setup: what all units share.
            workers: number of processes.
            sample_timeout_seconds: how long one sample may take before its worker is killed.
            on_sample: called with the number of lines worked off so far.
        """
        self._timeout_seconds = sample_timeout_seconds
        self._on_sample = on_sample
        self._done = 0
        self._workers = [_Worker(setup) for _ in range(workers)]

    def __enter__(self) -> "BuildPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()

    def run(self, units: Sequence[Unit]) -> None:
        """Make the units that are not there.

        Raises:
            DataError: the annotations cannot be read.
            StorageError: the source cannot be read, or a unit cannot be written.
            ClusterError: a worker dies while it is at no sample.
        """
        pending = deque(UnitJob(unit=unit, poisoned={}) for unit in units)
        left = len(pending)
        while left:
            for worker in self._workers:
                if worker.job is None and pending:
                    worker.start_job(pending.popleft())
            for worker in self._wait():
                left -= self._hear(worker, pending)
            self._on_sample(self._done + sum(worker.pulse.begun for worker in self._workers if worker.job))

    def _wait(self) -> list["_Worker"]:
        """Workers that sent a message, died, or were killed here because a sample took too long."""
        busy = [worker for worker in self._workers if worker.job is not None]
        ready = multiprocessing.connection.wait([worker.connection for worker in busy], timeout=_LOOK_SECONDS)
        for worker in busy:
            if worker.connection not in ready and worker.pulse.seconds_at_sample() > self._timeout_seconds:
                worker.kill()
        return [worker for worker in busy if worker.connection in ready or worker.is_killed]

    def _hear(self, worker: "_Worker", pending: deque[UnitJob]) -> bool:
        """Take the message of a worker; returns whether its unit is finished.

        Raises:
            Vl3Error: what ended the worker.
        """
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            pending.appendleft(self._blame(worker))
            return False
        if message is not None:
            family, text = message
            raise FAMILIES.get(family, ClusterError)(text)
        unit = worker.finish_job().unit
        log.debug("unit %d is made", unit.number)
        self._done += unit.lines
        return True

    def _blame(self, worker: "_Worker") -> UnitJob:
        """The job of a dead worker, without the sample at which it died; the worker is replaced."""
        job, position = worker.job, worker.pulse.position
        assert job is not None
        is_late = worker.pulse.seconds_at_sample() > self._timeout_seconds
        cause = f"the decoder did not finish within {self._timeout_seconds:g} s" if worker.is_killed else worker.death()
        is_killed = worker.is_killed
        worker.restart()
        if is_killed and not is_late:  # it had finished the sample when it was killed
            return job
        if position < 0:
            raise ClusterError(
                f"a worker of the dataset build ended while it was at no sample: {cause}. Check the free memory, then "
                "start the build again: it makes what is missing."
            )
        reason = f"{cause}. Replace the file with an intact one or drop the sample."
        return replace(job, poisoned={**job.poisoned, position: reason})


class _Worker:
    """One process, its connection and its current job."""

    def __init__(self, setup: BuildSetup) -> None:
        self._setup = setup
        self._start()

    def _start(self) -> None:
        # "spawn": the parent may have threads, and a forked copy of a lock that one holds would never be released.
        context = multiprocessing.get_context("spawn")
        self.job: UnitJob | None = None
        self.is_killed = False
        self.pulse = Pulse(context)
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=run_worker, args=(theirs, self._setup, self.pulse), daemon=True
        )
        self._process.start()
        theirs.close()

    def start_job(self, job: UnitJob) -> None:
        self.job = job
        self.pulse.begin()
        log.debug("unit %d is begun", job.unit.number)
        self.connection.send(job)

    def finish_job(self) -> UnitJob:
        job, self.job = self.job, None
        assert job is not None
        return job

    def kill(self) -> None:
        self.is_killed = True
        self._process.kill()
        self._process.join()

    def death(self) -> str:
        self._process.join(_JOIN_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the decoder was killed by signal {-code}"
        return f"the decoder ended with exit status {code}"

    def restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        self.connection.close()
        self._process.join(0 if self.job else _JOIN_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
