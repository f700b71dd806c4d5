"""The compiled exit handler on the cluster, without Kubeflow Pipelines: its pod as the compiled workflow has it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster.executor import ended, executor_pod
from tests.support.cluster.reach import NAMESPACE, TRACKING_URI, Cluster
from tests.support.cluster.simulated import Launcher, jobs_of, wait_until
from tests.support.cluster.tracked import mlflow_run, workflow_run
from tests.support.workflows import compile_train
from vl3.config.parameters import WorkflowParameters
from vl3.tracking.runs import Tracker
from vl3.workflow.failures import note_failure, noted_failures

OVERRIDES = ["launch.backend=trainjob"]


@pytest.fixture
def finish(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Runs the compiled exit handler of a run with the state that it is told; returns its log."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.setenv(name, cluster.environment[name])
    compile_train(tmp_path / "train.yaml")

    def run(run_id: str, state: str) -> str:
        status = {"state": state, "pipelineTaskName": "exit-handler-1", "error": {}}
        given = {"workflow": _parameters(run_id).to_dict(), "status": status}
        cluster.apply(executor_pod(tmp_path / "train.yaml", "finish", run_id, given))
        try:
            phase = wait_until(lambda: ended(cluster, run_id), "the exit handler's pod ends", 180)
            log = cluster.kubectl("--namespace", NAMESPACE, "logs", run_id)
            assert phase == "Succeeded", log[-3000:]
            return log
        finally:
            cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", run_id, "--wait=false")

    return run


def _artifacts(run_id: str) -> str:
    return f"s3://vl3/tests/{run_id}"


def _parameters(run_id: str) -> WorkflowParameters:
    return WorkflowParameters(
        recipe="tiny",
        overrides=tuple(OVERRIDES),
        data_uri="s3://vl3/data",
        artifacts_uri=_artifacts(run_id),
        tracking_uri="http://mlflow:5000",
        run_id=run_id,
    )


@pytest.fixture
def left_job(cluster: Cluster, launcher: Launcher, new_run: Callable[[str], str]) -> Callable[[str], str]:
    """A run whose launcher was killed while its job ran, as KFP does: it does not wait for the step. Its id."""

    def leave(name: str) -> str:
        run_id = new_run(name)
        launch = launcher.start(run_id, placement={"processes_per_node": 1, "gpus_per_node": 1})
        wait_until(lambda: "running" in launch.states(), "the job runs", 120)
        launch.kill()
        assert len(jobs_of(cluster, run_id)) == 1
        return run_id

    return leave


@pytest.mark.slow
def test_the_exit_handler_frees_what_a_killed_launcher_left_and_names_the_failed_task(
    cluster: Cluster, left_job: Callable[[str], str], finish: Callable[[str, str], str]
) -> None:
    run_id = left_job("finish")
    note_failure(_artifacts(run_id), run_id, task="train-video", family="ClusterError", message="the node was lost")
    log = finish(run_id, "FAILED")
    assert jobs_of(cluster, run_id) == []
    assert "deleted 1 TrainJobs and waited until their GPUs were free: vl3-" in log
    run = workflow_run(run_id)
    assert (run["status"], run["vl3.failed_task"]) == ("FAILED", "train-video")
    assert run["vl3.error"] == "ClusterError: the node was lost"
    assert [note.message for note in noted_failures(_artifacts(run_id), run_id)] == ["the node was lost"]


@pytest.mark.slow
def test_after_a_cancel_the_exit_handler_frees_the_gpus_and_the_runs_are_killed(
    cluster: Cluster, left_job: Callable[[str], str], finish: Callable[[str, str], str]
) -> None:
    """A server tells it RUNNING, because the killed steps have reported nothing."""
    run_id = left_job("cancel")
    step = _killed_step(run_id)
    log = finish(run_id, "RUNNING")
    assert jobs_of(cluster, run_id) == []
    assert "deleted 1 TrainJobs and waited until their GPUs were free: vl3-" in log
    run = workflow_run(run_id)
    assert (run["status"], run["vl3.state"], run["vl3.failed_task"]) == ("KILLED", "KILLED", "")
    assert mlflow_run(step)["info"]["status"] == "KILLED"


def _killed_step(run_id: str) -> str:
    """The open MLflow run of a step that was killed, as the step opens it; returns MLflow's id."""
    tracker = Tracker(TRACKING_URI, "vl3-tiny", run_id, run_id)
    step = tracker.open_step("train-video", "key").run_id
    assert mlflow_run(step)["info"]["status"] == "RUNNING"
    return step
