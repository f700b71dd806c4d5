"""Who makes the units of a build: processes of this machine, or a Ray cluster, which may be this machine, too.

The units are the same, and so are their bytes: a Ray actor makes its units in a process of its own, as the processes
here do, so that deadlines, limits of memory and the blame of a sample are the same everywhere.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from vl3.data.build.pool import BuildPool
from vl3.data.build.units import Unit
from vl3.data.build.worker import BuildSetup
from vl3.errors import FAMILIES, ClusterError, ConfigError, Vl3Error

SAMPLE_TIMEOUT_SECONDS = 120.0
MAX_RETRIES = 5
"""How often a unit is handed out again after the machine of its actor was lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """Processes of this machine."""

    workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RayActors:
    """Actors of Ray, one for each core that they take."""

    workers: int | None = None
    """Number of actors; None takes one for each core of the cluster."""
    address: str | None = None
    """Address of a cluster (`auto` on one of its machines); None starts Ray on this machine, and ends it again."""


Executor: TypeAlias = Processes | RayActors


def run_units(
    units: Sequence[Unit], setup: BuildSetup, executor: Executor, on_sample: Callable[[int], None] = lambda _: None
) -> None:
    """Make the units that are not there.

    Args:
        units: what to make.
        setup: what all share.
        executor: who makes them.
        on_sample: called with the number of lines worked off so far.

    Raises:
        DataError: the annotations cannot be read.
        StorageError: the source cannot be read, or a unit cannot be written.
        ClusterError: workers die, or Ray cannot be reached.
        ConfigError: Ray is not installed.
    """
    if isinstance(executor, RayActors):
        _run_on_ray(units, setup, executor, on_sample)
        return
    with BuildPool(
        setup,
        workers=min(executor.workers, len(units)),
        sample_timeout_seconds=SAMPLE_TIMEOUT_SECONDS,
        on_sample=on_sample,
    ) as pool:
        pool.run(units)


class _Maker:
    """An actor: makes units one after the other in a process of its own."""

    def __init__(self) -> None:
        self._pool: BuildPool | None = None

    def make(self, setup: BuildSetup, unit: Unit) -> tuple[str, str] | None:
        """Make a unit; returns family and text of the error that ended the build.

        The setup, the same each time, comes with the unit: an actor that starts elsewhere has lost its own.
        """
        if self._pool is None:
            self._pool = BuildPool(setup, workers=1, sample_timeout_seconds=SAMPLE_TIMEOUT_SECONDS)
        try:
            self._pool.run([unit])
        except Vl3Error as error:
            return type(error).__name__, str(error)
        return None

    def stop(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.__exit__()


def _run_on_ray(
    units: Sequence[Unit], setup: BuildSetup, executor: RayActors, on_sample: Callable[[int], None]
) -> None:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed here. Install vl3[ray], or build in processes.") from error

    is_local = executor.address is None
    try:
        ray.init(
            address=executor.address or "local",
            num_cpus=executor.workers if is_local else None,
            include_dashboard=False if is_local else None,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:  # a start that takes too long is a bare Exception of Ray's
        raise ClusterError(
            f"Ray cannot be reached at {executor.address or 'this machine'}: {str(error).rstrip('.')}. Check the "
            "address and the load of the machine, then start the build again: it makes what is missing."
        ) from error
    try:
        _deal(ray, units, setup, executor.workers or int(ray.cluster_resources().get("CPU", 1)), on_sample)
    finally:
        if is_local:
            ray.shutdown()


def _deal(ray: Any, units: Sequence[Unit], setup: BuildSetup, workers: int, on_sample: Callable[[int], None]) -> None:
    """Give each actor one unit at a time. An actor whose machine is lost starts elsewhere, with its unit."""
    actor_class = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=MAX_RETRIES)(_Maker)
    shared = ray.put(setup)
    actors = [actor_class.remote() for _ in range(min(workers, len(units)))]
    waiting, running, done = deque(units), {}, 0

    def hand_out(actor: Any) -> None:
        if waiting:
            unit = waiting.popleft()
            running[actor.make.remote(shared, unit)] = (actor, unit)

    for actor in actors:
        hand_out(actor)
    while running:
        ready, _ = ray.wait(list(running))
        actor, unit = running.pop(ready[0])
        try:
            failure = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"unit {unit.number} could not be made {MAX_RETRIES + 1} times: {str(error).strip().splitlines()[0]}. "
                "Check the machines of the cluster, then start the build again: it makes what is missing."
            ) from error
        if failure is not None:
            family, text = failure
            raise FAMILIES.get(family, ClusterError)(text)
        done += unit.lines
        on_sample(done)
        hand_out(actor)
    ray.get([actor.stop.remote() for actor in actors])
