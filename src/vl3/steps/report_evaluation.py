"""Step: the report of a run that evaluates a model: the training report without what only training fills."""

from vl3.steps import report
from vl3.workflow.step import Step

STEP = Step(
    entries=("vl3.steps.report_evaluation", "vl3.report.page"),
    run=report.run,
    key_parts=report.key_parts,
    on_reuse=report.STEP.on_reuse,
)
