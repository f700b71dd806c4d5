"""The compiled workflow is reviewed as a file: any change of it shows as a difference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.workflows import TASKS, compile_train
from vl3.config.parameters import WorkflowParameters
from vl3.pipelines.compile import compile_manifests, compile_workflow
from vl3.pipelines.workflows import get_workflow

ROOT = Path(__file__).parents[2]


def test_train_pipeline_is_the_reviewed_one(golden: Callable[[str, Any], None], tmp_path: Path) -> None:
    compile_train(tmp_path / "train.yaml")
    lines = (tmp_path / "train.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    # one line changes with each release of kfp
    golden("pipelines/train.yaml", "".join(line for line in lines if not line.startswith("sdkVersion:")))


def test_evaluate_pipeline_is_the_reviewed_one(golden: Callable[[str, Any], None], tmp_path: Path) -> None:
    parameters = WorkflowParameters(recipe="tiny", stages="none", model_uri="s3://bucket/model")
    compile_workflow(get_workflow("evaluate"), parameters, tmp_path / "evaluate.yaml")
    lines = (tmp_path / "evaluate.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    golden("pipelines/evaluate.yaml", "".join(line for line in lines if not line.startswith("sdkVersion:")))


def test_ablation_pipeline_is_the_reviewed_one(golden: Callable[[str, Any], None], tmp_path: Path) -> None:
    parameters = WorkflowParameters(recipe="ablation_tiny")
    compile_workflow(get_workflow("ablation"), parameters, tmp_path / "ablation.yaml")
    lines = (tmp_path / "ablation.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    golden("pipelines/ablation.yaml", "".join(line for line in lines if not line.startswith("sdkVersion:")))


def test_curate_pipeline_is_the_reviewed_one(golden: Callable[[str, Any], None], tmp_path: Path) -> None:
    compile_workflow(get_workflow("curate"), WorkflowParameters(recipe="curate_tiny"), tmp_path / "curate.yaml")
    lines = (tmp_path / "curate.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    golden("pipelines/curate.yaml", "".join(line for line in lines if not line.startswith("sdkVersion:")))


def test_the_manifests_in_git_are_the_workflow_as_it_is() -> None:
    folder = ROOT / "manifests" / "pipelines"
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == compile_manifests(), (
        f"{folder} is out of date: run `make pipeline-manifests` and review the difference"
    )


def test_train_pipeline_has_one_task_a_step_and_no_cache(tmp_path: Path) -> None:
    compile_train(tmp_path / "train.yaml")
    spec, _ = yaml.safe_load_all((tmp_path / "train.yaml").read_text(encoding="utf-8"))
    inside = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"].values()
    outside = spec["root"]["dag"]["tasks"].values()
    assert {task["taskInfo"]["name"] for task in outside} == {"workflow", "finish"}
    assert {task["taskInfo"]["name"] for task in inside} == set(TASKS) - {"finish"}
    caching = [task.get("cachingOptions", {}).get("enableCache", False) for task in (*inside, *outside)]
    assert set(caching) == {False}
    assert list(spec["root"]["inputDefinitions"]["parameters"]) == ["workflow"]


def test_no_task_installs_anything(tmp_path: Path) -> None:
    compile_train(tmp_path / "train.yaml")
    assert "pip install" not in (tmp_path / "train.yaml").read_text(encoding="utf-8")
