"""Names of pods, derived from what a real server said of its runs, and the names that they had."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support.workflows import TASKS, compile_train
from vl3.pipelines.pod_names import pod_name

RECORDED = Path(__file__).parents[2] / "kfp" / "recorded"
PODS = json.loads((RECORDED / "pods-of-both-runs.json").read_text())["items"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The workflow as kfp's client submitted it for the recorded runs."""
    path = tmp_path_factory.mktemp("ir") / "train.yaml"
    compile_train(path)
    pipeline, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    steps = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    steps["check-prerequisites"].pop("retryPolicy", None)  # it had none then
    return {"pipeline_spec": pipeline, "platform_spec": platform}


def recorded_run(moment: str, spec: dict[str, Any]) -> Any:
    text = (RECORDED / f"run-{moment}.json").read_text()
    run = json.loads(text, object_hook=lambda item: SimpleNamespace(**{"child_tasks": None, **item}))
    run.pipeline_spec = spec
    return run


def recorded_names(run: Any) -> dict[str, str]:
    """Names of the pods of a recorded run's steps."""
    ours = {pod["metadata"]["labels"].get("vl3.dev/task"): pod["metadata"] for pod in PODS
            if pod["metadata"]["labels"]["pipeline/runid"] == run.run_id}  # fmt: skip
    return {task: metadata["name"] for task, metadata in ours.items() if task}


@pytest.mark.parametrize("moment", ["failing-failed", "step-cannot-be-pulled", "cancelled"])
def test_derived_names_are_those_of_the_recorded_pods(spec: dict[str, Any], moment: str) -> None:
    run = recorded_run(moment, spec)
    names = recorded_names(run)
    assert len(names) == 2
    assert {task: pod_name(run, task) for task in names} == names


def test_what_never_ran_has_no_pod(spec: dict[str, Any]) -> None:
    run = recorded_run("failing-failed", spec)
    assert {task for task in TASKS if pod_name(run, task)} == {"check-prerequisites", "finish"}
    assert pod_name(run, "no-such-task") == ""
    assert not any(pod_name(recorded_run("failing-just-submitted", spec), task) for task in TASKS)


def run_with(spec: dict[str, Any], *hashes: int) -> Any:
    children = [SimpleNamespace(pod_name=f"wf-{number}") for number in hashes]
    detail = SimpleNamespace(child_tasks=children)
    return SimpleNamespace(pipeline_spec=spec, run_details=SimpleNamespace(task_details=[detail]))


def graph(**task: Any) -> dict[str, Any]:
    """A workflow of one task."""
    component = {"executorLabel": "exec-a", **task.pop("component", {})}
    tasks = {"a": {"componentRef": {"name": "comp-a"}, **task}}
    return {"root": {"dag": {"tasks": tasks}}, "components": {"comp-a": component}}


def test_without_retries_by_default_and_without_labels_names_are_shorter() -> None:
    """Hashes of `wf.root.a.executor` and of `wf.root.a.executor(0)`, `(1)`, as Argo computes them."""
    plain, first, second = 3581945770, 2882514513, 3486655892
    assert pod_name(run_with(graph(), plain), "a") == f"wf-system-container-impl-{plain}"
    retried = run_with(graph(retryPolicy={}), plain, first)
    assert pod_name(retried, "a") == f"wf-retry-system-container-impl-{first}"
    again = run_with(graph(retryPolicy={}), plain, first, second)
    assert pod_name(again, "a") == f"wf-retry-system-container-impl-{second}"


def test_a_description_without_graph_or_nodes_has_no_names() -> None:
    for run in (
        SimpleNamespace(pipeline_spec=None, run_details=None),
        run_with({}, 1),
        run_with(graph()),
        run_with(graph(), 1),
    ):
        assert pod_name(run, "a") == ""
