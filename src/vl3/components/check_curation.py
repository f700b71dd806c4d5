"""Face of vl3.steps.check_curation."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def check_curation(
    workflow: dict,
) -> None:
    """Report everything that would stop the curation later, and open the tracking run."""
    from vl3.workflow.entry import run_step

    run_step(
        "check_curation",
        workflow=workflow,
        outputs={},
    )
