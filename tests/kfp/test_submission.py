"""Submit, follow, read logs, cancel and retry on a real Kubeflow Pipelines server."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kfp.conftest import Pipelines, argo_retries, mlflow_states, wait_for
from tests.support.workflows import TASKS
from vl3.cli import submitted
from vl3.components.images import DATA
from vl3.errors import ConfigError
from vl3.launch.step_pods import find_step_pods
from vl3.pipelines.compile import compile_workflow, version_name
from vl3.pipelines.pod_names import pod_name
from vl3.pipelines.server import Server
from vl3.pipelines.submit import archived_log, cancel, find_run, follow, our_runs, submit
from vl3.pipelines.tasks import run_state, task_states

pytestmark = [pytest.mark.kfp, pytest.mark.slow, pytest.mark.timeout(5400)]


def _state_of(task: str) -> Callable[[Any], str]:
    return lambda run: {state.name: state.state for state in task_states(run)}[task]


def test_a_run_goes_to_its_end_and_again_reuses_everything(pipelines: Pipelines) -> None:
    submission = pipelines.submission()
    run, digest = submit(pipelines.server, submission)
    assert len(digest) == 64
    assert submit(pipelines.server, submission)[0].run_id == run.run_id, "an active run is not submitted twice"
    *_, ended = follow(pipelines.server, find_run(pipelines.server, submission.run_id))
    assert ended.state == "SUCCEEDED", submitted.status_of(pipelines.server, ended)
    states = {state.name: state for state in task_states(ended)}
    assert list(states) == TASKS
    assert {state.state for state in states.values()} == {"SUCCEEDED"}
    newest = {pod.task: pod for pod in find_step_pods(pipelines.client(), run.run_id)}
    assert {task: (pod.phase, pod.reason) for task, pod in newest.items()} == dict.fromkeys(TASKS, ("Succeeded", ""))
    assert {task: pod_name(ended, task) for task in TASKS} == {task: pod.name for task, pod in newest.items()}
    assert submission.run_id in [run.display_name for run in our_runs(pipelines.server, limit=100)]
    log = pipelines.log(ended, "finish")
    assert any("FINISHED" in line for line in log)
    assert pipelines.log(ended, "finish", follow=True) == log, "of a task that has ended, following is reading"
    own = list(archived_log(pipelines.server, ended, "finish"))
    assert own[: len(log)] == log, "the server knows the pod by the name that is derived"

    again, _ = submit(pipelines.server, submission)
    assert again.run_id != run.run_id
    *_, second = follow(pipelines.server, find_run(pipelines.server, submission.run_id))
    assert second.state == "SUCCEEDED"
    for task in ("validate-data", "train-video", "evaluate"):
        log = pipelines.log(second, task)
        assert any(f"{task} is reused" in line for line in log), log[-5:]


def test_a_cancelled_run_ends_and_goes_on_when_submitted_again(pipelines: Pipelines) -> None:
    submission = pipelines.submission("stages.vision_adaptation.steps=2000", "engine.checkpoint_every_steps=2")
    submit(pipelines.server, submission)
    state = _state_of("train-vision-adaptation")
    states = follow(pipelines.server, find_run(pipelines.server, submission.run_id))
    running = wait_for(states, lambda run: state(run) == "RUNNING")
    ended, was_active = cancel(pipelines.server, running, timeout_seconds=300)
    assert was_active
    assert (ended.state, run_state(ended)) == ("FAILED", "CANCELED"), "what the server says, and what is meant"
    before = ["check-prerequisites", "validate-data"]
    states_at_end = dict.fromkeys(TASKS, "SKIPPED") | dict.fromkeys(before, "SUCCEEDED") | {"finish": "SUCCEEDED"}
    assert {one.name: one.state for one in task_states(ended)} == states_at_end | {
        "train-vision-adaptation": "CANCELED"
    }
    listed = {run.run_id: run_state(run) for run in our_runs(pipelines.server, limit=100)}
    assert listed[ended.run_id] == "CANCELED", "the list has the history, too"
    assert cancel(pipelines.server, ended, timeout_seconds=1)[1] is False
    end = "\n".join(pipelines.log(ended, "finish"))
    assert f"run {submission.run_id}: KILLED" in end, "the exit handler runs after a cancel"
    if pipelines.mlflow:
        states_in_mlflow = mlflow_states(pipelines.mlflow, submission.run_id)
        assert states_in_mlflow["workflow"] == states_in_mlflow["train-vision-adaptation"] == "KILLED"
        assert states_in_mlflow["validate-data"] == "FINISHED"

    submit(pipelines.server, submission)
    states = follow(pipelines.server, find_run(pipelines.server, submission.run_id))
    again = wait_for(states, lambda run: state(run) == "RUNNING")
    log = pipelines.log(again, "validate-data")
    assert any("validate-data is reused" in line for line in log)


def test_the_servers_workflow_leaves_time_for_the_retries_of_a_long_step(pipelines: Pipelines) -> None:
    """Argo has the last word: what counts is in the Workflow that the server makes of the compiled file."""
    submission = pipelines.submission("model.vision_base=s3://no-such-bucket-of-ours/base")
    run, _ = submit(pipelines.server, submission)
    found = argo_retries(run.run_id)
    year = str(365 * 24 * 3600)
    assert found == Counter([("0", year), ("4", year), *[("2", year)] * (len(TASKS) - 2)])


def test_a_failed_run_is_reported_by_the_exit_handler_and_retried_with_the_same_id(pipelines: Pipelines) -> None:
    bad = pipelines.submission("model.vision_base=s3://no-such-bucket-of-ours/base")
    submit(pipelines.server, bad)
    *_, failed = follow(pipelines.server, find_run(pipelines.server, bad.run_id))
    states = {state.name: state for state in task_states(failed)}
    assert (failed.state, run_state(failed)) == ("FAILED", "FAILED")
    assert states["check-prerequisites"].state == "FAILED"
    assert {states[task].state for task in TASKS[1:-1]} == {"SKIPPED"}
    told = submitted.status_of(pipelines.server, failed)
    assert "no-such-bucket-of-ours" in told["tasks"][0]["text"], "the note outlives the exit handler"
    assert told["remarks"] == []
    tries = [pod for pod in find_step_pods(pipelines.client(), failed.run_id) if pod.task == "check-prerequisites"]
    assert [pod.reason for pod in tries] == ["its container main ended with exit code 1"], (
        "what no retry cures is not retried"
    )
    assert any("no-such-bucket-of-ours" in line for line in pipelines.log(failed, "check-prerequisites"))
    assert states["finish"].state == "SUCCEEDED"
    log = "\n".join(pipelines.log(failed, "finish"))
    assert f"run {bad.run_id}: FAILED in check-prerequisites" in log

    good = pipelines.submission(name=bad.run_id)
    submit(pipelines.server, good)
    *_, ended = follow(pipelines.server, find_run(pipelines.server, good.run_id))
    assert ended.state == "SUCCEEDED"


def test_a_step_that_cannot_start_is_told_with_the_clusters_reason(pipelines: Pipelines, tmp_path: Path) -> None:
    submission = pipelines.submission()
    ir, missing = tmp_path / "workflow.yaml", f"{DATA.partition(':')[0]}:no-such-tag"
    compile_workflow(submission.workflow, submission.parameters, ir)
    ir.write_text(ir.read_text(encoding="utf-8").replace(DATA, missing), encoding="utf-8")
    parameters = {"workflow": submission.parameters.to_dict()}
    run = pipelines.server.submit(
        ir, name=submission.run_id, experiment=submission.experiment, parameters=parameters, account=""
    )
    for now in follow(pipelines.server, run):
        task = submitted.status_of(pipelines.server, now)["tasks"][1]
        if "no-such-tag" in task["text"]:
            break
    assert (task["task"], task["state"]) == ("validate-data", "PENDING"), now.state
    assert task["text"].startswith("its container main cannot start: ")
    ended, _ = cancel(pipelines.server, now, timeout_seconds=300)
    assert run_state(ended) == "CANCELED"


def test_a_server_of_several_teams_asks_for_the_namespace(pipelines: Pipelines) -> None:
    if not pipelines.server.is_multi_user:
        pytest.skip("the server serves one team")
    with pytest.raises(ConfigError, match="set --namespace to yours"):
        Server(pipelines.server.endpoint, "", os.environ).runs()


def test_the_version_of_git_is_run_or_told_with_the_command(pipelines: Pipelines) -> None:
    """Either is right: whether `manifests/pipelines` was applied is the cluster's affair."""
    submission = pipelines.submission()
    try:
        run, digest = submit(pipelines.server, submission, is_from_git=True)
    except ConfigError as error:
        assert "kubectl apply -k manifests/pipelines" in str(error)  # noqa: PT017 - one of two right ends
        pytest.skip(f"the server has no version from git: {error}")
    name = version_name(submission.workflow, digest)
    assert name in [version.name for version in pipelines.server.versions("vl3-train")]
    found = pipelines.server.run(run.run_id)
    assert found.pipeline_version_reference.pipeline_version_id
    assert [state.name for state in task_states(found)] == TASKS


def test_what_is_not_there_is_refused(pipelines: Pipelines) -> None:
    with pytest.raises(ConfigError, match="is not known to"):
        find_run(pipelines.server, "vl3-test-never-submitted")
    with pytest.raises(ConfigError, match="is not known to"):
        find_run(pipelines.server, "00000000-0000-0000-0000-000000000000")


def test_the_log_of_a_running_task_is_followed_to_its_end(pipelines: Pipelines) -> None:
    submission = pipelines.submission()
    run, _ = submit(pipelines.server, submission)
    log = pipelines.log(run, "validate-data", follow=True)
    assert any("validate-data of run" in line for line in log)
    assert log == pipelines.log(run, "validate-data")
    cancel(pipelines.server, find_run(pipelines.server, run.run_id), timeout_seconds=300)
