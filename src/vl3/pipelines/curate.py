"""The curation workflow: check, weights, images, videos, validation, report, clean-up. Wiring only."""

from typing import Any

from kfp import dsl

from vl3.components.check_curation import check_curation
from vl3.components.curate_images import curate_images
from vl3.components.curate_videos import curate_videos
from vl3.components.finish import finish
from vl3.components.import_scorers import import_scorers
from vl3.components.report_curation import report_curation
from vl3.components.validate_curation import validate_curation
from vl3.config.step_pods import StepPodsConfig
from vl3.pipelines.pod_settings import named


def make_pipeline(pods: StepPodsConfig) -> Any:
    """The workflow with its steps in pods of these sizes, as kfp's compiler takes it."""

    @dsl.pipeline(name="vl3-curate", description="Selects and captions images and videos of a collection for training.")
    def curation(workflow: dict) -> None:
        """Chain the steps.

        Args:
            workflow: the parameters of the run (vl3.config.parameters).
        """
        last = named(finish(workflow=workflow), "finish", pods)
        with dsl.ExitHandler(last, name="workflow"):
            checked = named(check_curation(workflow=workflow), "check-curation", pods)
            imported = named(import_scorers(workflow=workflow), "import-scorers", pods)
            imported.after(checked)  # nothing is downloaded for a run that cannot end
            scorers = imported.outputs["scorers"]
            images = named(curate_images(workflow=workflow, scorers=scorers), "curate-images", pods)
            clips = named(curate_videos(workflow=workflow), "curate-videos", pods)
            clips.after(checked)
            made = {"curation": images.outputs["curation"], "videos": clips.outputs["videos"]}
            judged = named(validate_curation(workflow=workflow, **made), "validate-curation", pods).outputs
            page = report_curation(workflow=workflow, **made, corpus=judged["corpus"], validation=judged["validation"])
            named(page, "report-curation", pods)

    return curation
