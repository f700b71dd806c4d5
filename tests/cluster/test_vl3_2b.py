"""The recipe vl3_2b on the cluster, from bases of the real formats and sizes with two blocks each: the whole chain.

Overrides say only how many steps and rows there are, where the stages run, what the data lack and how few samples are
asked. Widths, vocabulary (151,936 rows), precision, ZeRO stage, recomputation and limits are the recipe's own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.reach import REPOSITORY, S3_ENDPOINT, TRACKING_URI, Cluster
from tests.support.cluster.simulated import left_of
from tests.support.real_bases import split_corpus, text_sizes, upload, vision_sizes, write_qwen, write_siglip
from vl3.recipes.catalog import get_recipe
from vl3.store.objects import S3Connection, Store, open_store

pytestmark = [pytest.mark.full, pytest.mark.slow, pytest.mark.timeout(2 * 3600)]
STAGES = list(get_recipe("vl3_2b").stages)
_OF_STAGES = {
    "steps": "2",
    "epochs": "null",
    "samples_per_step": "null",
    "packs_per_step": "1",  # a row, whose length is the recipe's
    "packs_divisible_by": "1",
    "missing": "drop",  # of the recipe's 88 datasets the test has four
}
_PLACEMENT = {
    "pool": "cpu",
    "nodes": "1",
    "processes_per_node": "1",
    "gpus_per_node": "0",
    "gpu": "",
    "cpus_per_node": "1",
    # 358 million parameters on one rank whose device is the host: bf16 weights, fp32 masters, moments and gradients are
    # 6.5 GB, the copy for a checkpoint 4.3 GB, and activations of rows of up to 16,384 tokens the rest.
    "memory_gib": "17",
    "shm_gib": "1",
    "queue": "cpu",
    "max_retries": "0",
    "queue_timeout_seconds": "1800",
}
_REST = [
    "data.holdout_fraction=0",  # generated samples repeat themselves; the held-out ones are given
    "data.build_workers=1",
    "loader.processes=1",
    "launch.threads_per_process=2",
    "evaluation.samples_per_task=1",
    "evaluation.max_new_tokens=4",
    "evaluation.batch_size=1",
    "evaluation.processes=1",
    "promotion.gates.mean_accuracy.threshold=0",
    "promotion.gates.task_accuracy.threshold=0",
    "promotion.gates.mean_not_worse.threshold=1",
    "promotion.gates.no_regression.threshold=1",
]


@dataclass(frozen=True)
class Finished:
    """The run."""

    folder: Path
    record: dict[str, Any]
    store: Store

    def json_of(self, ending: str, task: str) -> list[dict[str, Any]]:
        """Every JSON object of a task whose key ends so."""
        keys = [key for key in self.store.list(f"steps/{task}") if key.endswith(ending)]
        return [json.loads(self.store.read(key) or b"") for key in keys]


@pytest.fixture(scope="module")
def quota(cluster: Cluster) -> Iterator[None]:
    """Most of the machine's memory for the queue, which small runs share otherwise."""

    def allow(memory: str) -> None:
        path = "/spec/resourceGroups/0/flavors/0/resources/1/nominalQuota"
        patch = json.dumps([{"op": "replace", "path": path, "value": memory}])
        cluster.kubectl("patch", "clusterqueue", "vl3-cpu", "--type", "json", "--patch", patch)

    allow(f"{_PLACEMENT['memory_gib']}Gi")
    yield
    allow("12Gi")


@pytest.fixture(scope="module")
def finished(cluster: Cluster, quota: None, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The chain from start to end: the steps here, the stages as TrainJobs, the bases from the cluster's own S3."""
    folder, root = tmp_path_factory.mktemp("vl3-2b"), f"s3://vl3/vl3-2b-{os.getpid()}"
    write_siglip(folder / "siglip", vision_sizes(), whole=True)
    write_qwen(folder / "qwen", text_sizes(), shards=2)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        for name in ("siglip", "qwen"):
            upload(folder / name, f"{root}/bases/{name}")
    overrides = [f"stages.{stage}.{field}={value}" for stage in STAGES for field, value in _OF_STAGES.items()]
    overrides += [f"placements.{stage}.{field}={value}" for stage in STAGES for field, value in _PLACEMENT.items()]
    overrides += [f"model.vision_base={root}/bases/siglip", f"model.language_base={root}/bases/qwen"]
    overrides += [*_REST, "launch.backend=trainjob", f"promotion.registered_model=vl3-2b-{os.getpid()}"]
    command = [sys.executable, "-m", "vl3.cli.main", "run", "start", "--recipe", "vl3_2b"]
    command += ["--data", str(split_corpus(corpus, folder / "corpus")), "--run", str(folder / "run")]
    command += ["--artifacts", f"{root}/artifacts", "--tracking", TRACKING_URI]
    done = subprocess.run(
        [*command, *(f"--set={one}" for one in overrides)],
        cwd=REPOSITORY,
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr}"
    connection = S3Connection(
        endpoint=cluster.environment.get("AWS_ENDPOINT_URL", S3_ENDPOINT),
        access_key=cluster.environment.get("AWS_ACCESS_KEY_ID"),
        secret_key=cluster.environment.get("AWS_SECRET_ACCESS_KEY"),
    )
    record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    return Finished(folder / "run", record, open_store(f"{root}/artifacts", connection))


def test_the_whole_chain_ends(finished: Finished) -> None:
    assert finished.record["state"] == "succeeded"
    assert {task["name"] for task in finished.record["tasks"] if task["state"] != "done"} == set()


def test_the_bases_came_into_the_store_once(finished: Finished) -> None:
    (vision,) = finished.json_of("/vision_base/manifest.json", "import-start")
    (language,) = finished.json_of("/language_base/manifest.json", "import-start")
    assert {"config.json", "model.safetensors"} <= vision["files"].keys()
    shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert {"tokenizer.json", "model.safetensors.index.json", *shards} <= language["files"].keys()


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_was_a_trainjob_that_did_its_steps(finished: Finished, stage: str) -> None:
    task = f"train-{stage}".replace("_", "-")
    log = (finished.folder / "logs" / f"{task}.log").read_text(encoding="utf-8")
    assert f"{task} is running: 1 of 1 pods run" in log
    assert "rank 0 INFO vl3.training: at step 0 of 2" in log
    (manifest,) = finished.json_of("/checkpoint/manifest.json", task)
    # Masters in fp32 are in two files, bf16 for release in one.
    weights = [file for name, file in manifest["files"].items() if name.endswith(".safetensors")]
    config = finished.store.read(next(k for k in finished.store.list(f"steps/{task}") if k.endswith("/config.json")))
    sizes = json.loads(config or b"")
    assert (sizes["vocab_size"], sizes["hidden_size"], sizes["num_hidden_layers"]) == (151_936, 1536, 2)
    assert (sizes["vision_encoder_config"]["hidden_size"], sizes["vision_encoder_config"]["num_hidden_layers"]) == (
        1152,
        2,
    )
    assert sum(file["size_bytes"] for file in weights) > 700e6


def test_nothing_is_left_in_the_cluster(finished: Finished, cluster: Cluster) -> None:
    assert left_of(cluster, [finished.record["run_id"]]) == []
