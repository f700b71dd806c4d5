"""Face of vl3.steps.check_prerequisites."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def check_prerequisites(
    recipe: str,
    overrides: list,
    data_uri: str,
    artifacts_uri: str,
    tracking_uri: str,
    run_id: str,
    start: dsl.Output[dsl.Artifact],
) -> None:
    """Report all that is missing at once; open the tracking run; fix the bases that stage 1 starts from."""
    from vl3.workflow.entry import run_step

    run_step(
        "check_prerequisites",
        workflow={
            "recipe": recipe,
            "overrides": overrides,
            "data_uri": data_uri,
            "artifacts_uri": artifacts_uri,
            "tracking_uri": tracking_uri,
            "run_id": run_id,
        },
        outputs={"start": start.path},
    )
