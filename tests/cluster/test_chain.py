"""The four stages as TrainJobs on the real worker: promoted, and equal to a local run bit for bit."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.corpus import make_corpus
from tests.support.cluster.reach import KUBECONFIG, KUBECTL, NAMESPACE, REPOSITORY, S3_ENDPOINT, TRACKING_URI, Cluster
from tests.support.cluster.simulated import left_of
from tests.support.workflows import STAGES
from vl3.launch.jobs.names import run_hash
from vl3.store.objects import S3Connection, Store, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
_FEW_STEPS = [
    *(f"stages.{stage}.steps=6" for stage in STAGES),
    "evaluation.samples_per_task=2",
    "promotion.gates.mean_accuracy.threshold=0",
    "promotion.gates.task_accuracy.threshold=0",
    "promotion.gates.mean_not_worse.threshold=1",
    "promotion.gates.no_regression.threshold=1",
]


@dataclass(frozen=True)
class Finished:
    """A run that went to its end."""

    record: dict[str, Any]
    folder: Path
    store: Store
    seconds: float

    def weights(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each stage's weight files, from the manifests that the stages published."""
        found = {}
        for stage in STAGES:
            folder = f"steps/train-{stage}".replace("_", "-")
            (manifest,) = (key for key in self.store.list(folder) if key.endswith("/checkpoint/manifest.json"))
            copy = self.folder / f"{stage}.json"
            self.store.get_file(manifest, copy)
            files = json.loads(copy.read_text(encoding="utf-8"))["files"]
            found[stage] = {name: file["sha256"] for name, file in files.items() if name.endswith(".safetensors")}
        return found


def _run(folder: Path, data: Path, overrides: list[str], environment: dict[str, str], *options: str) -> Finished:
    started = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vl3.cli.main", "run", "start", "--data", data, "--run", folder, *options),
            *(f"--set={one}" for one in overrides),
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr}"
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    store = open_store(record["parameters"]["artifacts_uri"], _connection(environment))
    return Finished(record, folder, store, time.monotonic() - started)


def _connection(environment: dict[str, str]) -> S3Connection:
    return S3Connection(
        endpoint=environment.get("AWS_ENDPOINT_URL", S3_ENDPOINT),
        access_key=environment.get("AWS_ACCESS_KEY_ID"),
        secret_key=environment.get("AWS_SECRET_ACCESS_KEY"),
    )


@contextmanager
def _progress_followed(file: Path) -> Iterator[None]:
    """Write a line `TrainJob percentage` each time that one changes: the jobs are gone afterwards."""
    line = r'jsonpath={.metadata.name} {.status.trainerStatus.progressPercentage}{"\n"}'
    command = [KUBECTL, "--kubeconfig", KUBECONFIG, "--namespace", NAMESPACE, "get", "trainjobs", "--watch"]
    with file.open("w") as output, subprocess.Popen([*command, "--output", line], stdout=output) as watch:
        try:
            yield
        finally:
            watch.terminate()


@pytest.fixture(scope="module", params=["few-steps", pytest.param("recipe", marks=pytest.mark.full)])
def runs(
    request: pytest.FixtureRequest, cluster: Cluster, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Finished, Finished]:
    """The same workflow on the cluster and on this machine."""
    folder = tmp_path_factory.mktemp("chain")
    overrides, data = _FEW_STEPS, corpus
    if request.param == "recipe":
        overrides, data = [], make_corpus(folder / "data", "--seed", "0")
    model = f"promotion.registered_model=vl3-chain-{os.getpid()}-{request.param}"
    with _progress_followed(folder / "cluster-progress.txt"):
        placed = _run(
            folder / "cluster",
            data,
            [*overrides, model, "launch.backend=trainjob"],
            cluster.environment,
            *("--artifacts", f"s3://vl3/chain-{os.getpid()}-{request.param}", "--tracking", TRACKING_URI),
        )
    local = _run(folder / "local", data, [*overrides, model], dict(os.environ))
    return placed, local


def test_the_chain_goes_through_its_gates(runs: tuple[Finished, Finished], request: pytest.FixtureRequest) -> None:
    placed, _ = runs
    assert placed.record["state"] == "succeeded"
    verdict = json.loads((placed.folder / "report" / "report.json").read_text(encoding="utf-8"))["verdict"]
    if "recipe" in request.node.name:
        assert verdict == {"state": "champion", "reason": "every gate passed"}
    else:  # a few steps teach nothing, and the gates say so
        assert verdict == {"state": "refused", "reason": "gates not passed: beats_chance"}


def test_weights_equal_the_local_run_bit_for_bit(runs: tuple[Finished, Finished]) -> None:
    placed, local = runs
    weights = placed.weights()
    assert weights == local.weights()
    assert [len(files) for files in weights.values()] == [1, 1, 1, 1]


def test_the_first_stage_ran_as_two_pods_that_met_by_dns(runs: tuple[Finished, Finished]) -> None:
    placed, _ = runs
    log = (placed.folder / "logs" / "train-vision-adaptation.log").read_text(encoding="utf-8")
    assert "train-vision-adaptation is running: 2 of 2 pods run" in log
    assert "rank 0 INFO vl3.training: at step 0 of" in log


def test_each_trainjob_s_status_shows_its_progress(runs: tuple[Finished, Finished]) -> None:
    placed, _ = runs
    lines = (placed.folder.parent / "cluster-progress.txt").read_text(encoding="utf-8").splitlines()
    name = f"vl3-{run_hash(placed.record['run_id'])}-"
    seen = {job: int(percent) for job, percent in (line.split() for line in lines if len(line.split()) == 2)}
    complete = {f"{name}{stage}-1".replace("_", "-"): 100 for stage in STAGES}
    assert {job: percent for job, percent in seen.items() if job.startswith(name)} == complete


def test_a_run_leaves_nothing_in_the_cluster(runs: tuple[Finished, Finished], cluster: Cluster) -> None:
    placed, _ = runs
    assert left_of(cluster, [placed.record["run_id"]]) == []
