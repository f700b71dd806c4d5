"""Each image at its work: the steps as KFP starts them, a stage of training, an evaluation, the tracking server."""

import dataclasses
import json
import shutil
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.roles import ROOT
from tests.images.conftest import DATA, Containers
from tests.support.benchmarks import build
from vl3.config.codec import to_dict
from vl3.config.overrides import apply_overrides
from vl3.config.placement import BENCHMARKS
from vl3.config.run import RunConfig
from vl3.evaluation.catalogue.copies import make_copy
from vl3.evaluation.catalogue.entry import read_benchmarks
from vl3.evaluation.items import items_path, read_items
from vl3.evaluation.job import EvaluationJob
from vl3.pod.sources import EVALUATION_ENTRIES, TRAINING_ENTRIES
from vl3.recipes.catalog import get_recipe
from vl3.store.artifacts import find, publish
from vl3.store.reference import Reference, read_reference
from vl3.training.job import StageJob
from vl3.workflow.code import code_version

TRACKING_URI = "http://mlflow:5000"
OVERRIDES = (
    "data.build_workers=1",
    "evaluation.samples_per_task=2",
    "evaluation.processes=1",
    "launch.processes_per_node=1",
    "stages.vision_adaptation.steps=3",
    "engine.log_every_steps=1",
)
LIGHT_STEPS = """
import os, sys
import vl3.steps.check_prerequisites, vl3.steps.finish, vl3.steps.promote, vl3.steps.report, vl3.steps.train_stage
import vl3.launch.check.cluster, vl3.report.page
import kubernetes.client, minio, mlflow.tracking
assert "torch" not in sys.modules and "sqlalchemy" not in sys.modules
"""
DOWNLOAD = f"""
import os, pathlib, sys
sys.path.insert(0, "{DATA}")
from hub_server import hub_server

model = pathlib.Path("/tmp/model")
model.mkdir()
(model / "config.json").write_text("{{}}")
(model / "model.safetensors").write_bytes(bytes(3_000_000))
with hub_server() as hub:
    hub.models["owner/model", "main"] = model
    os.environ["HF_ENDPOINT"] = hub.endpoint
    from vl3.store.bases import base_folder
    folder = base_folder("hf://owner/model")
print({{path.name: path.stat().st_size for path in sorted(folder.iterdir())}})
"""
EVALUATE = """
import json, pathlib, sys
from vl3.config.codec import from_dict
from vl3.config.run import RunConfig
from vl3.evaluation.runner import EvaluatedModel, evaluate_models

if __name__ == "__main__":
    config = from_dict(RunConfig, json.loads(sys.argv[1]))
    after = EvaluatedModel(name="after", folder=pathlib.Path(sys.argv[2]))
    models = [EvaluatedModel(name="before", folder=None), after]
    result = evaluate_models(models, pathlib.Path(sys.argv[3]), config, out_folder=pathlib.Path(sys.argv[4]))
    print(json.dumps([[model.name, model.mean_accuracy] for model in result.models]))
"""


@pytest.fixture(scope="session")
def config() -> RunConfig:
    return apply_overrides(get_recipe("tiny"), OVERRIDES)


@pytest.fixture(scope="session")
def mlflow_server(containers: Containers) -> str:
    """MLflow's server on SQLite, as the image starts it."""
    store = ("--backend-store-uri", "sqlite:////tmp/mlflow.db", "--artifacts-destination", "/tmp/artifacts")
    command = ("python", "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1", *store)
    containers.serve("mlflow", "mlflow", *command, "--allowed-hosts", "mlflow:5000")
    probe = "import sys, urllib.request as u; sys.exit(u.urlopen(sys.argv[1] + '/health').read() != b'OK')"
    deadline = time.monotonic() + 240
    while containers.run("base", "python", "-c", probe, TRACKING_URI).returncode:
        assert time.monotonic() < deadline, containers.logs("mlflow")
        time.sleep(1)
    return TRACKING_URI


def step_command(name: str, parameters: dict[str, object], *, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Any:
    """The command of a step's container, as the compiled pipeline has it, with its files in the shared folder."""
    compiled = next(yaml.safe_load_all((ROOT / "tests/golden/pipelines/train.yaml").read_text(encoding="utf-8")))
    container = compiled["deploymentSpec"]["executors"][f"exec-{name}"]["container"]

    def artifacts(names: tuple[str, ...]) -> dict[str, object]:
        kind = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
        return {one: {"artifacts": [{"name": one, "type": kind, "uri": f"{DATA}/{one}"}]} for one in names}

    executor_input = {
        "inputs": {"parameterValues": parameters, "artifacts": artifacts(inputs)},
        "outputs": {"artifacts": artifacts(outputs), "outputFile": f"{DATA}/{name}.json"},
    }
    arguments = [argument.replace("{{$}}", json.dumps(executor_input)) for argument in container["args"]]
    return [*container["command"], *arguments]


def workflow(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "recipe": "tiny",
        "overrides": list(OVERRIDES),
        "data_uri": f"file://{DATA}/corpus",
        "artifacts_uri": f"file://{DATA}/artifacts",
        "tracking_uri": TRACKING_URI,
        "run_id": "images-test",
    }
    return {"workflow": values | changes}


def here(containers: Containers, reference: Reference) -> Path:
    """A published artifact's folder on this machine."""
    path = urllib.parse.urlsplit(reference.uri).path
    return containers.folder / Path(path).relative_to(DATA)


@pytest.fixture(scope="session")
def dataset(containers: Containers, mlflow_server: str) -> Reference:
    """A small corpus, built and validated by the steps in their image."""
    sample = ("--seed", "0", "--heldout", "2", "--scale", "0.02", "--workers", "1")
    containers.output("data", "vl3", "data", "sample", "--out", f"{DATA}/corpus", *sample)
    result = containers.run("data", *step_command("import-start", workflow(), inputs=(), outputs=("start",)))
    assert result.returncode == 0, result.stderr[-4000:]
    for name, made, taken in (
        ("build-data", ("dataset",), "start"),
        ("validate-data", ("dataset", "validation"), "built"),
    ):
        result = containers.run("data", *step_command(name, workflow(), inputs=(taken,), outputs=made))
        assert result.returncode == 0, result.stderr[-4000:]
        shutil.copy(containers.folder / "dataset", containers.folder / "built")
    return read_reference(containers.folder / "dataset")


@pytest.fixture(scope="session")
def plan(containers: Containers, dataset: Reference) -> Reference:
    """The plan of the first stage, made by the step in its image."""
    parameters = workflow() | {"stage": "vision_adaptation"}
    result = containers.run("data", *step_command("plan-data", parameters, inputs=("dataset",), outputs=("plan",)))
    assert result.returncode == 0, result.stderr[-4000:]
    return read_reference(containers.folder / "plan")


@pytest.fixture(scope="session")
def trained(containers: Containers, dataset: Reference, plan: Reference, config: RunConfig) -> list[dict[str, Any]]:
    """Events of the first stage, trained for three steps by the pod's own command."""
    job = StageJob(
        config=to_dict(config),
        stage_order=list(config.stages),
        stage="vision_adaptation",
        dataset=dataset.to_dict(),
        plan=plan.to_dict(),
        initial_model=read_reference(containers.folder / "start").to_dict(),
        work_uri=f"file://{DATA}/work",
        output_uri=f"file://{DATA}/model",
        created_by={"step": "train-vision-adaptation"},
        made_from={},
        code_version=code_version(TRAINING_ENTRIES),
        commit="",
        events_path="",
        failure_path="",
    )
    lines = run_pod(containers, "trainer", job).splitlines()
    return [json.loads(line.removeprefix("vl3-event ")) for line in lines if line.startswith("vl3-event ")]


POD = ("python", "-m", "vl3.pod.entry", "--termination-log", "/tmp/termination")


def run_pod(containers: Containers, role: str, job: StageJob | EvaluationJob) -> str:
    """What the only pod of a job prints, started with the variables that Trainer sets."""
    rendezvous = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": "0", "PET_MASTER_PORT": "29400"}
    environment = {"VL3_JOB": json.dumps(dataclasses.asdict(job)), "PET_MASTER_ADDR": "localhost"} | rendezvous
    result = containers.run(role, *POD, environment=environment)
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-8000:]
    return printed


def inside(reference: Reference | None, name: str) -> dict[str, Any]:
    """A reference to an artifact of the shared folder, as containers know it."""
    assert reference is not None
    return reference.to_dict() | {"uri": f"file://{DATA}/{name}"}


def test_launcher_imports_the_light_steps_and_offers_the_commands(containers: Containers) -> None:
    containers.output("launcher", "python", "-c", LIGHT_STEPS)
    help_text = containers.output("launcher", "vl3", "--help")
    assert "Train, promote and evaluate" in help_text
    requirements = containers.output("launcher", "sh", "-c", 'cat "$VL3_TRAINER_REQUIREMENTS"')
    assert requirements == (ROOT / "images/trainer/requirements.txt").read_text(encoding="utf-8")


def test_data_downloads_a_base_from_a_hub(containers: Containers) -> None:
    shutil.copy(ROOT / "tests/support/hub_server.py", containers.folder)
    printed = containers.output("data", "python", "-c", DOWNLOAD, environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    assert printed == "{'config.json': 2, 'model.safetensors': 3000000}\n"


def test_launcher_runs_the_prerequisites_and_names_all_that_is_missing(
    containers: Containers, mlflow_server: str
) -> None:
    changes = workflow(overrides=["launch.backend=trainjob"], data_uri=f"file://{DATA}/nothing")
    result = containers.run("launcher", *step_command("check-prerequisites", changes, inputs=(), outputs=()))
    assert result.returncode != 0
    assert "/data/nothing: the data folder does not exist" in result.stderr
    assert "Set ARTIFACTS=s3://bucket/prefix" in result.stderr
    assert "libraries are not installed" not in result.stderr


def test_data_builds_and_validates_a_corpus(containers: Containers, dataset: Reference) -> None:
    folder = here(containers, dataset)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["samples"] == summary["lines"] > 0
    validation = here(containers, read_reference(containers.folder / "validation"))
    assert json.loads((validation / "validation.json").read_text())["passed"] is True


def test_trainer_trains_a_stage_to_its_published_weights(containers: Containers, trained: list[dict[str, Any]]) -> None:
    assert [event["step"] for event in trained if event["type"] == "metrics"] == [1, 2, 3]
    assert trained[-1]["type"] == "end"
    assert (containers.folder / "model" / "model.safetensors").stat().st_size > 1_000_000


def test_trainer_refuses_a_pod_without_a_job_in_one_line(containers: Containers) -> None:
    result = containers.run("trainer", *POD)
    assert result.returncode == 2
    assert "VL3_JOB is not set: it must be the stage's job" in result.stderr


def test_evaluator_answers_with_the_trained_model(
    containers: Containers, dataset: Reference, trained: list[dict[str, Any]], config: RunConfig
) -> None:
    (containers.folder / "evaluate.py").write_text(EVALUATE)
    (containers.folder / "evaluation").mkdir()
    (containers.folder / "evaluation").chmod(0o777)
    folder = urllib.parse.urlsplit(dataset.uri).path
    arguments = (json.dumps(to_dict(config)), f"{DATA}/model", folder, f"{DATA}/evaluation")
    printed = containers.output("evaluator", "python", f"{DATA}/evaluate.py", *arguments)
    scores = dict(json.loads(printed.strip().splitlines()[-1]))
    assert set(scores) == {"before", "after"}
    assert all(0 <= score <= 1 for score in scores.values())
    written = json.loads((containers.folder / "evaluation" / "evaluation.json").read_text())
    assert [model["name"] for model in written["models"]] == ["before", "after"]


def test_harness_asks_a_benchmark_by_the_pods_command(
    containers: Containers, dataset: Reference, trained: list[dict[str, Any]], config: RunConfig
) -> None:
    root, made = containers.folder / "mme-root", containers.folder / "mme-copy"
    build("mme", root)
    make_copy(read_benchmarks()["mme"], root, made, partial=True)
    copy = publish(made, (containers.folder / "mme").as_uri(), kind="benchmark", created_by={})
    model = find((containers.folder / "model").as_uri())
    one_pod = dataclasses.replace(
        config.placements["video"], nodes=1, min_nodes=1, processes_per_node=1, gpus_per_node=0
    )
    placed = dataclasses.replace(config, placements={**config.placements, BENCHMARKS: one_pod})
    job = EvaluationJob(
        config=to_dict(placed),
        stage_order=list(config.stages),
        models=[{"name": "video", "checkpoint": inside(model, "model")}],
        start=read_reference(containers.folder / "start").to_dict(),
        dataset=dataset.to_dict(),
        benchmarks=[{"name": "mme", "copy": inside(copy, "mme")}],
        judging={},
        work_uri=f"file://{DATA}/benchmarks",
        identity="images-test",
        code_version=code_version(EVALUATION_ENTRIES),
        commit="",
        events_path="",
        failure_path="",
    )
    run_pod(containers, "harness", job)
    scores = containers.folder / "benchmarks" / "scores"
    score = json.loads((scores / "benchmarks.json").read_text(encoding="utf-8"))["models"]["video"]["mme"]
    items = read_items(items_path(scores, "video", "mme"))
    assert len(items) == score["items"] > 0
    assert all(item.answer is not None and item.score is not None for item in items)


def test_mlflow_tracked_the_step_of_the_data_image(containers: Containers, dataset: Reference) -> None:
    ask = (
        "import sys; from mlflow.tracking import MlflowClient; c = MlflowClient(sys.argv[1]);"
        "ids = [e.experiment_id for e in c.search_experiments()];"
        "print([r.info.status for r in c.search_runs(ids) if r.data.tags.get('vl3.step') == 'validate-data'])"
    )
    assert containers.output("launcher", "python", "-c", ask, TRACKING_URI).strip() == "['FINISHED']"
