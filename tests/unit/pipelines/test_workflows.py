"""The table of workflows."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.support.workflows import TRAIN
from vl3.config.data import DataConfig
from vl3.errors import ConfigError
from vl3.pipelines.workflows import get_workflow
from vl3.recipes import catalog
from vl3.recipes.catalog import get_recipe, recipe_names


def test_an_unknown_workflow_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"workflow 'trian' is unknown. The nearest is 'train'"):
        get_workflow("trian")


def test_a_recipe_of_another_workflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog._RECIPES, "other", lambda: get_recipe("tiny").data)
    assert isinstance(get_recipe("other"), DataConfig)
    assert TRAIN.recipes == [name for name in recipe_names() if name != "other"]
    with pytest.raises(ConfigError, match=r"recipe 'other' is not one of the workflow 'train'. Its recipes: tiny"):
        TRAIN.recipe("other")


def test_a_recipe_of_three_stages_compiles_to_three_stages(tmp_path: Path) -> None:
    from kfp.compiler import Compiler

    tiny = get_recipe("tiny")
    names = ["first", "second", "clips_2"]
    stages = dict.fromkeys(names, tiny.stages["video"])
    config = replace(tiny, stages=stages, placements=dict.fromkeys(names, tiny.placements["video"]))
    Compiler().compile(TRAIN.make_pipeline(config), str(tmp_path / "ir.yaml"))
    spec, _ = yaml.safe_load_all((tmp_path / "ir.yaml").read_text(encoding="utf-8"))
    inside = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    trained = [task for task in inside.values() if "stage" in task["inputs"]["parameters"]]
    given = [task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"] for task in trained]
    assert sorted(given) == sorted(names)
    assert {task["taskInfo"]["name"] for task in trained} == {"train-first", "train-second", "train-clips-2"}
    names_of_tasks = [task["taskInfo"]["name"] for task in inside.values()]
    assert set(names_of_tasks) | {"finish"} == set(TRAIN.task_limits(config))
