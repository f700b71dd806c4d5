"""Face of vl3.steps.curate_images."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.CURATOR, install_kfp_package=False)
def curate_images(
    workflow: dict,
    scorers: dsl.Input[dsl.Artifact],
    curation: dsl.Output[dsl.Dataset],
) -> None:
    """Score the images, select, and write the datasets."""
    from vl3.workflow.entry import run_step

    run_step(
        "curate_images",
        workflow=workflow,
        inputs={"scorers": scorers.path},
        outputs={"curation": curation.path},
    )
