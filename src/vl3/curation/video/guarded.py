"""Runs what decodes strangers' videos in a process of its own: a hang or crash costs one video, not the run."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from vl3.data.sample.problems import ProblemKind, SampleProblem

T = TypeVar("T")
_JOIN_SECONDS = 5.0


class GuardedProcess:
    """One process that makes calls one after the other, and is replaced when it is lost. Threads may share it."""

    def __init__(self, timeout_seconds: float) -> None:
        """The process starts with the first call; a call that takes longer than `timeout_seconds` is given up."""
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def call(self, function: Callable[..., T], *arguments: Any, where: str) -> T:
        """Call a function of a module.

        Args:
            function: found by its name in the other process.
            arguments: can be pickled.
            where: the video, for messages.

        Raises:
            SampleProblem: the function raised it, did not finish in time, or ended its process.
        """
        with self._lock:
            connection = self._started()
            connection.send((function, arguments))
            if not connection.poll(self._timeout_seconds):
                self._end()
                raise _lost(where, f"it was not decoded within {self._timeout_seconds:g} s")
            try:
                problem, result = connection.recv()
            except (EOFError, OSError) as error:
                raise _lost(where, f"the decoder {self._end()}") from error
            if problem is not None:
                raise problem
            return result

    def abort(self) -> None:
        """End the process, whatever it is at: the call that waits for it raises SampleProblem. From any thread."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process, after the call that it is at."""
        with self._lock:
            self._end()

    def _started(self) -> Connection:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy the locks of this process's threads
            connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._process, self._connection = process, connection
        return self._connection

    def _end(self) -> str:
        """End the process; says how it had ended by itself."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return "had not started"
        connection.close()
        process.join(0.2)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join(_JOIN_SECONDS)
            return "was ended"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"

    def __reduce__(self) -> tuple[type, tuple[float]]:
        """Another process starts its own."""
        return type(self), (self._timeout_seconds,)


def _serve(connection: Connection) -> None:
    """The process: calls until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        result: tuple[SampleProblem | None, Any]
        try:
            result = (None, function(*arguments))
        except SampleProblem as problem:
            result = (problem, None)
        try:
            connection.send(result)
        except OSError:
            return


def _lost(where: str, what: str) -> SampleProblem:
    return SampleProblem(ProblemKind.UNDECODABLE, f"{what}. Replace the file with an intact one or drop it.", where)
