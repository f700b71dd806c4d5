"""The compiled exit handler on the cluster: its pod as the compiled workflow asks for it, without Kubeflow Pipelines.

What KFP would make of the task (container, environment, volumes, identity) is made here from the compiled workflow, so
the image, the settings' names and Pod Security are the real ones.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.support.cluster.reach import NAMESPACE, TRACKING_URI, Cluster
from tests.support.cluster.simulated import Launcher, jobs_of, wait_until
from tests.support.workflows import compile_train
from vl3.config.parameters import WorkflowParameters
from vl3.tracking.runs import Tracker
from vl3.workflow.failures import note_failure, noted_failures

OVERRIDES = ["launch.backend=trainjob"]


def executor_pod(ir: Path, task: str, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The pod of a task without artifacts, as KFP's driver and launcher would run it."""
    spec, platform = yaml.safe_load_all(ir.read_text(encoding="utf-8"))
    container = spec["deploymentSpec"]["executors"][f"exec-{task}"]["container"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{task}"]
    given = {"inputs": {"parameterValues": parameters}, "outputs": {"outputFile": "/tmp/output.json"}}
    texts = {"{{$}}": json.dumps(given), "{{$.inputs.parameters['executor_input']}}": json.dumps(given)}
    identity = {
        key: int(value) if key != "runAsNonRoot" else value for key, value in settings["securityContext"].items()
    }
    volumes = [
        *(
            {"name": item["volumeName"], "emptyDir": {}, "path": item["mountPath"]}
            for item in settings["emptyDirMounts"]
        ),
        *(
            {"name": "ca", "configMap": {"name": item["configMapName"], "optional": True}, "path": item["mountPath"]}
            for item in settings["configMapAsVolume"]
        ),
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": settings["podMetadata"]["labels"]},
        "spec": {
            "serviceAccountName": "vl3-launcher",
            "automountServiceAccountToken": True,  # as in pipeline-runner and default-editor
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "imagePullPolicy": settings["imagePullPolicy"],
                    "command": container["command"],
                    "args": [texts.get(text, text) for text in container["args"]],
                    "env": [*_environment(settings, "configMapAsEnv"), *_environment(settings, "secretAsEnv")],
                    "volumeMounts": [{"name": item["name"], "mountPath": item["path"]} for item in volumes],
                    "securityContext": {
                        **identity,
                        "readOnlyRootFilesystem": True,
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
            "volumes": [{key: value for key, value in item.items() if key != "path"} for item in volumes],
        },
    }


def _environment(settings: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    reference, name, key = (
        ("configMapKeyRef", "configMapName", "configMapKey")
        if kind == "configMapAsEnv"
        else ("secretKeyRef", "secretName", "secretKey")
    )
    return [
        {
            "name": item["envVar"],
            "valueFrom": {reference: {"name": group[name], "key": item[key], "optional": group["optional"]}},
        }
        for group in settings[kind]
        for item in group["keyToEnv"]
    ]


def workflow_run(run_id: str) -> dict[str, Any]:
    """The workflow's own run on the MLflow server: status and tags."""
    experiments = _mlflow("experiments/search", {"max_results": 100})["experiments"]
    query = f"tags.`vl3.run_id` = '{run_id}' and tags.`vl3.kind` = 'workflow'"
    ids = [experiment["experiment_id"] for experiment in experiments]
    (run,) = _mlflow("runs/search", {"experiment_ids": ids, "filter": query})["runs"]
    return {"status": run["info"]["status"], **{tag["key"]: tag["value"] for tag in run["data"]["tags"]}}


def _mlflow(call: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{TRACKING_URI}/api/2.0/mlflow/{call}"
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


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
            phase = wait_until(lambda: _ended(cluster, run_id), "the exit handler's pod ends", 180)
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
    assert noted_failures(_artifacts(run_id), run_id) == []


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
    assert _mlflow_run(step)["info"]["status"] == "KILLED"


def _killed_step(run_id: str) -> str:
    """The open MLflow run of a step that was killed, as the step opens it; returns MLflow's id."""
    tracker = Tracker(TRACKING_URI, "vl3-tiny", run_id, run_id)
    step = tracker.open_step("train-video", "key").run_id
    assert _mlflow_run(step)["info"]["status"] == "RUNNING"
    return step


def _mlflow_run(run_id: str) -> dict[str, Any]:
    with urlopen(f"{TRACKING_URI}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=30) as answer:
        return json.load(answer)["run"]


def _ended(cluster: Cluster, pod: str) -> str:
    phase = cluster.kubectl("--namespace", NAMESPACE, "get", "pod", pod, "--output", "jsonpath={.status.phase}")
    return phase if phase in ("Succeeded", "Failed") else ""
