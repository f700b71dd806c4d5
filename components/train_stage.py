"""Face of vl3.steps.train_stage."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def train_stage(
    stage: str,
    recipe: str,
    overrides: list,
    data_uri: str,
    artifacts_uri: str,
    tracking_uri: str,
    run_id: str,
    initial: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    checkpoint: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
) -> None:
    """Train one stage from the bases or the former stage's weights; register the checkpoint as a candidate."""
    from vl3.workflow.entry import run_step

    run_step(
        "train_stage",
        stage=stage,
        workflow={
            "recipe": recipe,
            "overrides": overrides,
            "data_uri": data_uri,
            "artifacts_uri": artifacts_uri,
            "tracking_uri": tracking_uri,
            "run_id": run_id,
        },
        inputs={"initial": initial.path, "dataset": dataset.path},
        outputs={"checkpoint": checkpoint.path, "training": training.path},
    )
