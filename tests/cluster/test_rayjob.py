"""A dataset built on two workers of a Ray cluster that Kueue admits: killed once, finished, the same bytes as here."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.corpus import make_corpus
from tests.support.cluster.reach import NAMESPACE, Cluster
from vl3.config.codec import to_dict
from vl3.config.placement import BUILD, PlacementConfig
from vl3.config.run import RunConfig
from vl3.data.build.of_run import build_for_run, build_units_for_run
from vl3.errors import DataError
from vl3.launch.collect import cancel_run
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.names import run_hash
from vl3.launch.rayjob.run import launch_rayjob
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.pod.build import BUILD_ENTRIES
from vl3.recipes.tiny import tiny
from vl3.store.artifacts import publish
from vl3.store.bases import base_folder
from vl3.store.manifest import file_sha256
from vl3.store.objects import open_store
from vl3.workflow.code import code_version

pytestmark = pytest.mark.timeout(1200)
TWO_WORKERS = PlacementConfig(
    pool="cpu",
    nodes=2,
    processes_per_node=1,
    gpus_per_node=0,
    cpus_per_node=0.5,
    memory_gib=2.5,
    shm_gib=0.5,
    queue="cpu",
    priority="vl3-normal",
    queue_timeout_seconds=600.0,
    max_retries=2,
)


@pytest.fixture
def config() -> RunConfig:
    """The small recipe, its build placed on two nodes."""
    recipe = tiny()
    return replace(recipe, placements={**recipe.placements, BUILD: TWO_WORKERS})


@pytest.fixture
def root(cluster: Cluster, new_run: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of its own in the cluster's bucket; this process reaches bucket and API server as a person does."""
    for name, value in cluster.environment.items():
        if name.startswith("AWS_") or name == "KUBECONFIG":
            monkeypatch.setenv(name, value)
    # an earlier test may have imported the client, which reads KUBECONFIG only then
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", cluster.environment["KUBECONFIG"])
    return f"s3://vl3/{new_run('rayjob')}"


def job_of(root: str, config: RunConfig, folder: Path, data_uri: str) -> LaunchJob:
    """The job as the step `build_data` launches it, with what a run would have published before it."""
    start = folder / "start"
    start.mkdir()
    (start / TOKENIZER_FILE).write_bytes((base_folder(config.model.language_base) / TOKENIZER_FILE).read_bytes())
    reference = publish(start, f"{root}/start", kind="start", created_by={"step": "test", "key": "0", "run": "test"})
    document = {
        "config": to_dict(config),
        "data_uri": data_uri,
        "work_uri": f"{root}/work/dataset",
        "start": reference.to_dict(),
        "identity": "test",
        "code_version": code_version(BUILD_ENTRIES),
    }
    return LaunchJob(
        name="build-data",
        backend="rayjob",
        run_id=root,
        stage=BUILD,
        module="vl3.pod.build",
        document=document,
        processes_per_node=1,
        threads_per_process=1,
        placement=config.placements[BUILD],
        log_path=folder / "build.log",
        events_path=folder / "events.jsonl",
        failure_path=folder / "failure.json",
        work_uri=f"{root}/work",
    )


def workers_of(cluster: Cluster, job: LaunchJob) -> list[str]:
    """The workers that run."""
    query = f"vl3.dev/run={run_hash(job.run_id)},vl3.dev/role=worker"
    pods = cluster.get("pods", "--selector", query, "--field-selector", "status.phase=Running")
    return sorted(pod["metadata"]["name"] for pod in pods)


def test_a_build_on_two_workers_outlives_one_and_has_the_bytes_of_a_local_one(
    cluster: Cluster, config: RunConfig, root: str, tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "corpus", "--seed", "5", "--heldout", "8", "--scale", "0.25")
    store = open_store(f"{root}/data")
    for path in sorted(corpus.rglob("*")):
        if path.is_file():
            store.put_file(path, path.relative_to(corpus).as_posix())
    job = job_of(root, config, tmp_path, f"{root}/data")
    seen: list[dict[str, Any]] = []
    killed: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        seen.append(event)
        if event["type"] == "progress" and 0 < event["done"] < event["total"] and not killed:
            before = workers_of(cluster, job)
            assert len(before) == 2
            cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", before[0], "--grace-period=0", "--force")
            killed.append(before[0])

    started = time.monotonic()
    result = launch_rayjob(job, tell)
    seconds = time.monotonic() - started
    assert result.attempts == 1, "a lost worker costs its unit and no attempt"
    assert killed
    progress = [event for event in seen if event["type"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] > 1000
    states = [event["state"] for event in seen if event["type"] == "state"]
    assert states[0] == "queued"
    assert states[-1] == "complete"
    print(f"{progress[-1]['total']} samples in {seconds:.0f} s, of which {result.seconds_queued:.0f} s queued")

    made = [key for key in open_store(f"{root}/work/dataset").list() if key.endswith("/unit.json")]
    folder, tokenizer_folder = tmp_path / "finished", base_folder(config.model.language_base)
    folder.mkdir()
    shards = build_units_for_run(
        f"{root}/data", f"{root}/work/dataset", folder, config, tokenizer_folder=tokenizer_folder, identity="test"
    )
    assert len(made) == len(shards) > 8, "the step found every unit made"
    build_for_run(corpus, tmp_path / "local", config, tokenizer_folder=tokenizer_folder, identity="test")
    local = {path.name: file_sha256(path) for path in sorted((tmp_path / "local").iterdir())}
    remote = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    remote |= {name: shard.entry.sha256 for name, shard in shards.items()}
    assert remote == local
    assert [name.rpartition("-")[2] for name in cancel_run(root)] == ["1"]
    assert workers_of(cluster, job) == []


def test_a_build_that_fails_says_why_in_its_family(
    cluster: Cluster, config: RunConfig, root: str, tmp_path: Path
) -> None:
    (tmp_path / "annotations.jsonl").write_text(json.dumps({"id": "0"}))
    open_store(f"{root}/data").put_file(tmp_path / "annotations.jsonl", "elsewhere.jsonl")
    job = job_of(root, config, tmp_path, f"{root}/data")
    with pytest.raises(DataError, match="annotations"):
        launch_rayjob(job, lambda event: None)
    assert cluster.get("rayjobs", "--selector", f"vl3.dev/run={run_hash(root)}") == []
    assert workers_of(cluster, job) == []
