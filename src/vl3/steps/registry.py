"""The registry of the recipe's model, for the steps."""

from typing import Any

from vl3.config.codec import digest
from vl3.recipes.effective import stage_view
from vl3.steps.request import Request
from vl3.store.reference import Reference
from vl3.tracking.registry import Registry


def open_registry(request: Request) -> Registry:
    """The versions of the recipe's registered model."""
    uri = request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri
    return Registry(uri, request.config.promotion.registered_model, template=request.tracking_template)


def candidate(
    request: Request, stage: str, checkpoint: Reference, dataset: Reference, *, steps: int | None
) -> dict[str, Any]:
    """What is registered of a stage's checkpoint after its `steps`: the arguments of Registry.register_candidate."""
    return {
        "source_uri": checkpoint.uri,
        "stage": stage,
        "checkpoint_sha256": checkpoint.sha256,
        "dataset_digest": dataset.sha256,
        "config_digest": digest(stage_view(request.config, stage)),
        "step": steps,
        "run_id": request.run_id,
    }
