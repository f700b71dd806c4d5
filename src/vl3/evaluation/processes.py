"""What the processes of an evaluation do together: claim units, tell how far they are, fetch models once a machine.

They share torchrun's store: who adds the first one to a unit's counter answers it. They exchange nothing else, so one
that is slow delays nobody.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.evaluation.candidates import EvaluatedModel
from vl3.evaluation.job import EvaluationJob
from vl3.evaluation.journal import Answers, read_answers
from vl3.store.artifacts import fetch
from vl3.store.bases import LANGUAGE, VISION, fetch_base
from vl3.store.reference import Reference
from vl3.system.rank import StopRequest
from vl3.training.events import EventLog

_POLL_SECONDS = 0.2
_TELL_SECONDS = 1.0
_COUNTED = "counted"


class Counters(Protocol):
    """What is used of torch.distributed.Store."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, which begins at 0; returns what it is then."""


class EvaluationStoppedError(Exception):
    """The process was asked to stop."""


class StoreClaims:
    """Units that are claimed by the first to count."""

    def __init__(self, counters: Counters) -> None:
        """Use the counters that all processes share."""
        self._counters = counters

    def take(self, name: str) -> bool:
        """See vl3.evaluation.units.Claims."""
        return self._counters.add(f"unit/{name}", 1) == 1


class Telling:
    """How far all processes are together, which the first one writes to the events."""

    def __init__(self, counters: Counters, events: EventLog, *, rank: int, total: int, before: int) -> None:
        """Say how much was answered before."""
        self._counters, self._events, self._rank = counters, events, rank
        self._total, self._before, self._told_at, self._text = total, before, 0.0, "answers"
        self._told: int | None = None
        if rank == 0:
            events.write("start", resumed_from_step=before, time=time.time())
            self._tell(self._counters.add("answers", 0))

    def answered(self, model: str) -> None:
        """Count an answer."""
        self._text = f"model {model}"
        done = self._counters.add("answers", 1)
        if self._rank == 0 and time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._tell(done)

    def wait_for_others(self, world_size: int, stop: StopRequest) -> None:
        """Wait until every process has nothing left to answer; only the first one, which goes on telling."""
        ended = self._counters.add("ended", 1)
        while self._rank == 0 and ended < world_size:
            if stop():
                raise EvaluationStoppedError
            time.sleep(_POLL_SECONDS)
            ended = self._counters.add("ended", 0)
            if time.monotonic() - self._told_at >= _TELL_SECONDS:
                self._tell(self._counters.add("answers", 0))
        if self._rank == 0:
            self._tell(self._counters.add("answers", 0))

    def _tell(self, done: int) -> None:
        """Write how far all are, if that has changed: a word without progress would hide a stall."""
        self._told_at = time.monotonic()
        done = self._before + done
        if done != self._told:
            self._told = done
            self._events.write("progress", done=done, total=self._total, text=self._text)


def read_former_answers(job: EvaluationJob, store: Any, rank: int) -> Answers:
    """What earlier attempts have answered; the first process reads before any has begun to answer, so that it can
    count.
    """
    while rank and not store.check([_COUNTED]):
        time.sleep(_POLL_SECONDS)
    answered = read_answers(job.work_uri, job.identity)
    if not rank:
        store.set(_COUNTED, "1")
    return answered


def count_answers(answered: Answers) -> int:
    """Answers of all models."""
    return sum(map(len, answered.values()))


def join_processes(rank: int, world_size: int) -> Any:
    """The store that torchrun made for the processes of this launch."""
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(iter(rendezvous("env://", rank=rank, world_size=world_size)))
    return PrefixStore("evaluation", store)


def device_of(local_rank: int, cuda: Any) -> str:
    """One device a process: the GPU of its number on this machine.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if not cuda.is_available():
        return "cpu"
    if local_rank >= cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: there are {cuda.device_count()}. Two on one "
            f"would halve each other's memory. Set evaluation.processes={cuda.device_count()}, or "
            "placements.evaluation.processes_per_node to the GPUs of a pod."
        )
    cuda.set_device(local_rank)
    return f"cuda:{local_rank}"


def fetch_models(
    job: EvaluationJob, config: RunConfig, store: Any, *, local_rank: int
) -> tuple[list[EvaluatedModel], RunConfig]:
    """The verified folders of all models; the first process of each machine reads their bytes, for all of it.

    Raises:
        StorageError: a checkpoint is missing, or is another one than the job names.
    """
    with first_of_machine(store, local_rank, "models") as is_first:
        verified = None if is_first else ()
        models = [_fetch(one, verified) for one in job.models]
        if any(model.folder is None for model in models):
            start = Reference.from_dict(job.start)
            vision, language = fetch_base(start, VISION).as_uri(), fetch_base(start, LANGUAGE).as_uri()
            config = replace(config, model=replace(config.model, vision_base=vision, language_base=language))
    return models, config


def _fetch(model: dict[str, Any], verified: tuple[str, ...] | None) -> EvaluatedModel:
    checkpoint = model["checkpoint"]
    if checkpoint is None:
        return EvaluatedModel(name=model["name"], folder=None)
    return EvaluatedModel(name=model["name"], folder=fetch(Reference.from_dict(checkpoint), verified=verified))


@contextmanager
def first_of_machine(store: Any, local_rank: int, what: str) -> Iterator[bool]:
    """Let the first process of this machine go first; whether this is the one."""
    key = f"fetched/{what}/{os.environ.get('GROUP_RANK', '0')}"
    while local_rank and not store.check([key]):
        time.sleep(_POLL_SECONDS)
    yield local_rank == 0
    if not local_rank:
        store.set(key, "1")
