"""Face of vl3.steps.finish."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def finish(
    recipe: str,
    overrides: list,
    data_uri: str,
    artifacts_uri: str,
    tracking_uri: str,
    run_id: str,
    status: dsl.PipelineTaskFinalStatus,
) -> None:
    """Free what the run holds on the cluster and end its tracking run with the state that it came to."""
    from vl3.workflow.entry import run_step

    run_step(
        "finish",
        workflow={
            "recipe": recipe,
            "overrides": overrides,
            "data_uri": data_uri,
            "artifacts_uri": artifacts_uri,
            "tracking_uri": tracking_uri,
            "run_id": run_id,
        },
        values={"state": status.state, "task": status.pipeline_task_name, "message": status.error_message},
    )
