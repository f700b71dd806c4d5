"""Face of vl3.steps.evaluate."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.EVALUATOR, install_kfp_package=False)
def evaluate(
    workflow: dict,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
) -> None:
    """Held-out accuracy of each task, before training and after each stage."""
    from vl3.workflow.entry import run_step

    run_step(
        "evaluate",
        workflow=workflow,
        inputs={
            "start": start.path,
            "dataset": dataset.path,
            "checkpoint": checkpoint.path,
        },
        outputs={"evaluation": evaluation.path},
    )
