"""Face of vl3.steps.evaluate_arm."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.EVALUATOR, install_kfp_package=False)
def evaluate_arm(
    workflow: dict,
    arm: str,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
) -> None:
    """Scores of an arm, before training and after each of its stages."""
    from vl3.workflow.entry import run_step

    run_step(
        "evaluate_arm",
        workflow=workflow,
        part=arm,
        inputs={
            "start": start.path,
            "dataset": dataset.path,
            "checkpoint": checkpoint.path,
        },
        outputs={"evaluation": evaluation.path},
    )
