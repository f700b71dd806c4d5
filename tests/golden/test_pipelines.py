"""The compiled workflow is reviewed as a file: any change of it shows as a difference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipelines.compile import compile_train, without_sdk_version
from vl3.config.stages import Stage


def test_train_pipeline_is_the_reviewed_one(golden: Callable[[str, Any], None], tmp_path: Path) -> None:
    compile_train(tmp_path / "train.yaml")
    golden("pipelines/train.yaml", without_sdk_version((tmp_path / "train.yaml").read_text(encoding="utf-8")))


def test_train_pipeline_has_one_task_a_step_and_no_cache(tmp_path: Path) -> None:
    compile_train(tmp_path / "train.yaml")
    spec = yaml.safe_load((tmp_path / "train.yaml").read_text(encoding="utf-8"))
    tasks = spec["root"]["dag"]["tasks"].values()
    stages = {f"train-{stage.value}".replace("_", "-") for stage in Stage}
    expected = {"check-prerequisites", "validate-data", "evaluate", "promote", "report"} | stages
    assert {task["taskInfo"]["name"] for task in tasks} == expected
    assert [task["cachingOptions"].get("enableCache", False) for task in tasks] == [False] * 9
    assert len(spec["root"]["inputDefinitions"]["parameters"]) == 6


def test_no_task_installs_anything(tmp_path: Path) -> None:
    compile_train(tmp_path / "train.yaml")
    assert "pip install" not in (tmp_path / "train.yaml").read_text(encoding="utf-8")
