"""The training workflow: prerequisites, data, plans, stages, evaluation, promotion, report, clean-up. Wiring only."""

from collections.abc import Sequence
from typing import Any

from kfp import dsl

from vl3.components.build_data import build_data
from vl3.components.check_prerequisites import check_prerequisites
from vl3.components.evaluate import evaluate
from vl3.components.finish import finish
from vl3.components.import_start import import_start
from vl3.components.plan_data import plan_data
from vl3.components.promote import promote
from vl3.components.report import report
from vl3.components.train_stage import train_stage
from vl3.components.validate_data import validate_data
from vl3.config.step_pods import StepPodsConfig
from vl3.pipelines.pod_settings import named
from vl3.pipelines.workflows import plan_task, train_task


def make_pipeline(stages: Sequence[str], pods: StepPodsConfig) -> Any:
    """The workflow for a run that trains these stages, its steps in pods of these sizes, as kfp's compiler takes it."""

    @dsl.pipeline(name="vl3-train", description="Trains, evaluates and promotes a VideoLLaMA3-style model.")
    def train(workflow: dict) -> None:
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
            plans = {
                stage: named(plan_data(workflow=workflow, stage=stage, dataset=data["dataset"]), plan_task(stage), pods)
                for stage in stages
            }
            checkpoint = start
            for stage in stages:
                made = {"initial": checkpoint, "dataset": data["dataset"], "plan": plans[stage].outputs["plan"]}
                task = named(train_stage(workflow=workflow, stage=stage, **made), train_task(stage), pods)
                task.after(*plans.values())  # every stage is planned before the first one asks for a GPU
                checkpoint = task.outputs["checkpoint"]
            scores = evaluate(workflow=workflow, start=start, dataset=data["dataset"], checkpoint=checkpoint)
            evaluation = named(scores, "evaluate", pods).outputs["evaluation"]
            decision = promote(workflow=workflow, **data, checkpoint=checkpoint, evaluation=evaluation)
            promotion = named(decision, "promote", pods).outputs["promotion"]
            made = {"checkpoint": checkpoint, "evaluation": evaluation, "promotion": promotion}
            named(report(workflow=workflow, start=start, **data, **made), "report", pods)

    return train
