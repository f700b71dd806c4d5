"""Step: the scores of one arm of an ablation, before training and after each of its stages."""

from vl3.steps import evaluate
from vl3.workflow.step import Step

STEP = Step(
    libraries=evaluate.STEP.libraries,
    run=evaluate.run,
    key_parts=evaluate.key_parts,
    entries=(__name__, evaluate.__name__),
)
