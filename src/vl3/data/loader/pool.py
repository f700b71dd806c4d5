"""The decoding processes of a rank: jobs in, prepared samples out; one that hangs, dies or grows is replaced."""

import contextlib
import logging
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from vl3.data.build.worker import PROCESS_BYTES
from vl3.data.loader import decoder
from vl3.data.loader.decoder import DecoderSetup, Job, Reading, Said
from vl3.data.loader.shared import open_shared
from vl3.data.sample.prepare import PreparedSample
from vl3.errors import FAMILIES, ClusterError

log = logging.getLogger(__name__)

_STARTUP_SECONDS = 120.0
_MAX_LOST = 5
_JOIN_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of a job."""

    job: Job
    sample: PreparedSample | None
    """The prepared sample, or None if it cannot be used."""
    reason: str = ""
    """Why it cannot be used."""
    reading: Reading = field(default_factory=Reading)


class DecoderPool:
    """Use it in one thread: the processes end with the thread that made the pool, however that ends."""

    def __init__(self, setup: DecoderSetup, *, processes: int, timeout_seconds: float) -> None:
        """Start the processes; see LoaderConfig for the arguments."""
        self._depth = 1 + setup.read_ahead_samples
        self._jobs: deque[Job] = deque()
        self._blamed: dict[tuple[int, int], str] = {}
        self._lost_in_a_row = 0
        self._decoders: list[_Decoder] = []
        for _ in range(processes):
            self._decoders.append(_Decoder(setup, timeout_seconds))

    def __enter__(self) -> "DecoderPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Number of jobs without a result."""
        return len(self._jobs) + sum(len(one.jobs) for one in self._decoders)

    @property
    def room(self) -> int:
        """Number of jobs that the processes can hold: those they work at and those they read ahead."""
        return self._depth * len(self._decoders)

    def submit(self, job: Job) -> None:
        """Add a job; the processes get it in the order of submission."""
        self._jobs.append(job)

    def wait(self, wake: int) -> list[Result]:
        """Wait for results, or until the descriptor `wake` is readable.

        Raises:
            StorageError: a dataset cannot be read.
            ClusterError: processes do not start, or die while they decode nothing.
        """
        self._hand_out()
        deadlines = [one.deadline for one in self._decoders if one.deadline is not None]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready = multiprocessing.connection.wait([wake, *(one.connection for one in self._decoders)], timeout)
        results = []
        for one in self._decoders:
            if one.connection in ready:
                results += self._hear(one)
            elif one.deadline is not None and time.monotonic() >= one.deadline:
                one.kill()
                results += self._replace(one, f"the decoder did not finish within {one.timeout_seconds:g} s")
        return results

    def close(self) -> None:
        """End the processes at once, whatever they are at."""
        for one in self._decoders:
            one.stop()

    def _hand_out(self) -> None:
        while self._jobs:
            idlest = min(self._decoders, key=lambda one: len(one.jobs))
            if len(idlest.jobs) >= self._depth:
                return
            idlest.give(self._jobs.popleft())

    def _hear(self, one: "_Decoder") -> list[Result]:
        """Take one message of a process."""
        try:
            said, *values = one.receive()
        except (EOFError, OSError):
            return self._replace(one, one.death())
        match said:
            case Said.READY:
                one.is_ready()
            case Said.BEGIN if one.jobs[0].sample in self._blamed:
                return self._leave_out(one)
            case Said.BEGIN:
                one.begin()
            case Said.DONE:
                self._lost_in_a_row = 0
                sample, reading, has_grown = values
                done = Result(job=one.finish(), sample=sample, reading=reading)
                if has_grown:
                    log.info("a decoding process has grown and is replaced")
                    one.restart()
                return [done]
            case Said.BAD:
                self._lost_in_a_row = 0
                return [Result(job=one.finish(), sample=None, reason=values[0])]
            case Said.MEMORY if one.num_finished:  # what it decoded before may have taken the memory: try a new one
                one.restart()
            case Said.MEMORY:
                reason = f"its media need more memory than {PROCESS_BYTES >> 20} MiB."
                return self._blame(one, reason)
            case Said.FAILED:
                family, message = values
                raise FAMILIES.get(family, ClusterError)(message)
        return []

    def _replace(self, one: "_Decoder", cause: str) -> list[Result]:
        """Replace a process that is gone. Only the sample that it was decoding is to blame."""
        if one.is_decoding:
            return self._blame(one, f"{cause}.")
        self._lost_in_a_row += 1
        if one.is_starting or self._lost_in_a_row > _MAX_LOST:
            raise ClusterError(
                f"a decoding process ended while it decoded nothing: {cause}. Its own message is in the log. Check the "
                "free memory, then start the run again: it resumes from its last checkpoint."
            )
        log.warning("a decoding process ended while it decoded nothing (%s) and is replaced", cause)
        one.restart()
        return []

    def _blame(self, one: "_Decoder", reason: str) -> list[Result]:
        """Leave out the sample that a process decodes, wherever else it is asked for: it breaks a process only once."""
        job = one.jobs[0]
        log.warning("%s of dataset %d is left out: %s", job.where, job.dataset, reason)
        self._blamed[job.sample] = f"{job.where}: {reason}"
        results = self._without_blamed(self._jobs)
        for each in self._decoders:
            if each is one or (each.is_decoding and each.jobs[0].sample == job.sample):
                results += self._leave_out(each)
        return results

    def _leave_out(self, one: "_Decoder") -> list[Result]:
        """Replace a process that is at a sample that broke one, or would begin with it."""
        results = self._without_blamed(one.jobs)
        one.restart()
        return results

    def _without_blamed(self, jobs: deque[Job]) -> list[Result]:
        """Take the jobs of samples that broke a process out of a queue; returns their results."""
        blamed = [job for job in jobs if job.sample in self._blamed]
        for job in blamed:
            jobs.remove(job)
        return [Result(job=job, sample=None, reason=self._blamed[job.sample]) for job in blamed]


class _Decoder:
    """One process, its connection, and the jobs that it has, the first of which it decodes."""

    def __init__(self, setup: DecoderSetup, timeout_seconds: float) -> None:
        self._setup = setup
        self.timeout_seconds = timeout_seconds
        self.jobs: deque[Job] = deque()
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # Not multiprocessing's own start, which would run the trainer's main module again in each child.
        program = f"from {decoder.__name__} import main; main({theirs.fileno()}, {os.getpid()})"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # the child inherits it
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.connection = Connection(ours.detach())
        self.is_starting, self.is_decoding, self.num_finished = True, False, 0
        self.deadline: float | None = time.monotonic() + _STARTUP_SECONDS
        self._send(self._setup)
        for job in self.jobs:
            self._send(job)

    def give(self, job: Job) -> None:
        self.jobs.append(job)
        self._send(job)

    def receive(self) -> tuple[Any, ...]:
        """The next message, with the sample itself in place of where it is; EOFError or OSError if it died."""
        message = self.connection.recv()
        if message[0] is not Said.DONE:
            return message
        said, shared, *more = message
        return said, open_shared(shared, recv_handle(self.connection)), *more

    def is_ready(self) -> None:
        self.is_starting, self.deadline = False, None

    def begin(self) -> None:
        self.is_decoding, self.deadline = True, time.monotonic() + self.timeout_seconds

    def finish(self) -> Job:
        self.is_decoding, self.deadline = False, None
        self.num_finished += 1
        return self.jobs.popleft()

    def kill(self) -> None:
        self._process.kill()

    def death(self) -> str:
        """How the process ended; its connection is closed."""
        try:
            code = self._process.wait(_JOIN_SECONDS)
        except subprocess.TimeoutExpired:
            return "the decoder closed its connection"
        return f"the decoder was killed by signal {-code}" if code < 0 else f"the decoder ended with exit status {code}"

    def restart(self) -> None:
        """A new process for the jobs that are left."""
        self.stop()
        self._start()

    def stop(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.wait()

    def _send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, as the next message will tell
            self.connection.send(message)
