"""Step: plan one stage: which samples make which row of which step. Seconds on a CPU, before any GPU is asked for."""

from dataclasses import asdict
from typing import Any

from vl3.data.plan.facts import PlanFacts
from vl3.data.plan.of_run import plan_request
from vl3.data.plan.planner import plan_stage
from vl3.steps.datasets import fetch_indexes
from vl3.steps.request import Request, Work
from vl3.workflow.step import Step, StepOutcome


def run(work: Work) -> StepOutcome:
    """Plan the stage and publish the plan.

    Raises:
        DataError: no sample fits the stage's mixture and limits.
    """
    request = work.request
    with work.step_run() as step_run, work.fresh_folder("plan") as folder, work.fresh_folder("indexes") as indexes:
        work.progress(0, 1, "planning")
        datasets = fetch_indexes(request.inputs["dataset"], indexes)
        asked = plan_request(request.config, request.part, [*datasets])
        facts = plan_stage([*datasets.values()], folder, asked)
        step_run.log_params({"stage": request.part} | _numbers(facts))
        plan = work.publish(folder, "plan", kind="plan")
        work.progress(1, 1, f"{facts.steps} steps of {facts.packs_per_step} rows")
    work.clear()
    return StepOutcome(outputs={"plan": plan}, values={"stage": request.part} | facts.summary())


def key_parts(request: Request) -> dict[str, Any]:
    """What the plan is asked. Not the number of processes: a plan is the same for any."""
    return asdict(plan_request(request.config, request.part))


def _numbers(facts: PlanFacts) -> dict[str, Any]:
    """What is compared between runs."""
    return {
        "steps": facts.steps,
        "packs_per_step": facts.packs_per_step,
        "samples_per_step": round(facts.samples_per_step, 2),
        "samples": facts.samples,
        "fill": round(facts.fill.binding, 4),
    }


STEP = Step(libraries=("numpy", "pyarrow"), run=run, key_parts=key_parts)
