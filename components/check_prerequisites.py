"""Face of vl3.steps.check_prerequisites."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def check_prerequisites(
    workflow: dict,
    start: dsl.Output[dsl.Artifact],
) -> None:
    """Report all that is missing at once; open the tracking run; fix the bases that stage 1 starts from."""
    from vl3.workflow.entry import run_step

    run_step(
        "check_prerequisites",
        workflow=workflow,
        outputs={"start": start.path},
    )
