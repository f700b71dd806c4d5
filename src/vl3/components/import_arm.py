"""Face of vl3.steps.import_arm."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def import_arm(
    workflow: dict,
    arm: str,
    start: dsl.Output[dsl.Artifact],
) -> None:
    """Bring the encoder of an arm and the decoder into the run's artifacts, checked."""
    from vl3.workflow.entry import run_step

    run_step(
        "import_arm",
        workflow=workflow,
        part=arm,
        outputs={"start": start.path},
    )
