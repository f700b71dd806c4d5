"""The wiring that the compiled workflow itself holds."""

import importlib

import pytest
import yaml

from tests.conftest import GOLDEN
from vl3.pipelines.wiring import read_wiring
from vl3.workflow.preview import TaskWiring


@pytest.fixture(scope="module")
def tasks() -> dict[str, TaskWiring]:
    text = (GOLDEN / "pipelines" / "train.yaml").read_text(encoding="utf-8")
    return {task.name: task for task in read_wiring(next(yaml.safe_load_all(text)))}


def test_tasks_come_after_those_they_take_from(tasks: dict[str, TaskWiring]) -> None:
    names = list(tasks)
    assert (names[0], names[-1]) == ("check-prerequisites", "finish")
    for task in tasks.values():
        assert all(names.index(maker) < names.index(task.name) for maker, _ in task.inputs.values())


def test_stages_form_a_chain(tasks: dict[str, TaskWiring]) -> None:
    first, second = tasks["train-vision-adaptation"], tasks["train-alignment"]
    assert (first.step, first.part) == ("train_stage", "vision_adaptation")
    assert first.inputs == {
        "dataset": ("validate-data", "dataset"),
        "initial": ("import-start", "start"),
        "plan": ("plan-vision-adaptation", "plan"),
    }
    assert (tasks["plan-alignment"].step, tasks["plan-alignment"].part) == ("plan_data", "alignment")
    assert second.inputs["initial"] == ("train-vision-adaptation", "checkpoint")
    assert (tasks["evaluate"].step, tasks["evaluate"].part) == ("evaluate", "")
    assert tasks["report"].inputs["promotion"] == ("promote", "promotion")


def test_all_stages_are_planned_before_one_is_trained(tasks: dict[str, TaskWiring]) -> None:
    words = [name.partition("-")[0] for name in tasks if name.startswith(("plan-", "train-"))]
    assert words == ["plan"] * 4 + ["train"] * 4


def test_every_task_names_a_step(tasks: dict[str, TaskWiring]) -> None:
    for task in tasks.values():
        assert importlib.import_module(f"vl3.steps.{task.step}").STEP
