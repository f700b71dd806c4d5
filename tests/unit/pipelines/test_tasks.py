"""The states of a run and of its tasks, from a real server's descriptions."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import pytest
import yaml

from tests.support.pipelines_server import recorded_run
from tests.support.workflows import TASKS, compile_train
from vl3.pipelines.tasks import run_parameters, run_state, task_states

NEVER = "0001-01-01T00:00:00Z"
LATER = {name for name in TASKS if name in ("import-start", "build-data") or name.startswith("plan-")}
"""Tasks that the workflow did not have yet when the server's answers were recorded."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The workflow as kfp's client submits it."""
    path = tmp_path_factory.mktemp("ir") / "train.yaml"
    compile_train(path)
    pipeline, platform = yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))
    return {"pipeline_spec": pipeline, "platform_spec": platform}


def _read(run: dict[str, Any]) -> Any:
    """A description as kfp's client hands it out."""
    return kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(run)), "V2beta1Run")


def _states(run: dict[str, Any]) -> dict[str, str]:
    return {task.name: task.state for task in task_states(_read(run))}


def _history(*states: str) -> list[dict[str, str]]:
    return [{"state": state, "update_time": f"2026-01-01T00:0{minute}:00Z"} for minute, state in enumerate(states)]


def _node(name: str, state: str | None, *, start: int = 0, end: int | None = 9) -> dict[str, Any]:
    """A node at work from and to a minute of the same hour."""
    ended = NEVER if end is None else f"2026-01-01T00:0{end}:00Z"
    node = {"display_name": name, "start_time": f"2026-01-01T00:0{start}:00Z", "end_time": ended}
    return node if state is None else node | {"state": state}


def _run(spec: dict[str, Any], *nodes: dict[str, Any], history: tuple[str, ...] = ("PENDING", "RUNNING")) -> Any:
    return {
        "run_id": "1",
        "display_name": "r",
        "pipeline_spec": spec,
        "state": history[-1],
        "state_history": _history(*history),
        "run_details": {"task_details": list(nodes)},
    }


def test_a_run_that_has_just_begun_waits_in_the_workflows_order(spec: dict[str, Any]) -> None:
    states = _states(recorded_run("failing-just-submitted", spec))
    assert list(states) == TASKS
    assert set(states.values()) == {"WAITING"}


def test_what_comes_after_a_failed_task_is_skipped_and_the_exit_handler_awaited(spec: dict[str, Any]) -> None:
    run = recorded_run("failing-exit-handler-at-work", spec)
    assert run_state(_read(run)) == "RUNNING"
    states = _states(run)
    recorded = [name for name in TASKS if name not in LATER]
    skipped = dict.fromkeys(recorded[1:-1], "SKIPPED")
    assert {name: states[name] for name in recorded} == {
        "check-prerequisites": "FAILED",
        **skipped,
        "finish": "WAITING",
    }


def test_a_failed_run(spec: dict[str, Any]) -> None:
    run = recorded_run("failing-failed", spec)
    assert run_state(_read(run)) == "FAILED"
    skipped = dict.fromkeys(TASKS[1:-1], "SKIPPED")
    assert _states(run) == {"check-prerequisites": "FAILED", **skipped, "finish": "SUCCEEDED"}


def test_a_task_that_waits_for_its_image_runs_for_the_server(spec: dict[str, Any]) -> None:
    states = _states(recorded_run("step-cannot-be-pulled", spec))
    assert [states[name] for name in ("check-prerequisites", "validate-data", "evaluate")] == [
        "SUCCEEDED",
        "RUNNING",
        "WAITING",
    ]


def test_a_cancelled_run_and_the_task_at_work_are_cancelled(spec: dict[str, Any]) -> None:
    run = recorded_run("cancelled", spec)
    assert run["state"] == "FAILED"
    assert run_state(_read(run)) == "CANCELED"
    skipped = dict.fromkeys(TASKS[1:-1], "SKIPPED")
    expected = {**skipped, "check-prerequisites": "SUCCEEDED", "validate-data": "CANCELED", "finish": "SUCCEEDED"}
    assert _states(run) == expected


CANCELLED = ("PENDING", "RUNNING", "CANCELING", "FAILED")  # the cancel is in minute 2


@pytest.mark.parametrize(
    ("node", "state"),
    [
        (_node("validate-data", "FAILED", start=1, end=2), "CANCELED"),
        (_node("validate-data", "FAILED", start=0, end=1), "FAILED"),
        (_node("validate-data", "FAILED", start=3, end=4), "FAILED"),
        (_node("validate-data", "RUNNING", start=1, end=None), "CANCELED"),
        (_node("validate-data", "SUCCEEDED", start=1, end=3), "SUCCEEDED"),
        (_node("validate-data", "PENDING", start=1, end=None), "SKIPPED"),
        (_node("validate-data", None, start=3, end=3), "SKIPPED"),
        (_node("validate-data-driver", "FAILED", start=1, end=3), "CANCELED"),
    ],
)
def test_only_what_was_at_work_at_the_cancel_is_cancelled(spec: dict[str, Any], node: Any, state: str) -> None:
    assert _states(_run(spec, node, history=CANCELLED))["validate-data"] == state


def test_an_exit_handler_that_fails_after_the_cancel_has_failed(spec: dict[str, Any]) -> None:
    run = _run(spec, _node("finish", "FAILED", start=3, end=4), history=CANCELLED)
    assert _states(run)["finish"] == "FAILED"


def test_a_task_that_still_runs_while_the_run_is_being_cancelled(spec: dict[str, Any]) -> None:
    run = _run(spec, _node("validate-data", "RUNNING", start=1, end=None), history=CANCELLED[:-1])
    assert run_state(_read(run)) == "CANCELING"
    assert _states(run)["validate-data"] == "RUNNING"


@pytest.mark.parametrize(
    ("history", "state"),
    [
        (CANCELLED, "CANCELED"),
        ((*CANCELLED[:-1], "SUCCEEDED"), "SUCCEEDED"),
        ((*CANCELLED, "RUNNING", "FAILED"), "FAILED"),
        ((*CANCELLED, "RUNNING", "CANCELING", "FAILED"), "CANCELED"),
        (("PENDING", "FAILED"), "FAILED"),
        (("CANCELED",), "CANCELED"),
    ],
)
def test_a_run_counts_as_cancelled_until_it_is_retried(spec: dict[str, Any], history: Any, state: str) -> None:
    assert run_state(_read(_run(spec, history=history))) == state


def test_stages_are_told_apart_by_their_keys_and_twins_do_not_count(spec: dict[str, Any]) -> None:
    states = _states(
        _run(
            spec,
            _node("train-stage(0)", "FAILED"),
            _node("train-stage-2(0)", "SUCCEEDED"),
            _node("train-stage", "RUNNING", end=None),
            _node("train-stage-2", "FAILED"),
            _node("train-stage-driver", "SUCCEEDED"),
            _node("executor", "FAILED"),
            _node("train-stage-4(1)", "RUNNING"),
        )
    )
    stages = [name for name in TASKS if name.startswith("train-")]
    assert [states[name] for name in stages] == ["RUNNING", "FAILED", "WAITING", "WAITING"]


def test_a_task_whose_driver_failed_has_failed(spec: dict[str, Any]) -> None:
    """Such a task has no state, as if it had not been its turn."""
    run = _run(spec, _node("evaluate-driver", "FAILED"), _node("evaluate", None))
    (task,) = (one for one in task_states(_read(run)) if one.name == "evaluate")
    assert (task.state, task.text) == ("FAILED", "its driver failed, the pod in which Kubeflow Pipelines prepares it")


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_nothing_waits_in_a_run_that_has_ended(spec: dict[str, Any], state: str) -> None:
    run = _run(spec, _node("report", "PENDING", end=None), history=("RUNNING", state))
    assert {_states(run)[name] for name in ("report", "evaluate")} == {"SKIPPED"}


def test_a_run_without_details_or_parameters() -> None:
    run = SimpleNamespace(display_name="r", state="PENDING", pipeline_spec=None, run_details=None, runtime_config=None)
    assert task_states(run) == []
    assert run_parameters(run) == {}
