"""Face of vl3.steps.validate_curation."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def validate_curation(
    workflow: dict,
    curation: dsl.Input[dsl.Dataset],
    videos: dsl.Input[dsl.Dataset],
    corpus: dsl.Output[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
) -> None:
    """Let Great Expectations judge every decision and what is handed over, and list what passed as a corpus."""
    from vl3.workflow.entry import run_step

    run_step(
        "validate_curation",
        workflow=workflow,
        inputs={"curation": curation.path, "videos": videos.path},
        outputs={"corpus": corpus.path, "validation": validation.path},
    )
