"""Face of vl3.steps.plan_data."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def plan_data(
    stage: str,
    workflow: dict,
    dataset: dsl.Input[dsl.Dataset],
    plan: dsl.Output[dsl.Artifact],
) -> None:
    """Decide which samples make which row of which step of one stage, before any GPU is asked for."""
    from vl3.workflow.entry import run_step

    run_step(
        "plan_data",
        part=stage,
        workflow=workflow,
        inputs={"dataset": dataset.path},
        outputs={"plan": plan.path},
    )
