"""Face of vl3.steps.curate_videos."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.CURATOR, install_kfp_package=False)
def curate_videos(workflow: dict, videos: dsl.Output[dsl.Dataset]) -> None:
    """Find the dynamic clips of the videos, and let models write captions and questions."""
    from vl3.workflow.entry import run_step

    run_step("curate_videos", workflow=workflow, outputs={"videos": videos.path})
