"""Step: held-out accuracy of every task, before training and after each stage."""

from typing import Any

from vl3.config.codec import to_dict
from vl3.evaluation.document import EVALUATION_FILE, read_evaluation
from vl3.steps.chain import trained_stages
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name


def run(work: Work) -> StepOutcome:
    """Generate answers with each model and count the correct ones."""
    from vl3.evaluation.runner import EvaluatedModel, evaluate_models

    inputs, config = work.request.inputs, work.request.config
    models = [EvaluatedModel(name="before", folder=None)]
    chain = trained_stages(inputs["checkpoint"], work.request.artifacts_uri)
    models += [EvaluatedModel(name=stage.name, folder=fetch(stage.checkpoint)) for stage in chain]
    with work.step_run() as step_run, work.fresh_folder("evaluation") as folder:
        step_run.log_params(to_dict(config.evaluation))
        dataset = inputs["dataset"]
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="evaluation")
        evaluate_models(models, fetch(inputs["dataset"]), config, out_folder=folder, progress=work.progress)
        result = read_evaluation(folder)
        rows = [(number, _metrics(model)) for number, model in enumerate(result["models"])]
        step_run.log_metrics(rows)
        reference = work.publish(folder, "evaluation", kind="evaluation")
        step_run.log_text((fetch(reference) / EVALUATION_FILE).read_text(encoding="utf-8"), EVALUATION_FILE)
    work.clear()
    means = {model["name"]: model["mean_accuracy"] for model in result["models"]}
    return StepOutcome(outputs={"evaluation": reference}, values={"mean_accuracy": means})


def _metrics(model: dict[str, Any]) -> dict[str, float]:
    """Accuracy by category; the metric's step is the stage's number, 0 for the model before training."""
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
    return {"evaluation": evaluation, "data": data, "stages": stages, "seed": config.seed}


STEP = Step(
    libraries=("torch", "transformers", "tokenizers", "av", "pillow"),
    run=run,
    key_parts=key_parts,
)
