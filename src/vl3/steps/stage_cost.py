"""What a stage takes, planned against spent: for MLflow, the stage's log and the report."""

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

from vl3.config.placement import PlacementConfig
from vl3.config.run import RunConfig
from vl3.data.plan.facts import PlanFacts
from vl3.errors import ConfigError
from vl3.launch.spent import AttemptSpan, Spent, spans_of, spent_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """Planned and spent."""

    spent: Spent
    """What the stage took."""
    planned: Spent | None
    """What it should have taken; None if its GPU is not one that the planner knows."""

    def metrics(self) -> dict[str, float]:
        """All numbers as metrics: `spent/gpu_hours`, `planned/gpu_hours`, and so on."""
        planned = {} if self.planned is None else self.planned.metrics("planned")
        return self.spent.metrics("spent") | planned

    def tags(self) -> dict[str, str]:
        """The same in words."""
        return {"vl3.spent": in_words(self.spent)} | (
            {"vl3.planned": in_words(self.planned)} if self.planned is not None else {}
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, for the stage's log."""
        return {"spent": asdict(self.spent), "planned": None if self.planned is None else asdict(self.planned)}


def stage_cost(
    config: RunConfig, stage: str, events: list[dict[str, Any]], *, planned_seconds: float | None
) -> StageCost:
    """The cost of a stage.

    Args:
        config: the run.
        stage: name of the stage.
        events: its events, of all attempts, as they were written.
        planned_seconds: how long the planner says that it takes with all of its nodes; None if it does not.
    """
    placement = _placement(config, stage)
    planned = None
    if planned_seconds is not None:
        planned = spent_of([AttemptSpan(processes=config.num_processes(stage), seconds=planned_seconds)], placement)
    return StageCost(spent=spent_of(spans_of(events), placement), planned=planned)


def planned_seconds(config: RunConfig, stage: str, facts: PlanFacts) -> float | None:
    """How long the planner says that a stage takes with all of its nodes; None where it cannot.

    Steps and rows are the plan's; the rows are as large as the mixture lets expect, because the plan's arrays are not
    at hand where a stage is launched. What the planner does not know must not end a stage that is trained.

    Args:
        config: the run.
        stage: name of the stage.
        facts: its plan.
    """
    placement = _placement(config, stage)
    if placement is None or not placement.gpu:
        return None
    from vl3.planning.rows import assumed_rows
    from vl3.planning.sizes import model_sizes
    from vl3.planning.stage import place_of, plan_stage_on

    try:
        model, _ = model_sizes(config.model)
        rows = replace(
            assumed_rows(config, stage),
            steps=facts.steps,
            packs_per_step=facts.packs_per_step,
            samples=facts.samples,
        )
        return plan_stage_on(config, stage, place_of(config, stage), model, rows).hours * 3600
    except ConfigError as error:
        log.warning("what stage %s was to take is not known: %s", stage, error)
        return None


def in_words(spent: Spent) -> str:
    """`40.0 GPU-hours on pool h200 (100.00 USD)`; process-hours where there are no GPUs."""
    amount = f"{spent.gpu_hours:.3g} GPU-hours" if spent.gpu_hours else f"{spent.process_hours:.3g} process-hours"
    price = "" if spent.cost is None else f" ({spent.cost:.2f} {spent.currency})"
    return f"{amount} on pool {spent.pool}{price}"


def _placement(config: RunConfig, stage: str) -> PlacementConfig | None:
    return None if config.launch.backend == "local" else config.placements[stage]
