"""What fits: every sharding of a stage on its devices, the quickest first, and whether a placed stage can run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vl3.config.run import RunConfig
from vl3.errors import ConfigError, Vl3Error
from vl3.models.config import VideoLlama3Config
from vl3.planning.rows import StageRows, assumed_rows
from vl3.planning.sharding import Sharding
from vl3.planning.sizes import model_sizes
from vl3.planning.stage import Place, StageForecast, place_of, plan_stage_on, sharding_of

RECOMPUTES = ("none", "selective", "full")


def all_shardings(
    config: RunConfig, stage: str, place: Place, model: VideoLlama3Config, rows: StageRows
) -> list[StageForecast]:
    """A plan for each ZeRO stage, recomputation and offload; what fits comes first, and of that the cheapest."""
    plans = [
        plan_stage_on(config, stage, place, model, rows, sharding) for sharding in _layouts(config, rows, place.gpus)
    ]
    return sorted(plans, key=lambda plan: (len(plan.problems) > 0, plan.hours))


@dataclass(frozen=True, kw_only=True, slots=True)
class FitFindings:
    """What the planner has to say before stages are queued."""

    problems: tuple[ConfigError, ...]
    """Stages that cannot run as they are placed."""
    notes: tuple[str, ...]
    """The same where the configuration only wants a warning, and what could not be computed."""


def check_fit(config: RunConfig, stages: Iterable[str]) -> FitFindings:
    """Whether each stage can run where its placement puts it, with numbers and what would help.

    Stages on pools without GPUs are not looked at: what a CPU's memory must hold is measured in minutes.
    """
    problems: list[ConfigError] = []
    chosen = [stage for stage in stages if config.placements[stage].gpus_per_node]
    if config.engine.fit_check == "off" or not chosen:
        return FitFindings(problems=(), notes=())
    try:
        model, assumed = model_sizes(config.model)
    except Vl3Error as error:  # a base that the run itself has yet to find
        return FitFindings(problems=(), notes=(f"whether the stages fit is not checked: {error}",))
    for stage in chosen:
        try:
            problem = _problem(config, stage, model)
        except ConfigError as error:
            problem = error
        if problem is not None:
            problems.append(problem)
    if config.engine.fit_check == "warn":
        return FitFindings(problems=(), notes=(*assumed, *map(str, problems)))
    return FitFindings(problems=tuple(problems), notes=tuple(assumed))


def _problem(config: RunConfig, stage: str, model: VideoLlama3Config) -> ConfigError | None:
    """Checked with the fewest nodes on which the stage may run: there a GPU holds the most."""
    placement = config.placements[stage]
    place = place_of(config, stage, nodes=placement.min_nodes or placement.nodes)
    rows = assumed_rows(config, stage)
    plan = plan_stage_on(config, stage, place, model, rows)
    faults = [fault for fault in plan.problems if "cannot be shared" not in fault]  # the configuration checks that
    if not faults:
        return None
    return ConfigError(
        f"stage {stage} does not fit where placements.{stage} puts it: {'; '.join(faults)}. "
        f"{_remedy(all_shardings(config, stage, place, model, rows))} Or set engine.fit_check=warn to try it anyway."
    )


def _remedy(plans: Sequence[StageForecast]) -> str:
    """The cheapest sharding that fits, or that none does."""
    if plans[0].problems:
        return (
            "No ZeRO stage and recomputation fits there: use more GPUs or larger ones, more host memory, or lower "
            "data.max_length_tokens and data.max_row_visual_tokens."
        )
    sharding = plans[0].sharding
    offload = " and engine.offload_optimizer=true" if sharding.offload_optimizer else ""
    return (
        f"Set engine.zero_stage={sharding.zero_stage} and engine.recompute={sharding.recompute}{offload}, which takes "
        f"{plans[0].memory.peak / 2**30:.1f} GiB."
    )


def _layouts(config: RunConfig, rows: StageRows, gpus: int) -> Iterable[Sharding]:
    for offload in (False, True):
        for zero_stage in range(1 if offload else 0, 4):
            for recompute in RECOMPUTES:
                yield sharding_of(
                    config, rows, gpus, zero_stage=zero_stage, recompute=recompute, offload_optimizer=offload
                )
