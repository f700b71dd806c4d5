"""A real Kubeflow Pipelines server, named by VL3_TEST_KFP_ENDPOINT; without one these tests are skipped.

What the server's cluster must hold is what docs/submission.md says: the namespace's settings and secrets, the images,
the launcher's rights, and a bucket with the data of the tiny recipe. More variables name them. Pods and their logs are
read with the kubeconfig.
"""

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

import pytest

from vl3.cli.step_logs import log_lines
from vl3.config.parameters import WorkflowParameters
from vl3.launch.kube.client import Client
from vl3.launch.kube.connection import connect
from vl3.launch.kube.resources import Resource
from vl3.pipelines.server import Server
from vl3.pipelines.submission import Submission, make_submission
from vl3.pipelines.submit import cancel, find_run
from vl3.pipelines.tasks import ENDED

SMALL = (
    *(f"stages.{stage}.steps=2" for stage in ("vision_adaptation", "alignment", "multitask", "video")),
    "evaluation.samples_per_task=2",
    "promotion.gates.mean_accuracy.threshold=0",
    "promotion.gates.task_accuracy.threshold=0",
)
"""Overrides that make the tiny recipe a matter of minutes."""


@dataclass
class Pipelines:
    """The server, and the runs that a test has submitted to it."""

    server: Server
    data: str
    artifacts: str
    tracking: str
    mlflow: str
    """Address of that MLflow server from here; empty if it cannot be reached from here."""
    submitted: list[str] = field(default_factory=list)

    def submission(self, *overrides: str, name: str = "") -> Submission:
        """A small run with a unique id."""
        run_id = name or f"vl3-test-{secrets.token_hex(4)}"
        self.submitted.append(run_id)
        parameters = WorkflowParameters(
            recipe="tiny",
            overrides=(*SMALL, *overrides),
            data_uri=self.data,
            artifacts_uri=f"{self.artifacts}/{run_id}",
            tracking_uri=self.tracking,
            run_id=run_id,
        )
        return make_submission("train", parameters)

    def client(self) -> Client:
        """The API server of the kubeconfig's cluster, where the server's pods run."""
        return Client(connect(self.server.namespace or None))

    def log(self, run: Any, task: str, *, follow: bool = False) -> list[str]:
        """The log of a task's latest attempt, as `vl3 run logs` prints it."""
        return list(log_lines(self.server, run.run_id, task, self.server.namespace or None, follow=follow))

    def end(self, run_id: str) -> None:
        """Leave nothing of a test's run at work."""
        for run in self.server.runs(run_id):
            if run.state not in ENDED:
                cancel(self.server, find_run(self.server, run.run_id), timeout_seconds=300)


def _variable(name: str, what: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        pytest.skip(f"{name} is not set: it names {what}")
    return value


@pytest.fixture
def pipelines() -> Iterator[Pipelines]:
    endpoint = _variable("VL3_TEST_KFP_ENDPOINT", "a Kubeflow Pipelines server, 2.17 or newer")
    data = _variable("VL3_TEST_KFP_DATA", "the tiny recipe's data, s3://bucket/folder")
    artifacts = _variable("VL3_TEST_KFP_ARTIFACTS", "where test runs may write, s3://bucket/folder")
    server = Server(endpoint, os.environ.get("VL3_KFP_NAMESPACE", ""), os.environ)
    tracking, mlflow = (os.environ.get(f"VL3_TEST_KFP_{name}", "") for name in ("TRACKING", "MLFLOW"))
    known = Pipelines(server, data, artifacts, tracking, mlflow)
    yield known
    for run_id in known.submitted:
        known.end(run_id)


def wait_for(states: Iterator[Any], condition: Any) -> Any:
    """The first state of a run that meets a condition.

    Raises:
        AssertionError: the run ended before.
    """
    for run in states:
        if condition(run):
            return run
    raise AssertionError(f"the run ended as {run.state} before")


def argo_retries(server_id: str) -> Counter[tuple[str, str]]:
    """How often tasks of a run's Argo Workflow have which number of retries and longest time in seconds.

    Args:
        server_id: the server's own id of the run.
    """
    workflows = Resource("apis/argoproj.io/v1alpha1", "workflows")
    client = Client(connect(os.environ.get("VL3_KFP_NAMESPACE") or None))
    (workflow,) = client.list(workflows, labelSelector=f"pipeline/runid={server_id}")["items"]
    names = ("retry-max-count", "retry-backoff-max-duration")
    tasks = [task for template in workflow["spec"]["templates"] for task in template.get("dag", {}).get("tasks", [])]
    given = [{one["name"]: one.get("value", "") for one in task["arguments"].get("parameters", [])} for task in tasks]
    found = [tuple(values[name] for name in names) for values in given if set(names) <= set(values)]
    return Counter(pair for pair in found if not any("{{" in text for text in pair))


def mlflow_states(address: str, run_id: str) -> dict[str, str]:
    """The states of a run and its steps in MLflow, by the step's name; `workflow` is the run itself."""
    experiments = _mlflow(address, "experiments/search", {"max_results": 1000})["experiments"]
    ids = [experiment["experiment_id"] for experiment in experiments]
    query = {"experiment_ids": ids, "filter": f"tags.`vl3.run_id` = '{run_id}'", "max_results": 100}
    states = {}
    for run in _mlflow(address, "runs/search", query).get("runs", []):
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        states[tags.get("vl3.step", "workflow")] = run["info"]["status"]
    return states


def _mlflow(address: str, call: str, body: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps(body).encode()
    request = Request(f"{address}/api/2.0/mlflow/{call}", content, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)
