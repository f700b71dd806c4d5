"""Face of vl3.steps.import_scorers."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def import_scorers(
    workflow: dict,
    scorers: dsl.Output[dsl.Artifact],
) -> None:
    """Bring the weights of every scorer into the run's artifacts."""
    from vl3.workflow.entry import run_step

    run_step(
        "import_scorers",
        workflow=workflow,
        outputs={"scorers": scorers.path},
    )
