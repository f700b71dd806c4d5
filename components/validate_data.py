"""Face of vl3.steps.validate_data."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def validate_data(
    recipe: str,
    overrides: list,
    data_uri: str,
    artifacts_uri: str,
    tracking_uri: str,
    run_id: str,
    start: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> None:
    """Build shards and index from annotations and media, and let Great Expectations judge them."""
    from vl3.workflow.entry import run_step

    run_step(
        "validate_data",
        workflow={
            "recipe": recipe,
            "overrides": overrides,
            "data_uri": data_uri,
            "artifacts_uri": artifacts_uri,
            "tracking_uri": tracking_uri,
            "run_id": run_id,
        },
        inputs={"start": start.path},
        outputs={"dataset": dataset.path, "validation": validation.path},
    )
