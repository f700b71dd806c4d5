"""Face of vl3.steps.check_prerequisites."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def check_prerequisites(
    workflow: dict,
    start: dsl.Output[dsl.Artifact],
) -> None:
    """Report everything that is missing; open the tracking run; record the digests of the bases of stage 1."""
    from vl3.workflow.entry import run_step

    run_step(
        "check_prerequisites",
        workflow=workflow,
        outputs={"start": start.path},
    )
