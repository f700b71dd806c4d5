"""Face of vl3.steps.report."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def report(
    recipe: str,
    overrides: list,
    data_uri: str,
    artifacts_uri: str,
    tracking_uri: str,
    run_id: str,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    vision_adaptation: dsl.Input[dsl.Artifact],
    alignment: dsl.Input[dsl.Artifact],
    multitask: dsl.Input[dsl.Artifact],
    video: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    promotion: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page and the same numbers as JSON, from what every step left."""
    from vl3.workflow.entry import run_step

    run_step(
        "report",
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
            "validation": validation.path,
            "vision_adaptation": vision_adaptation.path,
            "alignment": alignment.path,
            "multitask": multitask.path,
            "video": video.path,
            "evaluation": evaluation.path,
            "promotion": promotion.path,
        },
        outputs={"report": report.path},
    )
