"""Face of vl3.steps.promote."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def promote(
    workflow: dict,
    dataset: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    validation: dsl.Input[dsl.Artifact],
    promotion: dsl.Output[dsl.Artifact],
) -> None:
    """Let the gates decide whether the last stage's checkpoint becomes champion; a refusal is a result too."""
    from vl3.workflow.entry import run_step

    run_step(
        "promote",
        workflow=workflow,
        inputs={
            "dataset": dataset.path,
            "checkpoint": checkpoint.path,
            "evaluation": evaluation.path,
            "validation": validation.path,
        },
        outputs={"promotion": promotion.path},
    )
