"""Face of vl3.steps.validate_curation."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def validate_curation(
    workflow: dict,
    made: dsl.Input[dsl.Dataset],
    curation: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> None:
    """Let Great Expectations judge every decision and what is handed over."""
    from vl3.workflow.entry import run_step

    run_step(
        "validate_curation",
        workflow=workflow,
        inputs={"made": made.path},
        outputs={"curation": curation.path, "validation": validation.path},
    )
