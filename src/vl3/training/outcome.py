"""How the processes of a stage ended, from the error that they recorded or from torchrun's last output."""

import re
import signal
from pathlib import Path

from vl3.errors import FAMILIES, Vl3Error
from vl3.system.documents import parse_object
from vl3.system.endings import MemoryKills, signal_meaning
from vl3.system.files import read_plain

FAILURE_NAME = "failure.json"
"""File in which the process that failed first records its error."""

STOPPED_EXIT_CODE = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop and has written a checkpoint."""

_NEVER_A_CONSEQUENCE = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
_RANK_FAILED = re.compile(r"rank +: (\d+) \(local_rank.*\n *exitcode +: (-?\d+)")
"""A failed rank in torchrun's final table; what torchrun takes for the root cause is last."""


def first_to_fail(text: str, exit_code: int) -> tuple[str, int]:
    """The process whose end made the others fail, and its exit code.

    When a rank is killed, its peers fail soon after, and torchrun may then report a peer's broken connection as the
    cause. A kill or a fault in native code is no consequence of that, so rank 1 with exit code -9 is chosen over rank 0
    with 1. Of several that were killed it is the root cause, which torchrun lists last: it kills what does not end
    within 30 seconds of the first.
    """
    failed = [(f"rank {rank}", int(code)) for rank, code in _RANK_FAILED.findall(text)]
    killed = [one for one in failed if -one[1] in _NEVER_A_CONSEQUENCE]
    return next(iter([*reversed(killed), *failed[-1:], ("torchrun", exit_code)]))


def exit_hint(who: str, code: int, lines: list[str], kills: MemoryKills) -> str:
    """What an exit code means, or the exception with which the worker ended.

    Args:
        who: the process, as `first_to_fail` names it.
        code: its exit code; a negative one is a signal.
        lines: the last lines of all processes.
        kills: the kernel's counts from before they started.
    """
    named = [line.partition("ended by ")[2] for line in lines if f" {who} ERROR " in line and "ended by " in line]
    if named:
        return f" ({named[0]})"
    if code == -signal.SIGKILL:
        lower = "lower packs_per_step (of an evaluation batch_size) or data.max_length_tokens"
        return f" ({signal_meaning(-code, kills)}. If it was memory, {lower})"
    if code == STOPPED_EXIT_CODE:
        return " (it was asked to stop and has written a checkpoint: start it again to continue)"
    return f" ({signal_meaning(-code, kills)})" if code < 0 else ""


def was_asked_to_end(code: int, lines: list[str]) -> bool:
    """Whether a request ended the processes: a worker stopped after its checkpoint, or torchrun got the signal."""
    requests = (signal.SIGTERM, signal.SIGINT)
    return code in (STOPPED_EXIT_CODE, *(-number for number in requests)) or any(
        re.search(rf"SignalException: Process \d+ got signal: {int(number)}$", line)
        for line in lines
        for number in requests
    )


def recorded_failure(path: Path) -> Vl3Error | None:
    """The error of a known family that a worker recorded; None if there is none."""
    try:
        data = parse_object(read_plain(path))
    except (OSError, ValueError):
        return None
    family, message = data.get("family"), data.get("message")
    if not isinstance(family, str) or not isinstance(message, str) or family not in FAMILIES:
        return None
    return FAMILIES[family](message)
