"""The processes of an evaluation. However they end, the caller gets the answers or an error and never waits forever."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from vl3.errors import FAMILIES, ClusterError, Vl3Error
from vl3.evaluation.candidates import Assignment
from vl3.evaluation.result import Answer
from vl3.system.endings import MemoryKills, signal_meaning

STOP_SECONDS = 5.0
"""How long a process may take to end after it was asked to."""
Collect = Callable[[str, list[tuple[int, Answer]]], None]
"""Takes a model's name and its answers by row."""


def run_assignments(assignments: Sequence[Assignment], collect: Collect, target: Callable[..., None]) -> None:
    """Run each assignment in its own process and collect the answers as they come.

    Args:
        assignments: the work, one entry per process.
        collect: called in this process for every batch of answers.
        target: what a process runs: `serve`, or another function of (assignment, connection) in tests.

    Raises:
        Vl3Error: an error that a process reported, in the same family.
        ClusterError: a process ended without a result, for instance because it was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vl3.evaluation.preload"])
    kills = MemoryKills()
    with _processes(context, assignments, target) as processes:
        running = dict(processes)
        while running:
            # A dead process closes its end of the pipe, which also ends the wait.
            for connection in wait(list(running)):
                if _take(running[connection], connection, collect, kills):  # type: ignore[index,arg-type]
                    del running[connection]  # type: ignore[arg-type]


def serve(assignment: Assignment, connection: Connection) -> None:
    """What a process runs: answer the assignment's questions and send the answers or the error."""
    _end_with_parent()
    import torch

    from vl3.evaluation.worker import answer_all

    torch.set_num_threads(1)
    try:
        answer_all(assignment, lambda name, answers: connection.send(("answers", name, list(answers))))
    except Vl3Error as error:
        family = next(name for name, kind in FAMILIES.items() if isinstance(error, kind))
        connection.send(("error", family, str(error)))
        return
    connection.send(("end",))


@contextmanager
def _processes(
    context: Any, assignments: Sequence[Assignment], target: Callable[..., None]
) -> Iterator[dict[Connection, BaseProcess]]:
    """Start the processes; returns them by our end of the pipe to each. All are stopped when the block ends."""
    started: dict[Connection, BaseProcess] = {}
    try:
        for number, assignment in enumerate(assignments):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=target, args=(assignment, theirs), name=f"evaluation-{number}")
            process.daemon = True
            process.start()
            theirs.close()
            started[ours] = process
        yield started
    finally:
        for connection, process in started.items():
            connection.close()
            process.terminate()
        for process in started.values():
            process.join(STOP_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()


def _take(process: BaseProcess, connection: Connection, collect: Collect, kills: MemoryKills) -> bool:
    """Receive one message of a process; returns True if it was the last.

    Raises:
        Vl3Error: the process reported an error, or ended without a last message.
    """
    try:
        kind, *content = connection.recv()
    except (EOFError, OSError):
        process.join(STOP_SECONDS)
        code = process.exitcode or 0
        raise ClusterError(
            f"{process.name} (process {process.pid}) ended with exit code {code} before it had answered all its "
            f"questions{f' ({signal_meaning(-code, kills)})' if code < 0 else ''}. See its log for details. Run the "
            "step again, with fewer evaluation.processes if memory is short."
        ) from None
    if kind == "answers":
        collect(*content)
        return False
    if kind == "error":
        family, message = content
        raise FAMILIES[family](message)
    return True


def _end_with_parent() -> None:
    """End this process when the parent process is gone for any reason: nothing would read the answers."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
