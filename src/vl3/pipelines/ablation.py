"""The ablation workflow: data once; import, plans, stages and scores of each arm; their comparison. Wiring only.

    check-prerequisites - import-ARM ... - build-data - validate-data - plan-ARM-STAGE ... all of all arms
    each arm: train-ARM-STAGE one after the other - evaluate-ARM           all: compare-arms - finish

The arms are independent of each other, so a cluster with room for them trains all at once.
"""

from typing import Any

from kfp import dsl

from vl3.components.build_data import build_data
from vl3.components.check_prerequisites import check_prerequisites
from vl3.components.compare_arms import compare_arms
from vl3.components.evaluate_arm import evaluate_arm
from vl3.components.finish import finish
from vl3.components.import_arm import import_arm
from vl3.components.plan_data import plan_data
from vl3.components.train_stage import train_stage
from vl3.components.validate_data import validate_data
from vl3.config.ablation import AblationConfig
from vl3.pipelines.pod_settings import named
from vl3.pipelines.workflows import plan_task, train_task


def make_pipeline(config: AblationConfig) -> Any:
    """The workflow for these arms and their stages, as kfp's compiler takes it."""
    pods = config.step_pods
    stages = {arm: list(config.arm(arm).stages) for arm in config.arms}

    @dsl.pipeline(name="vl3-ablation", description="Trains and compares models that differ in their encoder.")
    def ablation(workflow: dict) -> None:
        """Chain the steps.

        Args:
            workflow: the parameters of the run (vl3.config.parameters).
        """
        last = named(finish(workflow=workflow), "finish", pods)
        with dsl.ExitHandler(last, name="workflow"):
            checked = named(check_prerequisites(workflow=workflow), "check-prerequisites", pods)
            starts = {}
            for arm in stages:
                imported = named(import_arm(workflow=workflow, arm=arm), f"import-{arm}", pods)
                imported.after(checked)
                starts[arm] = imported.outputs["start"]
            # The arms have one decoder, and of a start only the tokenizer decides a dataset.
            task = named(build_data(workflow=workflow, start=next(iter(starts.values()))), "build-data", pods)
            built = task.outputs["dataset"]
            dataset = named(validate_data(workflow=workflow, built=built), "validate-data", pods).outputs["dataset"]
            plans = {
                stage: named(plan_data(workflow=workflow, stage=stage, dataset=dataset), plan_task(stage), pods)
                for own in stages.values()
                for stage in own
            }
            scores = []
            for arm, own in stages.items():
                checkpoint = starts[arm]
                for stage in own:
                    made = {"initial": checkpoint, "dataset": dataset, "plan": plans[stage].outputs["plan"]}
                    trained = named(train_stage(workflow=workflow, stage=stage, **made), train_task(stage), pods)
                    trained.after(*plans.values())  # every stage is planned before the first one asks for a GPU
                    checkpoint = trained.outputs["checkpoint"]
                given = {"start": starts[arm], "dataset": dataset, "checkpoint": checkpoint}
                scored = named(evaluate_arm(workflow=workflow, arm=arm, **given), f"evaluate-{arm}", pods)
                scores.append(scored.outputs["evaluation"])
            arms = {f"arm_{number}": one for number, one in enumerate(scores, 1)}
            named(compare_arms(workflow=workflow, dataset=dataset, **arms), "compare-arms", pods)

    return ablation
