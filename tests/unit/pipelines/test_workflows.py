"""The table of workflows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workflows import TRAIN
from vl3.config.data import DataConfig
from vl3.config.parameters import WorkflowParameters
from vl3.errors import ConfigError
from vl3.pipelines.compile import compile_workflow
from vl3.pipelines.workflows import Workflow, effective_config, get_workflow
from vl3.recipes import catalog
from vl3.recipes.catalog import get_recipe, recipe_names


def test_an_unknown_workflow_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"workflow 'trian' is unknown. The nearest is 'train'"):
        get_workflow("trian")


def test_a_recipe_of_another_workflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog._RECIPES, "other", lambda: get_recipe("tiny").data)
    assert isinstance(get_recipe("other"), DataConfig)
    assert TRAIN.recipes == [name for name in recipe_names() if name != "other" and "ablation" not in name]
    with pytest.raises(ConfigError, match=r"recipe 'other' is not one of the workflow 'train'. Its recipes: tiny"):
        TRAIN.recipe("other")


def test_a_recipe_of_three_stages_compiles_to_three_stages(tmp_path: Path) -> None:
    from kfp.compiler import Compiler

    tiny = get_recipe("tiny")
    names = ["first", "second", "clips_2"]
    stages = dict.fromkeys(names, tiny.stages["video"])
    config = replace(tiny, stages=stages, placements=dict.fromkeys(names, tiny.placements["video"]))
    Compiler().compile(TRAIN.make_pipeline(config, WorkflowParameters()), str(tmp_path / "ir.yaml"))
    spec, _ = yaml.safe_load_all((tmp_path / "ir.yaml").read_text(encoding="utf-8"))
    inside = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    trained = [task for task in inside.values() if "stage" in task["inputs"]["parameters"]]
    given = [task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"] for task in trained]
    assert sorted(given) == sorted([*names, *names])
    tasks = {"train-first", "train-second", "train-clips-2", "plan-first", "plan-second", "plan-clips-2"}
    assert {task["taskInfo"]["name"] for task in trained} == tasks
    plans = [key for key in inside if key.startswith("plan-data")]
    for key, task in inside.items():
        assert not key.startswith("train-stage") or set(plans) < set(task["dependentTasks"])
    names_of_tasks = [task["taskInfo"]["name"] for task in inside.values()]
    assert set(names_of_tasks) | {"finish"} == set(TRAIN.task_limits(config, WorkflowParameters()))


def _compiled_tasks(workflow: Workflow, parameters: WorkflowParameters, folder: Path) -> dict[str, Any]:
    """Tasks of the compiled workflow by name, without the exit handler."""
    compile_workflow(workflow, parameters, folder / "ir.yaml")
    spec, _ = yaml.safe_load_all((folder / "ir.yaml").read_text(encoding="utf-8"))
    inside = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return {task["taskInfo"]["name"]: task for task in inside.values()}


def test_part_of_a_chain_compiles_to_its_stages(tmp_path: Path) -> None:
    parameters = WorkflowParameters(recipe="tiny", stages="multitask..video", model_uri="file:///model")
    tasks = _compiled_tasks(TRAIN, parameters, tmp_path)
    assert [name for name in tasks if name.startswith("train-")] == ["train-multitask", "train-video"]
    makers = {
        name: tasks[name]["inputs"]["artifacts"]["initial"]["taskOutputArtifact"]["producerTask"]
        for name in ("train-multitask", "train-video")
    }
    assert makers == {"train-multitask": "import-start", "train-video": "train-stage"}
    assert tasks["import-start"]["dependentTasks"] == ["check-prerequisites"]
    assert set(tasks) | {"finish"} == set(TRAIN.task_limits(get_recipe("tiny"), parameters))


def test_an_evaluation_compiles_to_the_steps_that_train_nothing(tmp_path: Path) -> None:
    evaluate = get_workflow("evaluate")
    parameters = WorkflowParameters(recipe="tiny", stages="none", model_uri="file:///model")
    tasks = _compiled_tasks(evaluate, parameters, tmp_path)
    assert list(evaluate.task_limits(get_recipe("tiny"), parameters)) == [
        "check-prerequisites",
        "import-start",
        "build-data",
        "validate-data",
        "evaluate",
        "report-evaluation",
        "finish",
    ]
    assert set(tasks) | {"finish"} == set(evaluate.task_limits(get_recipe("tiny"), parameters))


@pytest.mark.parametrize(
    ("workflow", "stages", "model_uri", "message"),
    [
        ("train", "vidoe", "file:///m", "STAGES=vidoe names 'vidoe', which is no stage. The nearest is 'video'"),
        ("train", "video", "", "stage video starts from the weights of multitask, which this run does not train"),
        ("train", "none", "file:///m", "STAGES=none trains nothing"),
        ("train", "", "gs://m", "model 'gs://m' cannot be found by that name"),
        ("evaluate", "", "", "there is no model to evaluate"),
        ("evaluate", "video", "file:///m", "STAGES=video has no meaning for an evaluation"),
        ("evaluate", "", "models:/m", "does not name a version of a registered model"),
    ],
)
def test_stages_and_models_that_do_not_fit_are_refused(
    workflow: str, stages: str, model_uri: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        effective_config(get_workflow(workflow), WorkflowParameters(stages=stages, model_uri=model_uri))


def test_a_first_part_needs_no_model() -> None:
    effective_config(TRAIN, WorkflowParameters(stages="vision_adaptation,alignment"))


def test_an_ablation_compiles_to_a_chain_for_each_arm(tmp_path: Path) -> None:
    ablation = get_workflow("ablation")
    config = ablation.recipe("ablation_tiny")
    tasks = _compiled_tasks(ablation, WorkflowParameters(recipe="ablation_tiny"), tmp_path)
    assert set(tasks) | {"finish"} == set(ablation.task_limits(config, WorkflowParameters()))
    keys = {task["taskInfo"]["name"]: key for key, task in _inside(tmp_path).items()}

    def made_by(task: str, name: str) -> str:
        return tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]["producerTask"]

    for arm in ("clip", "dfn", "siglip"):
        assert tasks[f"import-{arm}"]["inputs"]["parameters"]["arm"]["runtimeValue"]["constant"] == arm
        assert made_by(f"train-{arm}-projector", "initial") == keys[f"import-{arm}"]
        assert made_by(f"train-{arm}-alignment", "initial") == keys[f"train-{arm}-projector"]
        assert made_by(f"train-{arm}-instruction", "initial") == keys[f"train-{arm}-alignment"]
        assert made_by(f"evaluate-{arm}", "checkpoint") == keys[f"train-{arm}-instruction"]
        assert made_by(f"evaluate-{arm}", "start") == keys[f"import-{arm}"]
    compared = [made_by("compare-arms", f"arm_{number}") for number in (1, 2, 3)]
    assert compared == [keys[f"evaluate-{arm}"] for arm in ("clip", "dfn", "siglip")]
    assert list(tasks["compare-arms"]["inputs"]["artifacts"]) == ["arm_1", "arm_2", "arm_3", "dataset"]
    assert [name for name in tasks if name.startswith("build-")] == ["build-data"]


def _inside(folder: Path) -> dict[str, Any]:
    spec, _ = yaml.safe_load_all((folder / "ir.yaml").read_text(encoding="utf-8"))
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_workflows_do_not_take_each_others_recipes() -> None:
    ablation = get_workflow("ablation")
    assert ablation.recipes == ["ablation_tiny", "ablation"]
    assert TRAIN.recipes == ["tiny", "vl3_2b", "vl3_7b"]
    with pytest.raises(ConfigError, match="recipe 'ablation' is not one of the workflow 'train'"):
        TRAIN.recipe("ablation")
    with pytest.raises(ConfigError, match="recipe 'tiny' is not one of the workflow 'ablation'"):
        ablation.recipe("tiny")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stages": "projector"}, "STAGES=projector has no meaning for an ablation"),
        ({"model_uri": "file:///m"}, "an ablation starts from the encoder of each arm"),
    ],
)
def test_an_ablation_takes_neither_stages_nor_a_model(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        effective_config(get_workflow("ablation"), WorkflowParameters(recipe="ablation_tiny", **given))
