"""The plan of one stage: its memory, time and cost where it is placed, or on other devices."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.models.config import VideoLlama3Config
from vl3.planning.cost import Cost, cost_of
from vl3.planning.devices import Device, get_device
from vl3.planning.host import HostMemory, host_memory
from vl3.planning.memory import GIB, RESERVE_SHARE, Memory, stage_memory
from vl3.planning.parameters import TrainedParts
from vl3.planning.rows import StageRows, assumed_rows, planned_rows
from vl3.planning.sharding import Sharding
from vl3.planning.sizes import model_sizes
from vl3.planning.time import StepTime, step_time


@dataclass(frozen=True, kw_only=True, slots=True)
class StageForecast:
    """What a stage takes under one sharding."""

    stage: str
    sharding: Sharding
    device: Device
    memory: Memory
    """Of one GPU."""
    host: HostMemory
    """Of one node."""
    time: StepTime
    rows: StageRows
    hours: float
    """The whole stage, without start-up and saves that training waits for."""
    cost: Cost
    node_memory_gib: float | None
    """What a node has, from the placement; None if it is not known."""
    problems: tuple[str, ...]
    """Why it cannot run so; empty if it fits."""

    @property
    def usable_gib(self) -> float:
        """Memory of a GPU without the reserve."""
        return self.device.memory_gib * (1 - RESERVE_SHARE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a stage runs."""

    gpu: str
    """Name of the GPU."""
    gpus: int
    """GPUs over all nodes."""
    gpus_per_node: int
    """Of one node."""
    node_memory_gib: float | None = None
    """Host memory of a pod; None if it is not known."""
    price_per_gpu_hour: float | None = None
    """Price of one GPU for an hour; None if it is not known."""
    currency: str = "USD"
    """Currency of the price."""


def place_of(config: RunConfig, stage: str, *, nodes: int | None = None) -> Place:
    """Where the placement of a stage puts it, with all its nodes or with fewer.

    Raises:
        ConfigError: the placement has GPUs and does not say which.
    """
    placement = config.placements[stage]
    if not placement.gpus_per_node:
        raise ConfigError(
            f"placements.{stage} has no GPUs, so there is nothing to plan. Name one with --gpu and --gpus."
        )
    if not placement.gpu:
        raise ConfigError(
            f"placements.{stage}.gpu is not set, so neither fit nor time can be computed. Name the pool's GPU, such as "
            "h200, or set engine.fit_check=off."
        )
    return Place(
        gpu=placement.gpu,
        gpus=(nodes or placement.nodes) * placement.gpus_per_node,
        gpus_per_node=placement.gpus_per_node,
        node_memory_gib=placement.memory_gib,
        price_per_gpu_hour=placement.price_per_gpu_hour,
        currency=placement.currency,
    )


def sharding_of(config: RunConfig, rows: StageRows, ranks: int, **changes: Any) -> Sharding:
    """The sharding that a configuration asks for; `changes` replace its fields."""
    engine = config.engine
    sharding = Sharding(
        zero_stage=engine.zero_stage,
        ranks=ranks,
        precision=engine.precision,
        recompute=engine.recompute,  # type: ignore[arg-type]  # checked by the configuration
        offload_optimizer=engine.offload_optimizer,
        rows_per_rank=max(1, rows.packs_per_step // ranks),
    )
    return replace(sharding, **changes)


def plan_stage_on(
    config: RunConfig,
    stage: str,
    place: Place,
    model: VideoLlama3Config,
    rows: StageRows,
    sharding: Sharding | None = None,
) -> StageForecast:
    """What a stage takes in a place.

    Raises:
        ConfigError: the device is not one that the planner knows.
    """
    device = get_device(place.gpu)
    chosen = sharding or sharding_of(config, rows, place.gpus)
    trained = TrainedParts.of(config.stages[stage])
    memory = stage_memory(model, trained, rows.largest, chosen)
    host = host_memory(config, stage, model, chosen, ranks_per_node=place.gpus_per_node, device_bytes=0.0)
    time = step_time(
        model, trained, rows.mean, chosen, device, ranks_per_node=place.gpus_per_node, imbalance=rows.imbalance
    )
    hours = time.seconds * rows.steps / 3600
    plan = StageForecast(
        stage=stage,
        sharding=chosen,
        device=device,
        memory=memory,
        host=host,
        time=time,
        rows=rows,
        hours=hours,
        cost=cost_of(hours, place.gpus, place.price_per_gpu_hour, place.currency),
        node_memory_gib=place.node_memory_gib,
        problems=(),
    )
    return replace(plan, problems=tuple(_problems(plan, place)))


def stage_rows(config: RunConfig, stage: str, ranks: int, plan: Path | None = None) -> StageRows:
    """The rows of a stage: of its plan if there is one, else those that its mixture lets expect."""
    return assumed_rows(config, stage) if plan is None else planned_rows(plan, ranks)


def planned_stage(config: RunConfig, stage: str, *, plan: Path | None = None) -> StageForecast:
    """What a stage takes where its placement puts it.

    Args:
        config: the run.
        stage: name of the stage.
        plan: the folder of its plan artifact, if there is one.

    Raises:
        ConfigError: device or sizes are not known.
        DataError: the plan is damaged.
    """
    place = place_of(config, stage)
    model, _ = model_sizes(config.model)
    return plan_stage_on(config, stage, place, model, stage_rows(config, stage, place.gpus, plan))


def _problems(plan: StageForecast, place: Place) -> list[str]:
    found = []
    used, usable = plan.memory.peak / GIB, plan.usable_gib
    if used > usable:
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in plan.memory.parts.items() if size >= GIB / 10)
        found.append(
            f"one {plan.device.name} needs {used:.1f} GiB with {plan.sharding.describe()} on {place.gpus} GPUs and has "
            f"{usable:.1f} of {plan.device.memory_gib:g} ({parts})"
        )
    if plan.node_memory_gib is not None and plan.host.peak / GIB > plan.node_memory_gib:
        parts = ", ".join(f"{name} {size / GIB:.0f}" for name, size in plan.host.parts.items() if size >= GIB)
        found.append(
            f"a node needs {plan.host.peak / GIB:.0f} GiB of host memory and its pod has {plan.node_memory_gib:g} "
            f"({parts})"
        )
    if plan.rows.packs_per_step % place.gpus:
        found.append(f"the {plan.rows.packs_per_step} rows of a step cannot be shared evenly by {place.gpus} GPUs")
    return found


def to_json(plan: StageForecast) -> dict[str, Any]:
    """A plan as JSON data, sizes in bytes."""
    return {
        "stage": plan.stage,
        "gpu": plan.device.name,
        "gpus": plan.sharding.ranks,
        "zero_stage": plan.sharding.zero_stage,
        "recompute": plan.sharding.recompute,
        "offload_optimizer": plan.sharding.offload_optimizer,
        "rows_per_rank": plan.sharding.rows_per_rank,
        "fits": not plan.problems,
        "problems": list(plan.problems),
        "memory_bytes": dict(plan.memory.parts) | {"peak": plan.memory.peak},
        "memory_moment": plan.memory.moment,
        "host_bytes": dict(plan.host.parts) | {"peak": plan.host.peak},
        "flops_per_row": {
            name: {"forward": part.forward, "backward": part.backward, "recomputed": part.recomputed}
            for name, part in plan.time.flops.parts.items()
        },
        "step_seconds": dict(plan.time.parts) | {"whole": plan.time.seconds},
        "rows_per_second": plan.time.rows_per_second,
        "mfu": plan.time.mfu,
        "steps": plan.rows.steps,
        "rows_per_step": plan.rows.packs_per_step,
        "samples": plan.rows.samples,
        "hours": plan.hours,
        "gpu_hours": plan.cost.gpu_hours,
        "cost": plan.cost.amount,
        "currency": plan.cost.currency,
        "assumptions": list(plan.rows.assumptions),
    }
