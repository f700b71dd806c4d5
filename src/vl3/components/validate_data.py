"""Face of vl3.steps.validate_data."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def validate_data(
    workflow: dict,
    built: dsl.Input[dsl.Dataset],
    dataset: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> None:
    """Let Great Expectations judge a built dataset; only one that passes goes on."""
    from vl3.workflow.entry import run_step

    run_step(
        "validate_data",
        workflow=workflow,
        inputs={"built": built.path},
        outputs={"dataset": dataset.path, "validation": validation.path},
    )
