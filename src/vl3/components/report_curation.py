"""Face of vl3.steps.report_curation."""

from kfp import dsl

from vl3.components import images


@dsl.component(base_image=images.LAUNCHER, install_kfp_package=False)
def report_curation(
    workflow: dict,
    curation: dsl.Input[dsl.Dataset],
    videos: dsl.Input[dsl.Dataset],
    corpus: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page: funnel, histograms with thresholds, examples, contact sheets of clusters, clips of videos."""
    from vl3.workflow.entry import run_step

    run_step(
        "report_curation",
        workflow=workflow,
        inputs={"curation": curation.path, "videos": videos.path, "corpus": corpus.path, "validation": validation.path},
        outputs={"report": report.path},
    )
