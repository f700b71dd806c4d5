"""A small curation on a Ray cluster that Kueue admits: a worker killed once, the same bytes as in one process here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.corpus import make_corpus
from tests.support.cluster.reach import NAMESPACE, Cluster
from vl3.config.codec import to_dict
from vl3.config.curation import CurationConfig
from vl3.config.placement import CURATE
from vl3.curation.run import CurationPlace, curate, weight_folders
from vl3.launch.collect import cancel_run
from vl3.launch.job import BUILDING, LaunchJob
from vl3.launch.jobs.names import run_hash
from vl3.launch.rayjob.run import launch_rayjob
from vl3.pod.curate import CURATION_ENTRIES, SHARED_FILE
from vl3.recipes.curate_tiny import curate_tiny
from vl3.steps.import_scorers import weights_of
from vl3.store.artifacts import fetch, publish
from vl3.store.bases import base_folder, copy_model_files
from vl3.store.manifest import file_sha256
from vl3.store.objects import open_store
from vl3.system.files import atomic_write_json
from vl3.system.uris import file_uri
from vl3.workflow.code import code_version

pytestmark = [pytest.mark.timeout(1800), pytest.mark.full]


@pytest.fixture
def root(cluster: Cluster, new_run: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of its own in the cluster's bucket; this process reaches bucket and API server as a person does."""
    for name, value in cluster.environment.items():
        if name.startswith("AWS_") or name == "KUBECONFIG":
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", cluster.environment["KUBECONFIG"])
    return f"s3://vl3/{new_run('curation')}"


def on_two_workers() -> CurationConfig:
    recipe = curate_tiny()
    placement = replace(recipe.placements[CURATE], nodes=2, processes_per_node=1, cpus_per_node=0.5, memory_gib=3.0)
    return replace(recipe, placements={CURATE: placement}, part_images=128)


def published_scorers(root: str, config: CurationConfig, folder: Path) -> Any:
    uris = weights_of(config)
    for name, uri in uris.items():
        (folder / name).mkdir(parents=True)
        copy_model_files(base_folder(uri), folder / name)
    atomic_write_json(folder / SHARED_FILE, {name: name for name in uris})
    return publish(folder, f"{root}/scorers", kind="scorers", created_by={"step": "test"})


def test_a_curation_on_two_workers_outlives_one_and_has_the_bytes_of_a_local_one(
    cluster: Cluster, root: str, tmp_path: Path
) -> None:
    config = on_two_workers()
    corpus = make_corpus(tmp_path / "corpus", "--seed", "5", "--heldout", "8", "--scale", "0.1")
    store = open_store(f"{root}/data")
    for path in sorted(path for path in corpus.rglob("*") if path.is_file()):
        store.put_file(path, path.relative_to(corpus).as_posix())
    scorers = published_scorers(root, config, tmp_path / "scorers")
    there = CurationPlace(
        data_uri=f"{root}/data", work_uri=f"{root}/work/curation", scores_uri=f"{root}/curation-scores"
    )
    job = LaunchJob(
        name="curate-images",
        backend="rayjob",
        run_id=root,
        stage=CURATE,
        module="vl3.pod.curate",
        document={
            "config": to_dict(config),
            "data_uri": there.data_uri,
            "work_uri": there.work_uri,
            "scores_uri": there.scores_uri,
            "scorers": scorers.to_dict(),
            "code_version": code_version(CURATION_ENTRIES),
        },
        processes_per_node=1,
        threads_per_process=1,
        placement=config.placements[CURATE],
        log_path=tmp_path / "curate.log",
        events_path=tmp_path / "events.jsonl",
        failure_path=tmp_path / "failure.json",
        work_uri=f"{root}/work",
        words=BUILDING,
    )
    killed: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and event["done"] and not killed:
            query = f"vl3.dev/run={run_hash(root)},vl3.dev/role=worker"
            pods = cluster.get("pods", "--selector", query, "--field-selector", "status.phase=Running")
            name = sorted(pod["metadata"]["name"] for pod in pods)[0]
            cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")
            killed.append(name)

    result = launch_rayjob(job, tell)
    assert result.attempts == 1
    assert killed

    weights = fetch(scorers)
    found = {name: weights / name for name in weights_of(config)}
    here = CurationPlace(
        data_uri=f"{root}/data", work_uri=file_uri(tmp_path / "work"), scores_uri=file_uri(tmp_path / "scores")
    )
    made = {}
    for name, place in (("remote", there), ("local", here)):
        folders = weight_folders(config, found, place.data_uri, tmp_path / f"{name}-indexes")
        (tmp_path / name).mkdir()
        curate(config, place, folders, tmp_path / name)
        paths = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        made[name] = {path.relative_to(tmp_path / name).as_posix(): file_sha256(path) for path in paths}
    assert made["remote"] == made["local"]
    cancel_run(root)
