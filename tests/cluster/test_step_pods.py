"""Every task of the compiled workflow as its pod on the real worker, one after the other, to the end of the run.

Each starts under Pod Security "restricted" with the requests of its recipe, and finds S3, MLflow and the API server:
the steps do their real work, at two steps a stage.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.executor import artifact_path, ended, executor_pod
from tests.support.cluster.reach import NAMESPACE, S3_ENDPOINT, Cluster
from tests.support.cluster.simulated import jobs_of, left_of, wait_until
from tests.support.cluster.tracked import workflow_run
from tests.support.workflows import STAGES, TASKS, TRAIN
from vl3.config.parameters import WorkflowParameters
from vl3.pipelines.compile import compile_workflow
from vl3.pipelines.pod_settings import settings_of
from vl3.pipelines.wiring import read_wiring
from vl3.recipes.catalog import get_recipe
from vl3.store.objects import S3Connection, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
POD_SECONDS = 900.0
RUN_ID = f"pods-{time.time_ns():x}"
OVERRIDES = (
    *(f"stages.{stage}.steps=2" for stage in STAGES),
    "evaluation.samples_per_task=1",
    "promotion.gates.mean_accuracy.threshold=0",
    "promotion.gates.task_accuracy.threshold=0",
    "promotion.gates.mean_not_worse.threshold=1",
    "promotion.gates.no_regression.threshold=1",
    f"promotion.registered_model=vl3-{RUN_ID}",
    "launch.backend=trainjob",
)


@dataclass(frozen=True)
class Ran:
    """A task's pod after its end."""

    pod: dict[str, Any]
    log: str


def _claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }


def _upload(folder: Path, uri: str, environment: dict[str, str]) -> None:
    keys = (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    store = open_store(uri, S3Connection(endpoint=S3_ENDPOINT, access_key=keys[0], secret_key=keys[1]))
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_file(path, path.relative_to(folder).as_posix())


@pytest.fixture(scope="module")
def ran(cluster: Cluster, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ran]]:
    """The pod of each task that ran, in the workflow's order; a task that failed is the last."""
    parameters = WorkflowParameters(
        recipe="tiny",
        overrides=OVERRIDES,
        data_uri=f"s3://vl3/{RUN_ID}/data",
        artifacts_uri=f"s3://vl3/{RUN_ID}/artifacts",
        tracking_uri="http://mlflow:5000",
        run_id=RUN_ID,
    )
    _upload(corpus, parameters.data_uri, cluster.environment)
    ir = tmp_path_factory.mktemp("ir") / "train.yaml"
    compile_workflow(TRAIN, parameters, ir)
    cluster.apply(_claim(RUN_ID))
    found: dict[str, Ran] = {}
    try:
        for task in read_wiring(next(yaml.safe_load_all(ir.read_text(encoding="utf-8")))):
            given: dict[str, Any] = {"workflow": parameters.to_dict()}
            if task.part:
                given["stage"] = task.part
            if task.name == "finish":
                given["status"] = {"state": "SUCCEEDED", "pipelineTaskName": "exit-handler-1", "error": {}}
            inputs = {name: artifact_path(*source) for name, source in task.inputs.items()}
            pod = executor_pod(ir, task.name, f"{RUN_ID}-{task.name}", given, inputs=inputs, claim=RUN_ID)
            cluster.apply(pod)
            found[task.name] = _wait(cluster, pod["metadata"]["name"])
            if found[task.name].pod["status"]["phase"] == "Failed":
                break
        yield found
    finally:
        cluster.kubectl("--namespace", NAMESPACE, "delete", "pods", "--ignore-not-found", *_pods(cluster))
        cluster.kubectl("--namespace", NAMESPACE, "delete", "pvc", RUN_ID, "--wait=false")
        if jobs := jobs_of(cluster, RUN_ID):
            cluster.kubectl("--namespace", NAMESPACE, "delete", "trainjobs", *(job["metadata"]["name"] for job in jobs))


def _pods(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.get("pods") if pod["metadata"]["name"].startswith(RUN_ID)]


def _wait(cluster: Cluster, name: str) -> Ran:
    wait_until(lambda: ended(cluster, name), f"the end of {name}", POD_SECONDS)
    pod = json.loads(cluster.kubectl("--namespace", NAMESPACE, "get", "pod", name, "--output", "json"))
    return Ran(pod, cluster.kubectl("--namespace", NAMESPACE, "logs", name))


@pytest.mark.parametrize("task", TASKS)
def test_a_step_s_pod_starts_restricted_with_its_requests_and_does_its_work(ran: dict[str, Ran], task: str) -> None:
    assert task in ran, f"not reached: {list(ran)[-1]} failed"
    pod, log = ran[task].pod, ran[task].log
    assert pod["status"]["phase"] == "Succeeded", log[-3000:]
    assert pod["spec"]["nodeName"] == "vl3-worker"
    (container,) = pod["spec"]["containers"]
    size = getattr(get_recipe("tiny").step_pods, settings_of(task).role)
    memory = f"{size.memory_gib:g}Gi"
    assert container["resources"]["requests"] == {"cpu": "1" if size.cpus == 1 else "100m", "memory": memory}
    assert container["resources"]["limits"] == {"cpu": "2", "memory": memory}
    (status,) = pod["status"]["containerStatuses"]
    assert status["restartCount"] == 0
    assert container["securityContext"]["runAsUser"] == 65532


def test_the_stages_ran_as_trainjobs_beside_their_launchers(ran: dict[str, Ran]) -> None:
    for task in (task for task in TASKS if task.startswith("train-")):
        assert f"{task} is running" in ran[task].log


def test_the_run_ends_with_a_verdict_and_leaves_no_job(ran: dict[str, Ran], cluster: Cluster) -> None:
    run = workflow_run(RUN_ID)
    assert run["status"] == "FINISHED"
    assert run["vl3.state"] == "FINISHED"
    assert left_of(cluster, [RUN_ID]) == []
