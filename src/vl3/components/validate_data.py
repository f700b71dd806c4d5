"""Face of vl3.steps.validate_data."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def validate_data(
    workflow: dict,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> None:
    """Build shards and index from annotations and media, and let Great Expectations judge them."""
    from vl3.workflow.entry import run_step

    run_step(
        "validate_data",
        workflow=workflow,
        inputs={"start": start.path},
        outputs={"dataset": dataset.path, "validation": validation.path},
    )
