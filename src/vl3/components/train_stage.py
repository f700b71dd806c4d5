"""Face of vl3.steps.train_stage."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def train_stage(
    stage: str,
    workflow: dict,
    initial: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    plan: dsl.Input[dsl.Artifact],
    checkpoint: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
) -> None:
    """Train one stage from the bases or the previous stage's weights; register the checkpoint as a candidate."""
    from vl3.workflow.entry import run_step

    run_step(
        "train_stage",
        part=stage,
        workflow=workflow,
        inputs={"initial": initial.path, "dataset": dataset.path, "plan": plan.path},
        outputs={"checkpoint": checkpoint.path, "training": training.path},
    )
