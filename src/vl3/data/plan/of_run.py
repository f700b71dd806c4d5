"""What a run's configuration asks of the plan of a stage."""

from collections.abc import Sequence

from vl3.config.mixture import ONLY_DATASET
from vl3.config.run import RunConfig
from vl3.data.plan.demand import PlanRequest
from vl3.data.plan.samples import SizeRule


def plan_request(config: RunConfig, stage: str, datasets: Sequence[str] = (ONLY_DATASET,)) -> PlanRequest:
    """The request of a stage on datasets of these names. The number of processes is no part of it."""
    row, data = config.stages[stage], config.data
    return PlanRequest(
        datasets=tuple(datasets),
        mixture=row.mixture,
        missing=row.missing,
        seed=config.stage_seed(stage),
        steps=row.steps,
        epochs=row.epochs,
        packs_per_step=row.packs_per_step,
        samples_per_step=row.samples_per_step,
        packs_divisible_by=row.packs_divisible_by,
        max_length_tokens=data.max_length_tokens,
        max_row_visual_tokens=data.max_row_visual_tokens,
        sizes=SizeRule(
            image_merge_size=row.image_merge_size,
            difffp=row.difffp,
            prune_before_encoder=data.prune_before_encoder,
            fixed_side_patches=config.model.side_patches,
        ),
    )
