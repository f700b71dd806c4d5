"""Rounds on Ray Data: chunks stream from readers through actors that hold the models, with Ray's own scheduling.

    read (tasks) -> image_facts, filter (actors on cores) -> clip, aesthetic, filter (actors on a GPU) -> blip2 (actors)

A chunk is one row of the dataset, so that Ray never divides one, and a batch of a model holds the same images as in one
process. What counts is in the store of scores when the last row has passed; a lost machine costs what was at work.
"""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vl3.config.curation import CurationConfig
from vl3.curation.chunks import FlowSetup, finish_part, read_chunks, score_chunk
from vl3.curation.flow import TELL_SECONDS, Closing, InThisProcess, Tell
from vl3.curation.rounds import Operation
from vl3.curation.scorer import Scorer
from vl3.curation.scorers.make import make_scorers
from vl3.curation.source import InputPart
from vl3.curation.table import pack, unpack
from vl3.errors import FAMILIES, ClusterError, ConfigError, Vl3Error
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference

MAX_RETRIES = 5
"""How often a task or an actor is started again after its machine was lost."""
_MARK = "vl3-error "
NODE_SECONDS = 600.0
"""How long a lost worker of a cluster may take to be replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RayPlace:
    """Which Ray scores."""

    address: str | None = None
    """`auto` on a machine of a cluster; None starts Ray on this machine, and ends it again."""
    workers: int | None = None
    """Cores that are taken of this machine; None takes all."""


class OnRay:
    """Scores by Ray Data. See vl3.curation.flow.Executor."""

    def __init__(
        self,
        config: CurationConfig,
        folders: Mapping[str, Path],
        place: RayPlace,
        *,
        weights: dict[str, Any] | None = None,
    ) -> None:
        """Ray is reached when there is work.

        Args:
            config: the recipe; each actor makes its scorers from it.
            folders: by scorer, the folder of its weights on this machine.
            place: which Ray.
            weights: reference to the artifact in which the folders are, which actors on other machines fetch
                themselves; None if every actor can read the folders.
        """
        self._config, self._place = config, place
        self._given = SharedWeights.of(folders, weights)

    def score(self, parts: Sequence[InputPart], setup: FlowSetup, tell: Tell) -> None:
        """See Executor."""
        with _reached(self._place) as ray:
            _run(ray, parts, setup, self._config, self._given, tell)

    def close(self, closing: Closing, tell: Tell) -> None:
        """Compare on one worker of a cluster, with its memory and cores: the head and the driver have next to none."""
        if self._place.address is None:
            InThisProcess({}).close(closing, tell)
            return
        with _reached(self._place) as ray:
            close_on_a_worker(ray, closing, tell)


@contextmanager
def _reached(place: RayPlace) -> Iterator[Any]:
    ray = _start(place)
    try:
        yield ray
    except Vl3Error:
        raise
    except ray.exceptions.RayError as error:
        raise _as_ours(error) from error
    finally:
        if place.address is None:
            ray.shutdown()


def close_on_a_worker(ray: Any, closing: Closing, tell: Tell) -> None:
    """Run the step at the end of a round as a task that has all cores of a machine; a lost one is replaced."""
    cores = max((int(one["Resources"].get("CPU", 0)) for one in ray.nodes() if one["Alive"]), default=0)
    task = ray.remote(num_cpus=max(1, cores), max_retries=MAX_RETRIES)(_close).remote(closing)
    while not ray.wait([task], timeout=TELL_SECONDS)[0]:
        tell(0, closing.round.closing)
    ray.get(task)


def _close(closing: Closing) -> None:
    with _told():
        closing.run()


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedWeights:
    """The folders of weights as another machine finds them."""

    folders: dict[str, str]
    """By scorer, a folder; below the artifact if there is one."""
    artifact: dict[str, Any] | None
    """Reference to the artifact."""
    files: dict[str, dict[str, bytes]]
    """Small files of folders that are in no artifact: an index of benchmarks that the driver has made."""

    @classmethod
    def of(cls, folders: Mapping[str, Path], artifact: dict[str, Any] | None) -> "SharedWeights":
        """What is sent to actors."""
        if artifact is None:
            return cls(folders={name: str(one) for name, one in folders.items()}, artifact=None, files={})
        root = fetch(Reference.from_dict(artifact))
        inside = {name: one.relative_to(root).as_posix() for name, one in folders.items() if one.is_relative_to(root)}
        made = {
            name: {path.name: path.read_bytes() for path in one.iterdir() if path.is_file()}
            for name, one in folders.items()
            if name not in inside
        }
        return cls(folders=inside, artifact=artifact, files=made)

    def here(self) -> dict[str, Path]:
        """The folders on this machine; fetched and verified once."""
        if self.artifact is None:
            return {name: Path(one) for name, one in self.folders.items()}
        root = fetch(Reference.from_dict(self.artifact))
        found = {name: root / one for name, one in self.folders.items()}
        for name, files in self.files.items():
            found[name] = Path(tempfile.mkdtemp(prefix=f"vl3-{name}-"))
            for file, content in files.items():
                (found[name] / file).write_bytes(content)
        return found


def stages_of(
    operations: Sequence[Operation], config: CurationConfig
) -> list[tuple[tuple[Operation, ...], float, int]]:
    """Operations that run in one kind of actor, with its GPUs and number (0: as many as there is room for).

    Neighbours on cores share an actor; a scorer on a GPU begins one, and filters and cheap heads after it stay in it.
    """
    stages: list[tuple[list[Operation], float, int]] = []
    for operation in operations:
        scorer = config.scorers.get(operation.scorer)
        gpus = scorer.gpus if scorer is not None else 0.0
        if not stages or gpus > 0:
            stages.append(([operation], gpus, scorer.copies if scorer is not None else 0))
        else:
            stages[-1][0].append(operation)
    return [(tuple(group), gpus, copies) for group, gpus, copies in stages]


class _Reader:
    """Makes chunks of parts; a task of Ray."""

    def __init__(self, parts: Sequence[InputPart], setup: FlowSetup) -> None:
        self._parts, self._setup = {part.name: part for part in parts}, setup

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for name in batch["part"]:
            with _told():
                for start, chunk in read_chunks(self._parts[str(name)], self._setup):
                    yield {"part": np.array([name]), "start": np.array([start]), "chunk": _one(pack(chunk))}


class _Stage:
    """Scores chunks; an actor that keeps its models."""

    def __init__(
        self, operations: tuple[Operation, ...], setup: FlowSetup, config: CurationConfig, folders: "SharedWeights"
    ) -> None:
        self._operations, self._setup = operations, setup
        self._config, self._folders = config, folders
        self._scorers: dict[str, Scorer] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with _told():
            self._scorers = self._scorers or make_scorers(self._config, self._folders.here(), self._setup.scores.uri)
            made = [
                pack(score_chunk(str(part), int(start), unpack(chunk), self._operations, self._scorers, self._setup))
                for part, start, chunk in zip(batch["part"], batch["start"], batch["chunk"], strict=True)
            ]
        return {**batch, "chunk": _one(*made)}


class _Finisher:
    """Writes the states of parts; a task of Ray."""

    def __init__(self, parts: Sequence[InputPart], setup: FlowSetup) -> None:
        self._parts, self._setup = {part.name: part for part in parts}, setup

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with _told():
            for name in batch["part"]:
                finish_part(self._parts[str(name)], self._setup)
        return batch


def _run(
    ray: Any,
    parts: Sequence[InputPart],
    setup: FlowSetup,
    config: CurationConfig,
    folders: "SharedWeights",
    tell: Tell,
) -> None:
    names = [{"part": part.name} for part in parts]
    retried = {"max_retries": MAX_RETRIES}
    read, finish = _Reader(parts, setup), _Finisher(parts, setup)
    chunks = ray.data.from_items(names, override_num_blocks=len(names)).map_batches(
        lambda batch: read(batch), batch_size=1, num_cpus=1, **retried
    )
    stages = stages_of(setup.round.operations, config)
    _require_cores(ray, len(stages) + 1)
    for operations, gpus, copies in stages:
        chunks = chunks.map_batches(
            _Stage,
            fn_constructor_args=(operations, setup, config, folders),
            batch_size=1,
            num_cpus=1,
            num_gpus=gpus or None,
            compute=ray.data.ActorPoolStrategy(size=copies)
            if copies
            else ray.data.ActorPoolStrategy(min_size=1, max_size=_room(ray, gpus)),
            max_restarts=MAX_RETRIES,
            max_task_retries=MAX_RETRIES,
        )
    passed = done = 0
    for batch in chunks.select_columns(["part"]).iter_batches(batch_size=None):
        passed += len(batch["part"])
        tell(0, f"{passed:,} chunks scored")
    finished = ray.data.from_items(names, override_num_blocks=len(names)).map_batches(
        lambda batch: finish(batch), batch_size=1, num_cpus=1, **retried
    )
    for batch in finished.iter_batches(batch_size=None):
        done += len(batch["part"])
        tell(done, "")


def _room(ray: Any, gpus: float) -> int:
    """Most actors of a stage: by the cluster's GPUs, or by its cores, of which the readers get one."""
    found = ray.cluster_resources()
    return max(1, int(found.get("GPU", 0) / gpus) if gpus else int(found.get("CPU", 1)) - 1)


def _require_cores(ray: Any, needed: int, *, patience_seconds: float = NODE_SECONDS) -> None:
    """Refuse a Ray on which actors would hold every core and readers wait for ever.

    A cluster that has lost a worker gets another one, so that its cores are waited for.
    """
    until = time.monotonic() + (patience_seconds if len(ray.nodes()) > 1 else 0.0)
    while (found := int(ray.cluster_resources().get("CPU", 0))) < needed:
        if time.monotonic() >= until:
            raise ConfigError(
                f"Ray has {found} cores, and the round needs {needed}: one for reading, one for each kind of actor. It "
                "would wait for ever. Raise launch.ray_workers, or the nodes or cpus_per_node of placements.curate."
            )
        time.sleep(1.0)


def _start(place: RayPlace) -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError("Ray is not installed here. Install vl3[curation], or score in one process.") from error
    is_local = place.address is None
    try:
        ray.init(
            address=place.address or "local",
            num_cpus=place.workers if is_local else None,
            include_dashboard=False if is_local else None,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:
        raise ClusterError(
            f"Ray cannot be reached at {place.address or 'this machine'}: {str(error).rstrip('.')}. Check the address "
            "and the load of the machine, then start the run again: it goes on from what is scored."
        ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


class _told:  # noqa: N801 - used like a function
    """Turns an error of ours into one whose text survives Ray: the family and the message, on one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, Vl3Error):
            family = next(name for name, one in FAMILIES.items() if isinstance(error, one))
            raise RuntimeError(f"{_MARK}{family} {error}") from error


def _as_ours(error: BaseException) -> Vl3Error:
    text = str(error)
    if _MARK in text:
        family, _, message = text.rpartition(_MARK)[2].partition(" ")
        return FAMILIES.get(family, ClusterError)(message.splitlines()[0])
    return ClusterError(
        f"Ray failed: {text.strip().splitlines()[-1] if text.strip() else type(error).__name__}. Check the machines of "
        "the cluster, then start the run again: it goes on from what is scored."
    )


def _one(*items: bytes) -> np.ndarray:
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column
