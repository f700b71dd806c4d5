"""Face of vl3.steps.report."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def report(
    workflow: dict,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    promotion: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page and the same numbers as JSON, from what every step left."""
    from vl3.workflow.entry import run_step

    run_step(
        "report",
        workflow=workflow,
        inputs={
            "start": start.path,
            "dataset": dataset.path,
            "validation": validation.path,
            "checkpoint": checkpoint.path,
            "evaluation": evaluation.path,
            "promotion": promotion.path,
        },
        outputs={"report": report.path},
    )
