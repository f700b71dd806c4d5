"""What the cluster's MLflow server holds of a run."""

import json
from typing import Any
from urllib.request import Request, urlopen

from tests.support.cluster.reach import TRACKING_URI


def workflow_run(run_id: str) -> dict[str, Any]:
    """The workflow's own run on the MLflow server: status and tags."""
    experiments = _mlflow("experiments/search", {"max_results": 100})["experiments"]
    query = f"tags.`vl3.run_id` = '{run_id}' and tags.`vl3.kind` = 'workflow'"
    ids = [experiment["experiment_id"] for experiment in experiments]
    (run,) = _mlflow("runs/search", {"experiment_ids": ids, "filter": query})["runs"]
    return {"status": run["info"]["status"], **{tag["key"]: tag["value"] for tag in run["data"]["tags"]}}


def mlflow_run(run_id: str) -> dict[str, Any]:
    """A run by MLflow's own id."""
    with urlopen(f"{TRACKING_URI}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=30) as answer:
        return json.load(answer)["run"]


def _mlflow(call: str, body: dict[str, Any]) -> dict[str, Any]:
    url = f"{TRACKING_URI}/api/2.0/mlflow/{call}"
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)
