"""Face of vl3.steps.report_evaluation."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def report_evaluation(
    workflow: dict,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page and the same numbers as JSON, of an evaluation without training."""
    from vl3.workflow.entry import run_step

    run_step(
        "report_evaluation",
        workflow=workflow,
        inputs={
            "start": start.path,
            "dataset": dataset.path,
            "validation": validation.path,
            "evaluation": evaluation.path,
        },
        outputs={"report": report.path},
    )
