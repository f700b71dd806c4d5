"""The states of a run's tasks, from a server's answers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support.workflows import TASKS, compile_train
from vl3.errors import ConfigError
from vl3.pipelines.tasks import pod_of, run_parameters, task_states


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The workflow as kfp's client submits it."""
    path = tmp_path_factory.mktemp("ir") / "train.yaml"
    compile_train(path)
    pipeline, platform = yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))
    return {"pipeline_spec": pipeline, "platform_spec": platform}


def _detail(name: str, state: str, pod: str = "", children: tuple[str, ...] = (), error: str = "") -> Any:
    return SimpleNamespace(
        display_name=name,
        state=state,
        pod_name=pod,
        child_tasks=[SimpleNamespace(pod_name=child) for child in children],
        error=SimpleNamespace(message=error) if error else None,
    )


def _run(spec: dict[str, Any], *details: Any) -> Any:
    return SimpleNamespace(
        display_name="r", pipeline_spec=spec, run_details=SimpleNamespace(task_details=list(details))
    )


def test_all_tasks_are_named_in_the_workflows_order(spec: dict[str, Any]) -> None:
    states = task_states(_run(spec))
    assert [state.name for state in states] == TASKS
    assert {state.state for state in states} == {"WAITING"}


def test_nodes_are_found_by_their_key_in_the_compiled_workflow(spec: dict[str, Any]) -> None:
    run = _run(
        spec,
        _detail("validate-data", "SUCCEEDED"),
        _detail("train-stage-2", "FAILED", error="exit code 1"),
        _detail("train-stage-driver", "SUCCEEDED"),
    )
    states = {state.name: state for state in task_states(run)}
    assert states["validate-data"].state == "SUCCEEDED"
    assert (states["train-alignment"].state, states["train-alignment"].error) == ("FAILED", "exit code 1")
    assert states["train-vision-adaptation"].state == "WAITING"


def test_the_pod_of_a_task_is_its_executors(spec: dict[str, Any]) -> None:
    """Children are named by node ids, pods with their template's name in between; the hash at the end is one."""
    run = _run(
        spec,
        _detail("evaluate-driver", "SUCCEEDED", "wf-system-container-driver-11", ("wf-22",)),
        _detail("evaluate", "RUNNING", "wf-system-container-executor-22", ("wf-33",)),
        _detail("executor", "RUNNING", "wf-retry-33", ("wf-44", "wf-55")),
        _detail("executor(0)", "FAILED", "wf-system-container-impl-44", ("wf-66",)),
        _detail("executor(1)", "RUNNING", "wf-system-container-impl-55"),
        _detail("promote-driver", "PENDING", "wf-system-container-driver-66"),
    )
    assert pod_of(run, "evaluate") == "wf-system-container-impl-55"
    assert {state.name: state.pods for state in task_states(run)}["evaluate"] == (
        "wf-system-container-impl-44",
        "wf-system-container-impl-55",
    )


def test_an_executor_without_retries_is_the_pod_itself(spec: dict[str, Any]) -> None:
    run = _run(
        spec,
        _detail("check-prerequisites", "RUNNING", "wf-a-1", ("wf-2",)),
        _detail("executor", "RUNNING", "wf-system-container-impl-2"),
    )
    assert pod_of(run, "check-prerequisites") == "wf-system-container-impl-2"


def test_a_task_that_is_not_there_or_has_not_begun_is_explained(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"has no task 'train'\. Its tasks: check-prerequisites, validate-data, "):
        pod_of(_run(spec), "train")
    with pytest.raises(ConfigError, match=r"task report of run r has no pod yet \(WAITING\)"):
        pod_of(_run(spec), "report")


def test_a_run_without_details_or_parameters() -> None:
    run = SimpleNamespace(display_name="r", pipeline_spec=None, run_details=None, runtime_config=None)
    assert task_states(run) == []
    assert run_parameters(run) == {}
