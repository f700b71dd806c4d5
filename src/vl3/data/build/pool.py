"""The processes of a dataset build: shard jobs in, rows out, and which sample made a worker crash or hang."""

import multiprocessing
import multiprocessing.connection
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from vl3.data.build.worker import ShardJob, WorkerSetup, run_worker
from vl3.data.build.index import IndexRow
from vl3.errors import FAMILIES, ClusterError

_JOIN_SECONDS = 5
_STARTUP_SECONDS = 120


class BuildPool:
    """Runs shard jobs in worker processes. A sample on which one crashes or hangs is refused and its shard redone."""

    def __init__(
        self,
        setup: WorkerSetup,
        *,
        workers: int,
        sample_timeout_seconds: float,
        on_sample: Callable[[int], None],
    ) -> None:
        """Prepare a pool; nothing is started yet.

        Args:
            setup: what all shards share.
            workers: number of processes.
            sample_timeout_seconds: how long one sample may take before its worker is killed.
            on_sample: called with the number of samples started so far.
        """
        self._setup = setup
        self._workers = workers
        self._timeout_seconds = sample_timeout_seconds
        self._on_sample = on_sample
        self._begun = 0

    def run(self, jobs: Sequence[ShardJob]) -> list[list[IndexRow]]:
        """Rows of each job, in the order of the jobs.

        Raises:
            StorageError: a shard cannot be written.
            ClusterError: workers die before they reach a sample.
        """
        pending = deque(jobs)
        rows: dict[int, list[IndexRow]] = {}
        active = [_Worker(self._setup) for _ in range(min(self._workers, len(jobs)))]
        try:
            while len(rows) < len(jobs):
                self._hand_out(active, pending)
                for worker in self._wait(active):
                    self._hear(worker, pending, rows)
        finally:
            for worker in active:
                worker.stop()
        return [rows[job.number] for job in jobs]

    def _hand_out(self, active: list["_Worker"], pending: deque[ShardJob]) -> None:
        for worker in active:
            if worker.job is None and pending:
                worker.start_job(pending.popleft())

    def _wait(self, active: list["_Worker"]) -> list["_Worker"]:
        """Workers that sent a message, died, or were killed here because a sample took too long."""
        busy = [worker for worker in active if worker.job is not None]
        first_deadline = min(self._deadline(worker) for worker in busy)
        ready = multiprocessing.connection.wait(
            [worker.connection for worker in busy], timeout=max(0.0, first_deadline - time.monotonic())
        )
        now = time.monotonic()
        for worker in busy:
            if worker.connection not in ready and now >= self._deadline(worker):
                worker.kill(f"the decoder did not finish within {self._timeout_seconds:g} s")
        return [worker for worker in busy if worker.connection in ready or worker.cause]

    def _deadline(self, worker: "_Worker") -> float:
        """When to kill the worker; one that has not reached its first sample gets the start-up time as well."""
        if worker.position is None:
            return worker.since + max(self._timeout_seconds, _STARTUP_SECONDS)
        return worker.since + self._timeout_seconds

    def _hear(self, worker: "_Worker", pending: deque[ShardJob], rows: dict[int, list[IndexRow]]) -> None:
        try:
            kind, *values = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            pending.appendleft(self._blame(worker))
            return
        worker.since = time.monotonic()
        if kind == "at":
            worker.position = values[0]
            self._begun += 1
            self._on_sample(self._begun)
        elif kind == "done":
            rows[worker.finish_job().number] = values[0]
        else:
            family, message = values
            raise FAMILIES.get(family, ClusterError)(message)

    def _blame(self, worker: "_Worker") -> ShardJob:
        """The job of a dead worker, without the sample at which it died; the worker is replaced.

        The job runs again from its first sample, so the samples that it reported as started are taken off the count.
        Died at position 5, position 2 skipped as known bad: 0, 1, 3, 4 and 5 were reported, which is 5 + 1 - 1.
        """
        job, position = worker.job, worker.position
        assert job is not None
        cause = worker.cause or worker.death()
        worker.restart()
        if position is None:
            raise ClusterError(
                f"a worker of the dataset build ended before its first sample: {cause}. Check the free memory, then "
                "start the build again."
            )
        self._begun -= position + 1 - sum(poisoned <= position for poisoned in job.poisoned)
        reason = f"{cause}. Replace the file with an intact one or drop the sample."
        return replace(job, poisoned={**job.poisoned, position: reason})


class _Worker:
    """One process, its connection and its current job."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self.job: ShardJob | None = None
        self.position: int | None = None
        self.cause = ""
        self._start()

    def _start(self) -> None:
        # "spawn": the parent may have threads, and a forked copy of a lock that one holds would never be released.
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=run_worker, args=(theirs, self._setup), daemon=True)
        self._process.start()
        theirs.close()
        self.since = time.monotonic()

    def start_job(self, job: ShardJob) -> None:
        self.job, self.position, self.since = job, None, time.monotonic()
        self.connection.send(job)

    def finish_job(self) -> ShardJob:
        job, self.job = self.job, None
        assert job is not None
        return job

    def kill(self, cause: str) -> None:
        self.cause = cause
        self._process.kill()

    def death(self) -> str:
        self._process.join(_JOIN_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"the decoder was killed by signal {-code}"
        return f"the decoder ended with exit status {code}"

    def restart(self) -> None:
        self.stop()
        self.job, self.position, self.cause = None, None, ""
        self._start()

    def stop(self) -> None:
        self.connection.close()
        self._process.join(0 if self.job else _JOIN_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
