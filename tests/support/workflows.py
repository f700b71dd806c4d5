"""The training workflow as the tests use it: compiled for the tiny recipe."""

from pathlib import Path

from vl3.config.parameters import WorkflowParameters
from vl3.pipelines.compile import compile_workflow
from vl3.pipelines.workflows import get_workflow
from vl3.recipes.catalog import get_recipe

TRAIN = get_workflow("train")
STAGES = list(get_recipe("tiny").stages)
TASKS = list(TRAIN.task_limits(get_recipe("tiny")))
"""Names of its tasks, in order."""


def compile_train(path: Path) -> None:
    """Write the compiled workflow."""
    compile_workflow(TRAIN, WorkflowParameters(recipe="tiny"), path)
