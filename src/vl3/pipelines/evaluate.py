"""The evaluation workflow: prerequisites, data, the accuracy of one model, report, clean-up. Wiring only."""

from typing import Any

from kfp import dsl

from vl3.components.build_data import build_data
from vl3.components.check_prerequisites import check_prerequisites
from vl3.components.evaluate import evaluate
from vl3.components.finish import finish
from vl3.components.import_start import import_start
from vl3.components.report_evaluation import report_evaluation
from vl3.components.validate_data import validate_data
from vl3.config.step_pods import StepPodsConfig
from vl3.pipelines.pod_settings import named


def make_pipeline(pods: StepPodsConfig) -> Any:
    """The workflow with its steps in pods of these sizes, as kfp's compiler takes it."""

    @dsl.pipeline(name="vl3-evaluate", description="Measures the held-out accuracy of a VideoLLaMA3-style model.")
    def evaluation(workflow: dict) -> None:
        """Chain the steps.

        Args:
            workflow: the parameters of the run (vl3.config.parameters).
        """
        last = named(finish(workflow=workflow), "finish", pods)
        with dsl.ExitHandler(last, name="workflow"):
            checked = named(check_prerequisites(workflow=workflow), "check-prerequisites", pods)
            imported = named(import_start(workflow=workflow), "import-start", pods)
            imported.after(checked)  # nothing is downloaded for a run that cannot end
            start = imported.outputs["start"]
            built = named(build_data(workflow=workflow, start=start), "build-data", pods).outputs["dataset"]
            data = named(validate_data(workflow=workflow, built=built), "validate-data", pods).outputs
            scores = evaluate(workflow=workflow, start=start, dataset=data["dataset"], checkpoint=start)
            measured = named(scores, "evaluate", pods).outputs["evaluation"]
            page = report_evaluation(workflow=workflow, start=start, **data, evaluation=measured)
            named(page, "report-evaluation", pods)

    return evaluation
