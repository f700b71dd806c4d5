"""Step: held-out accuracy of every task, before training and after each stage."""

import logging
from dataclasses import replace
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.run import RunConfig
from vl3.evaluation.document import EVALUATION_FILE, read_evaluation
from vl3.steps.chain import MODEL, trained_stages
from vl3.steps.datasets import fetch_heldout
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch
from vl3.store.bases import LANGUAGE, VISION, fetch_base
from vl3.store.reference import Reference
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name

log = logging.getLogger("vl3.step")

GIVEN = "model"
"""Name of the model of a run that trains nothing."""


def run(work: Work) -> StepOutcome:
    """Generate answers with each model and count the correct ones."""
    from vl3.evaluation.runner import EvaluatedModel, evaluate_models

    inputs, config = work.request.inputs, work.request.config
    models = [
        EvaluatedModel(name=name, folder=None if found is None else fetch(found))
        for name, found in _models(work.request)
    ]
    with (
        work.step_run() as step_run,
        work.fresh_folder("evaluation") as folder,
        work.fresh_folder("heldout") as heldout,
    ):
        step_run.log_params(to_dict(config.evaluation))
        dataset = inputs["dataset"]
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="evaluation")
        evaluate_models(
            models,
            fetch_heldout(dataset, heldout),
            _with_imported_bases(work.request),
            out_folder=folder,
            progress=work.progress,
        )
        result = read_evaluation(folder)
        step_run.log_metrics([(_number(config, model["name"]), _metrics(model)) for model in result["models"]])
        reference = work.publish(folder, "evaluation", kind="evaluation")
        step_run.log_text((fetch(reference) / EVALUATION_FILE).read_text(encoding="utf-8"), EVALUATION_FILE)
    work.clear()
    for model in result["models"]:
        log.info("%s: mean held-out accuracy %.3f", model["name"], model["mean_accuracy"])
    means = {model["name"]: model["mean_accuracy"] for model in result["models"]}
    return StepOutcome(outputs={"evaluation": reference}, values={"mean_accuracy": means})


def _models(request: Request) -> list[tuple[str, Reference | None]]:
    """Name and artifact of each model; None for the one that is assembled from the bases.

    A run that trains nothing evaluates the model that it was given, and nothing else.
    """
    start, checkpoint = request.inputs["start"], request.inputs["checkpoint"]
    given = start if start.kind == MODEL else None
    if checkpoint.kind == MODEL:
        return [(GIVEN, given)]
    chain = trained_stages(checkpoint, request.artifacts_uri)
    return [("before", given), *((stage.name, stage.checkpoint) for stage in chain)]


def _with_imported_bases(request: Request) -> RunConfig:
    """The configuration with the bases where the run has them: the model before training is made of them."""
    start, config = request.inputs["start"], request.config
    if start.kind == MODEL:
        return config
    vision, language = fetch_base(start, VISION).as_uri(), fetch_base(start, LANGUAGE).as_uri()
    return replace(config, model=replace(config.model, vision_base=vision, language_base=language))


def _number(config: RunConfig, name: str) -> int:
    """The metric's step: the stage's number in the recipe, 0 for the model before training."""
    return config.stage_number(name) if name in config.stages else 0


def _metrics(model: dict[str, Any]) -> dict[str, float]:
    """Accuracy by category."""
    values = {f"accuracy/{name}": task["accuracy"] for name, task in model["tasks"].items()}
    return {
        name: value for name, value in {"accuracy/mean": model["mean_accuracy"], **values}.items() if value is not None
    }


def key_parts(request: Request) -> dict[str, Any]:
    """How media are prepared and answers generated."""
    config = request.config
    evaluation, data = to_dict(config.evaluation), to_dict(config.data)
    evaluation.pop("processes")
    data.pop("build_workers")
    stages = {
        name: [stage.image_merge_size, stage.video_merge_size, stage.difffp] for name, stage in config.stages.items()
    }
    fixed = config.model.fixed_resolution
    return {"evaluation": evaluation, "data": data, "stages": stages, "seed": config.seed, **fixed}


STEP = Step(
    libraries=("torch", "transformers", "tokenizers", "av", "pillow"),
    run=run,
    key_parts=key_parts,
)
