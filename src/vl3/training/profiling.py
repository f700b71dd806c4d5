"""A profile of some steps on rank 0, as a Chrome trace in the stage's work folder: `engine.profile_steps=10:13`."""

import gzip
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile

from vl3.config.run import profiled_steps
from vl3.errors import StorageError
from vl3.store.objects import open_store
from vl3.system.files import storage_errors
from vl3.training.events import PROFILE_FOLDER, EventLog

if TYPE_CHECKING:
    from vl3.training.loop import StepDone

log = logging.getLogger("vl3.training")


class StepProfiler:
    """A callback that profiles the wanted steps, once. It begins when the step before them is done."""

    def __init__(self, steps: str, work_uri: str, events: EventLog, *, start: int) -> None:
        """`steps` is engine.profile_steps, `start` the number of steps that are done already."""
        self._first, self._last = profiled_steps(steps)
        self._work_uri = work_uri
        self._events = events
        self._profile: profile | None = None
        if start == self._first - 1:
            self._begin()
        elif start >= self._first:
            self._events.note(f"engine.profile_steps={steps} was not profiled: step {start} is done already")

    def __call__(self, step: "StepDone") -> None:
        """Begin, or end and store the trace."""
        is_last = step.done >= self._last or step.done == step.total or step.stop_requested
        if self._profile is not None and is_last:
            self._end(step.done)
        elif step.done == self._first - 1 and not is_last:
            self._begin()

    def _begin(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities, record_shapes=True)
        self._profile.start()

    def _end(self, done: int) -> None:
        """Store the trace; a store that does not take it must not end the training."""
        assert self._profile is not None
        self._profile.stop()
        key = f"{PROFILE_FOLDER}/steps-{self._first}-{done}.json.gz"
        try:
            with tempfile.TemporaryDirectory(prefix="vl3-profile-") as folder:
                plain, packed = Path(folder) / "trace.json", Path(folder) / "trace.json.gz"
                with storage_errors(plain):
                    self._profile.export_chrome_trace(str(plain))
                    with plain.open("rb") as source, gzip.open(packed, "wb") as target:
                        shutil.copyfileobj(source, target)
                open_store(self._work_uri).put_file(packed, key)
        except StorageError as error:
            self._events.note(f"the profile of steps {self._first} to {done} could not be stored: {error}")
        else:
            self._events.note(f"steps {self._first} to {done} of rank 0 were profiled: {key} in the stage's log")
        self._profile = None
