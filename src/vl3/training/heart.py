"""A rank's heart: what it is doing, since when, and in which step, in a small file that the pod's parent process reads.

A rank beats a few times in each step, with one write into mapped memory (about two microseconds). Its parent learns so
of a rank that hangs, whatever the rank hangs in, and can ask it for its Python stack (SIGUSR1).

Rank 1 waits for its rows of step 12 since 3 s: step 12, activity DATA, `since` 3 s ago, 48 beats so far.
"""

import faulthandler
import mmap
import os
import signal
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO

from vl3.lifeline import runner_mark

HEARTS_VARIABLE = "VL3_HEARTS"
"""Folder of the hearts of this machine's ranks, which whoever starts torchrun makes; not set: nobody watches."""
STACK_SIGNAL = signal.SIGUSR1
"""On this signal a rank writes the Python stacks of its threads beside its heart."""

_LAYOUT = struct.Struct("<QQQQQddd")
"""pid, start time of the process, step, beats, activity, since, slowest step, start of the step."""
_READS = 5


class Activity(IntEnum):
    """What a rank is doing."""

    STARTING = 0
    """Loading the model and a checkpoint."""
    DATA = 1
    """Waiting for its rows."""
    FORWARD = 2
    """The forward pass of a row."""
    BACKWARD = 3
    """The backward pass of a row, in which ranks wait for each other's gradients."""
    OPTIMIZER = 4
    """The update of the weights."""
    MEASURING = 5
    """What follows a step: metrics, for which ranks exchange numbers."""
    SAVING = 6
    """Copying or writing a checkpoint."""
    PUBLISHING = 7
    """After the last step: the weights of the stage."""

    @property
    def text(self) -> str:
        """As a message says it."""
        return _TEXTS[self]


_TEXTS = {
    Activity.STARTING: "starting",
    Activity.DATA: "waiting for data",
    Activity.FORWARD: "in the forward pass",
    Activity.BACKWARD: "in the backward pass",
    Activity.OPTIMIZER: "updating the weights",
    Activity.MEASURING: "exchanging metrics",
    Activity.SAVING: "saving a checkpoint",
    Activity.PUBLISHING: "publishing the weights",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """What the heart of a rank said last."""

    rank: int
    pid: int
    mark: str
    """`pid:starttime` of the rank's process."""
    step: int
    """Number of steps done."""
    beats: int
    """How often the rank has beaten in this step: the same on every rank at the same point."""
    activity: Activity
    since: float
    """Time of the beat, by the machine's monotonic clock."""
    slowest_step_seconds: float
    """The slowest step so far; 0 before the first one is done."""

    @property
    def position(self) -> tuple[int, int]:
        """How far the rank is; the smallest of all ranks is the one that the others wait for."""
        return self.step, self.beats


class Heart:
    """The heart of this rank. Without a folder it beats for nobody."""

    def __init__(self, folder: Path | None, rank: int) -> None:
        """Make the file, and have SIGUSR1 write this process's stacks beside it."""
        self._map: mmap.mmap | None = None
        self._stacks: IO[str] | None = None
        self._step = self._beats = 0
        self._began = self._slowest = 0.0
        self.activity = Activity.STARTING
        if folder is None:
            return
        pid, _, started = runner_mark(os.getpid()).partition(":")
        self._process = int(pid), int(started)
        with heart_path(folder, rank).open("w+b") as file:
            file.write(bytes(_LAYOUT.size))
            file.flush()
            self._map = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._stacks = stack_path(folder, rank).open("w", encoding="utf-8")
        faulthandler.register(STACK_SIGNAL, file=self._stacks, all_threads=True, chain=False)
        self.beat(Activity.STARTING)

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], rank: int) -> "Heart":
        """The heart in the folder that the environment names."""
        folder = environ.get(HEARTS_VARIABLE)
        return cls(Path(folder) if folder else None, rank)

    def beat(self, activity: Activity) -> None:
        """Say what this rank begins now."""
        self.activity = activity
        self._beats += 1
        self._write()

    def begin_step(self, done: int) -> None:
        """Say that this rank begins a step, of which `done` came before; the time since the last one is a step's."""
        now = time.monotonic()
        if self._began:
            self._slowest = max(self._slowest, now - self._began)
        self._step, self._beats, self._began = done, 0, now
        self.activity = Activity.DATA
        self._write()

    def _write(self) -> None:
        if self._map is not None:
            values = (self._step, self._beats, int(self.activity), time.monotonic(), self._slowest, self._began)
            _LAYOUT.pack_into(self._map, 0, *self._process, *values)


def heart_path(folder: Path, rank: int) -> Path:
    """The file of a rank's heart."""
    return folder / f"rank-{rank}.heart"


def stack_path(folder: Path, rank: int) -> Path:
    """The file of a rank's stacks."""
    return folder / f"rank-{rank}.stacks"


def read_beats(folder: Path) -> list[Beat]:
    """What all hearts of a folder say, by rank; one that is being made is left out."""
    found = []
    for path in folder.glob("rank-*.heart"):
        beat = _read(path)
        if beat is not None:
            found.append(beat)
    return sorted(found, key=lambda beat: beat.rank)


def _read(path: Path) -> Beat | None:
    """The rank writes while we read, so what is read twice alike is whole."""
    former = b""
    for _ in range(_READS):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if data == former:
            break
        former = data
    if len(data) < _LAYOUT.size or not any(data):
        return None
    pid, started, step, beats, activity, since, slowest, _ = _LAYOUT.unpack(data[: _LAYOUT.size])
    return Beat(
        rank=int(path.stem.partition("-")[2]),
        pid=pid,
        mark=f"{pid}:{started}",
        step=step,
        beats=beats,
        activity=Activity(activity),
        since=since,
        slowest_step_seconds=slowest,
    )
