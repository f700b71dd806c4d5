"""Face of vl3.steps.import_start."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def import_start(
    workflow: dict,
    start: dsl.Output[dsl.Artifact],
) -> None:
    """Bring the bases of stage 1, or the model that the run starts from, into the run's artifacts, checked."""
    from vl3.workflow.entry import run_step

    run_step(
        "import_start",
        workflow=workflow,
        outputs={"start": start.path},
    )
