"""Face of vl3.steps.finish."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def finish(
    workflow: dict,
    status: dsl.PipelineTaskFinalStatus,
) -> None:
    """Free what the run holds on the cluster and end its tracking run with its final state."""
    from vl3.workflow.entry import run_step

    run_step(
        "finish",
        workflow=workflow,
        values={"state": status.state, "task": status.pipeline_task_name, "message": status.error_message},
    )
