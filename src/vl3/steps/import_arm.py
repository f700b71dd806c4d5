"""Step: what one arm of an ablation starts from, as `import_start` does for a run of its own."""

from vl3.steps import import_start
from vl3.workflow.step import Step

STEP = Step(run=import_start.run, key_parts=import_start.key_parts, entries=(__name__, import_start.__name__))
