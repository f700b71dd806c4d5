"""Step: let Great Expectations judge the decisions and datasets of a curation before anything is trained on them."""

from typing import Any

from vl3.config.curation import CurationConfig
from vl3.store.artifacts import fetch
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Judge, and pass the curation on; the validation report is published for a refused one, too.

    Raises:
        DataError: it is refused; the message lists what is wrong.
    """
    from vl3.validation.curation import validate_curation

    made = work.request.inputs["made"]
    with work.step_run() as step_run, work.fresh_folder("validation") as folder:
        work.progress(0, 1, "judging the decisions")
        result = validate_curation(fetch(made), work.request.config, folder)
        report = work.publish(folder, "validation", kind="validation-report")
        step_run.log_metrics([(0, {"checks_failed": float(len(result.critical))})])
        result.require_passed()
    work.clear()
    return StepOutcome(outputs={"curation": made, "validation": report}, values=result.facts)


def key_parts(request: StepRequest[CurationConfig]) -> dict[str, Any]:
    """The thresholds that the decisions are compared with."""
    steps = request.config.steps
    return {
        "steps": {name: [one.column, one.minimum, one.maximum, list(one.allowed)] for name, one in steps.items()},
        "datasets": sorted(request.config.datasets),
        "max_failed_fraction": request.config.max_failed_fraction,
    }


STEP = Step(libraries=("pyarrow", "great-expectations"), run=run, key_parts=key_parts)
