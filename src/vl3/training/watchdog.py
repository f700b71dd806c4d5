"""Notices a rank that has stalled, names it with what it was at and its Python stack. Runs in the parent of torchrun.

The ranks of a stage wait for each other several times a step. So if one stalls, all are silent within a step, and the
one that is least far is the one that the others wait for:

    rank 0  step 7, backward pass, 41 s ago      waits for rank 1's gradients
    rank 1  step 7, forward pass, 42 s ago       the rank that has stalled

What is silent for longer than the slowest step so far and a margin has stalled. Waiting for data, saving and publishing
depend on the store, whose outages they survive: there the stage's own limit holds, unless the process is stopped.
"""

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from vl3.lifeline import runner_mark
from vl3.training.heart import STACK_SIGNAL, Activity, Beat, read_beats, stack_path

log = logging.getLogger("vl3.launch")

_EVERY_SECONDS = 0.5
_STACK_SECONDS = 3.0
"""How long a rank may take to write its stacks."""
_OF_OTHERS = 1.2
"""Where no rank of this machine is behind the others, one of another pod may be, whose watchdog is to speak first."""
_PATIENT = (Activity.STARTING, Activity.DATA, Activity.SAVING, Activity.PUBLISHING)
_STOPPED = ("T", "t")
_ENDED = ("", "Z")
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in uninterruptible sleep, as on a hung disk or device",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "a zombie",
}
_SHOWN_LINES = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Stall:
    """A stage that has stalled."""

    text: str
    """Which ranks, where, since when, and the stack of the first: for the error's message."""
    stacks: str
    """The stacks of all ranks of this machine: for the log."""
    step: int
    """Steps that were done."""


class Watchdog:
    """Watches the hearts of a folder."""

    def __init__(self, folder: Path, *, margin_seconds: float, patience_seconds: float) -> None:
        """Begin to watch.

        Args:
            folder: where the ranks keep their hearts.
            margin_seconds: how much longer than the slowest step a silence may be.
            patience_seconds: how long a wait for data or the store may be, if that is longer.
        """
        self._folder = folder
        self._margin_seconds = margin_seconds
        self._patience_seconds = patience_seconds
        self._looked_at = 0.0

    def stalled(self, now: float) -> Stall | None:
        """The stall, if there is one; reads the hearts at most twice a second.

        Args:
            now: the machine's monotonic clock.
        """
        if now - self._looked_at < _EVERY_SECONDS:
            return None
        self._looked_at = now
        beats = read_beats(self._folder)
        slowest = max((beat.slowest_step_seconds for beat in beats), default=0.0)
        if not slowest:  # the first step may take long: its limit is the stage's own
            return None
        silence = now - max(beat.since for beat in beats)
        if silence <= slowest + self._margin_seconds:
            return None
        behind, states = _behind(beats)
        if any(states[beat.rank] in _ENDED for beat in behind):  # torchrun is about to say how they ended
            return None
        if silence <= self._limit(beats, behind, states, slowest):
            return None
        return self._describe(beats, behind, states, silence, slowest)

    def stacks(self) -> str:
        """The stacks of all ranks of this machine, asked for now."""
        return _joined(self._ask(read_beats(self._folder)))

    def _limit(self, beats: list[Beat], behind: list[Beat], states: dict[int, str], slowest: float) -> float:
        is_stopped = any(states[beat.rank] in _STOPPED for beat in behind)
        if not is_stopped and any(beat.activity in _PATIENT for beat in behind):
            return max(self._patience_seconds, slowest + self._margin_seconds)
        is_ours = is_stopped or len(behind) < len(beats)
        return slowest + self._margin_seconds * (1.0 if is_ours else _OF_OTHERS)

    def _describe(
        self, beats: list[Beat], behind: list[Beat], states: dict[int, str], silence: float, slowest: float
    ) -> Stall:
        found = self._ask(beats)
        first = behind[0]
        who = " and ".join(f"rank {beat.rank}" for beat in behind[:3]) + (" and more" if behind[3:] else "")
        others = (
            "the others wait for it" if len(behind) < len(beats) else "no rank of this machine is further than another"
        )
        state = _STATES.get(states[first.rank], f"in state {states[first.rank] or '?'}")
        text = (
            f"{who} stalled {first.activity.text} of step {first.step + 1}: nothing happened for {silence:.0f} s "
            f"(the slowest step took {slowest:.1f} s), and {others}. Its process {first.pid} is {state}"
        )
        stack = _main_thread(found.get(first.rank, ""))
        shown = f". Its Python stack, innermost call first:\n{stack}" if stack else " and cannot show its Python stack"
        return Stall(text=text + shown, stacks=_joined(found), step=first.step)

    def _ask(self, beats: list[Beat]) -> dict[int, str]:
        """The stacks of each rank; without those that are stopped, which handle no signal."""
        asked = {}
        for beat in beats:
            path = stack_path(self._folder, beat.rank)
            if kernel_state(beat) in (*_ENDED, *_STOPPED) or not path.is_file():
                continue
            size = path.stat().st_size
            with contextlib.suppress(ProcessLookupError):
                os.kill(beat.pid, STACK_SIGNAL)
                asked[beat.rank] = path, size
        deadline = time.monotonic() + _STACK_SECONDS
        sizes: dict[int, int] = {}
        while asked and time.monotonic() < deadline:  # until each has grown, and none grows any more
            time.sleep(0.1)
            now = {rank: path.stat().st_size for rank, (path, _) in asked.items()}
            if now == sizes and all(now[rank] > size for rank, (_, size) in asked.items()):
                break
            sizes = now
        return {rank: _from(path, size) for rank, (path, size) in asked.items()}


def kernel_state(beat: Beat) -> str:
    """The state of a rank's process as in /proc/PID/stat; empty if it is gone."""
    if runner_mark(beat.pid) != beat.mark:
        return ""
    try:
        text = Path(f"/proc/{beat.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[0]


def _behind(beats: list[Beat]) -> tuple[list[Beat], dict[int, str]]:
    """The ranks for which the others wait, and the kernel's state of each rank.

    A stopped process first: in a collective all ranks are at the same point, and one that is stopped there is why.
    """
    states = {beat.rank: kernel_state(beat) for beat in beats}
    stopped = [beat for beat in beats if states[beat.rank] in _STOPPED]
    least = min(beat.position for beat in beats)
    return stopped or [beat for beat in beats if beat.position == least], states


def _from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", errors="replace")


def _main_thread(stacks: str) -> str:
    """The stack of the main thread, which faulthandler writes last, cut to what a message can hold."""
    block = stacks.strip().split("\n\n")[-1].splitlines()
    lines = [line.strip() for line in block if line.strip().startswith("File ")]
    return "\n".join(f"  {line}" for line in lines[:_SHOWN_LINES])


def _joined(stacks: dict[int, str]) -> str:
    return "\n".join(f"--- rank {rank}\n{text.strip()}" for rank, text in sorted(stacks.items()))
