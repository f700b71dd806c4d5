"""Face of vl3.steps.evaluate."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.EVALUATOR, install_kfp_package=False)
def evaluate(
    recipe: str,
    overrides: list,
    data_uri: str,
    artifacts_uri: str,
    tracking_uri: str,
    run_id: str,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    vision_adaptation: dsl.Input[dsl.Model],
    alignment: dsl.Input[dsl.Model],
    multitask: dsl.Input[dsl.Model],
    video: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
) -> None:
    """Held-out accuracy of each task, before training and after each stage."""
    from vl3.workflow.entry import run_step

    run_step(
        "evaluate",
        workflow={
            "recipe": recipe,
            "overrides": overrides,
            "data_uri": data_uri,
            "artifacts_uri": artifacts_uri,
            "tracking_uri": tracking_uri,
            "run_id": run_id,
        },
        inputs={
            "start": start.path,
            "dataset": dataset.path,
            "vision_adaptation": vision_adaptation.path,
            "alignment": alignment.path,
            "multitask": multitask.path,
            "video": video.path,
        },
        outputs={"evaluation": evaluation.path},
    )
