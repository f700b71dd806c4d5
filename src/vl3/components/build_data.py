"""Face of vl3.steps.build_data."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def build_data(
    workflow: dict,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
) -> None:
    """Build shards and index from annotations and media."""
    from vl3.workflow.entry import run_step

    run_step(
        "build_data",
        workflow=workflow,
        inputs={"start": start.path},
        outputs={"dataset": dataset.path},
    )
