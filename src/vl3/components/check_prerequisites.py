"""Face of vl3.steps.check_prerequisites."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def check_prerequisites(
    workflow: dict,
) -> None:
    """Report everything that is missing, and open the tracking run."""
    from vl3.workflow.entry import run_step

    run_step(
        "check_prerequisites",
        workflow=workflow,
        outputs={},
    )
