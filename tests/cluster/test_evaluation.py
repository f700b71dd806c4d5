"""The tiny model evaluated by two pods of a TrainJob that Kueue admits: one killed, the same result as here."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.corpus import make_corpus
from tests.support.cluster.reach import NAMESPACE, Cluster
from tests.support.evaluations import IDENTITY, evaluation_job, make_checkpoint, publish_inputs
from vl3.config.placement import EVALUATION, PlacementConfig
from vl3.config.run import RunConfig
from vl3.data.build.of_run import build_for_run
from vl3.evaluation.asking import Questions
from vl3.evaluation.candidates import EvaluatedModel
from vl3.evaluation.items import items_path, read_items
from vl3.evaluation.journal import read_answers
from vl3.evaluation.runner import evaluate_models, write_evaluation
from vl3.launch.collect import cancel_run
from vl3.launch.job import EVALUATING, LaunchJob
from vl3.launch.jobs.names import run_hash
from vl3.launch.trainjob.run import launch_trainjob
from vl3.recipes.tiny import tiny
from vl3.store.bases import base_folder

pytestmark = pytest.mark.timeout(1800)
TWO_PODS = PlacementConfig(
    pool="cpu",
    nodes=2,
    processes_per_node=1,
    gpus_per_node=0,
    cpus_per_node=0.6,
    memory_gib=3.0,
    shm_gib=0.5,
    queue="cpu",
    priority="vl3-normal",
    queue_timeout_seconds=600.0,
    max_retries=2,
)


@pytest.fixture
def config() -> RunConfig:
    """The small recipe, its evaluation placed on two pods."""
    recipe = tiny()
    return replace(recipe, placements={**recipe.placements, EVALUATION: TWO_PODS})


@pytest.fixture
def root(cluster: Cluster, new_run: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of its own in the cluster's bucket; this process reaches bucket and API server as a person does."""
    for name, value in cluster.environment.items():
        if name.startswith("AWS_") or name == "KUBECONFIG":
            monkeypatch.setenv(name, value)
    # an earlier test may have imported the client, which reads KUBECONFIG only then
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", cluster.environment["KUBECONFIG"])
    return f"s3://vl3/{new_run('evaluation')}"


def pods_of(cluster: Cluster, run_id: str) -> list[str]:
    """The pods that run."""
    query = f"vl3.dev/run={run_hash(run_id)}"
    pods = cluster.get("pods", "--selector", query, "--field-selector", "status.phase=Running")
    return sorted(pod["metadata"]["name"] for pod in pods)


def test_two_pods_of_which_one_is_killed_give_the_local_result(
    cluster: Cluster, config: RunConfig, root: str, tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "corpus", "--seed", "5", "--heldout", "40", "--scale", "0.02")
    dataset = tmp_path / "dataset"
    language = base_folder(config.model.language_base)
    build_for_run(corpus.as_uri(), dataset, config, tokenizer_folder=language, identity="test")
    checkpoint = make_checkpoint(tmp_path / "checkpoint", config)
    inputs = publish_inputs(root, config, dataset, checkpoint, tmp_path / "made")
    job = evaluation_job(root, config, inputs)
    launched = LaunchJob(
        name="evaluate",
        backend="trainjob",
        run_id=root,
        stage=EVALUATION,
        module="vl3.evaluation.worker",
        document=asdict(job),
        processes_per_node=1,
        threads_per_process=1,
        placement=TWO_PODS,
        packs_per_step=None,
        log_path=tmp_path / "evaluation.log",
        events_path=tmp_path / "events.jsonl",
        failure_path=tmp_path / "failure.json",
        work_uri=job.work_uri,
        words=EVALUATING,
    )
    killed: list[str] = []

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "progress" and 0 < event["done"] < event["total"] and not killed:
            running = pods_of(cluster, root)
            assert len(running) == 2
            cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", running[-1], "--grace-period=0", "--force")
            killed.append(running[-1])

    began = time.monotonic()
    result = launch_trainjob(launched, tell)
    assert killed
    assert result.attempts >= 1
    answers = read_answers(job.work_uri, IDENTITY)
    questions = Questions.of_dataset(dataset, config)
    models = [EvaluatedModel(name="before", folder=None), EvaluatedModel(name="video", folder=checkpoint)]
    write_evaluation(models, answers, questions, config, out_folder=tmp_path / "cluster")
    evaluate_models(models, dataset, config, out_folder=tmp_path / "local")
    assert (tmp_path / "cluster" / "evaluation.json").read_bytes() == (tmp_path / "local/evaluation.json").read_bytes()
    for model in ("before", "video"):
        there, here = (read_items(items_path(tmp_path / one, model, "heldout")) for one in ("cluster", "local"))
        assert [replace(item, seconds=0.0) for item in there] == [replace(item, seconds=0.0) for item in here]
    print(f"{2 * len(questions.rows)} answers in {time.monotonic() - began:.0f} s, {result.attempts} attempts")
    assert cancel_run(root)
