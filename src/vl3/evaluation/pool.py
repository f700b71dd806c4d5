"""The processes of an evaluation. Whatever becomes of them, the one who waits for them gets an answer or an error."""

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

STOP_SECONDS = 5.0
"""Time that a process has to end after it was told to."""
Collect = Callable[[str, list[tuple[int, Answer]]], None]
"""Takes a model's name and its answers by row."""


def run_assignments(assignments: Sequence[Assignment], collect: Collect, target: Callable[..., None]) -> None:
    """Run each assignment in a process of its own and collect the answers as they come.

    Args:
        assignments: the work, one entry a process.
        collect: called in this process for every batch of answers.
        target: what a process runs: `serve`, or another function of (assignment, connection) in tests.

    Raises:
        Vl3Error: of the family that ended a process.
        ClusterError: a process ended without a result, for instance because it was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vl3.evaluation.preload"])
    with _processes(context, assignments, target) as processes:
        running = dict(processes)
        while running:
            # A dead process closes its end, which wakes the wait as data would.
            for connection in wait(list(running)):
                if _take(running[connection], connection, collect):  # type: ignore[index,arg-type]
                    del running[connection]  # type: ignore[arg-type]


def serve(assignment: Assignment, connection: Connection) -> None:
    """What a process runs: answer the assignment's questions and send what comes of it."""
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
    """Processes by our end of the pipe to each; none is left when the block is left."""
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


def _take(process: BaseProcess, connection: Connection, collect: Collect) -> bool:
    """Take one message of a process; True when it was the last.

    Raises:
        Vl3Error: the process reports an error, or is gone without a last message.
    """
    try:
        kind, *content = connection.recv()
    except (EOFError, OSError):
        process.join(STOP_SECONDS)
        raise ClusterError(
            f"{process.name} (process {process.pid}) ended with exit code {process.exitcode} before it had answered "
            "all its questions. A negative code is the signal that killed it; -9 often means that memory ran out. Its "
            "log has more. Run the step again, with fewer evaluation.processes if memory is short."
        ) from None
    if kind == "answers":
        collect(*content)
        return False
    if kind == "error":
        family, message = content
        raise FAMILIES[family](message)
    return True


def _end_with_parent() -> None:
    """End this process when the evaluating process is gone, however that came: nobody would read the answers."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
