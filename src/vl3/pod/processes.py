"""The processes of a training pod: torchrun and its workers, their output, and how they are asked to stop."""

import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import BinaryIO, Self

import psutil

from vl3.system.processes import children_of, send

_KEPT_LINES = 400


class PodOutput:
    """The pod's standard output: complete lines of the workers and of the pod itself; keeps the last ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[bytes] = deque(maxlen=_KEPT_LINES)

    def write_line(self, text: str) -> None:
        """Write one of the pod's own lines."""
        self._write(text.encode() + b"\n")

    def copy(self, stream: BinaryIO) -> None:
        """Copy a stream, line by line, to its end."""
        for line in stream:
            self._lines.append(line)
            self._write(line if line.endswith(b"\n") else line + b"\n")

    def last_lines(self) -> list[str]:
        """The last lines that the workers wrote."""
        return [text for line in list(self._lines) if (text := line.decode(errors="replace").rstrip())]

    def _write(self, line: bytes) -> None:
        with self._lock:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


class PodProcesses:
    """torchrun, as a context manager that leaves none of its processes behind."""

    def __init__(self, command: list[str], environment: Mapping[str, str], output: PodOutput) -> None:
        self._command = command
        self._environment = environment
        self._output = output
        self._asked: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # signals reach the workers only through this process
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._output.copy, args=(self._process.stdout,), name="pod-output", daemon=True
        )
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            send(children_of(self._process.pid), signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Wait up to `seconds`; returns torchrun's exit code after copying all output, or None while it runs."""
        try:
            exit_code = self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout=10.0)  # a surviving child of a worker could keep the pipe open
        return exit_code

    def ask_workers_to_stop(self) -> None:
        """Send SIGTERM once to each worker that has been started.

        Not to torchrun, which would kill its workers 30 seconds later, even if a checkpoint takes longer.
        """
        workers = set(children_of(self._process.pid))
        send(workers - self._asked, signal.SIGTERM)
        self._asked |= workers
