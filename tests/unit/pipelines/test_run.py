"""What a local run is asked to do is checked before it starts; its limits and the environment of its processes."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.workflows import TASKS, TRAIN
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.config.placement import BUILD
from vl3.errors import ConfigError, DataError
from vl3.pipelines.local.display import tell
from vl3.pipelines.local.watch import child_environment
from vl3.pipelines.run import LocalRun, check_run
from vl3.pipelines.workflows import WORKFLOWS
from vl3.recipes.catalog import get_recipe
from vl3.system.uris import file_path, sqlite_path


def check(run: str = "", workflow: str = "train", **given: object) -> LocalRun:
    return check_run(workflow, run, WorkflowParameters(**given))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_left_out_is_in_the_runs_folder(place: Path) -> None:
    local = check("my.run-1", data_uri="file:///d")
    folder = place / "runs" / "my.run-1"
    assert local.folder == folder
    assert local.parameters == WorkflowParameters(
        recipe="tiny",
        data_uri="file:///d",
        artifacts_uri=f"file://{folder}/artifacts",
        tracking_uri=f"sqlite:///{place}/runs/mlflow.db",
    )
    assert check().folder == place / "runs" / "tiny"
    assert check(recipe="vl3_2b").folder == place / "runs" / "vl3_2b"
    given = {"artifacts_uri": "s3://b/a", "tracking_uri": "http://m:5000", "run_id": "r-1"}
    assert check(**given).parameters == WorkflowParameters(recipe="tiny", **given)
    assert list(place.iterdir()) == []


def test_runs_beside_each_other_share_a_tracking_store_unless_another_is_named(place: Path) -> None:
    uris = {check(str(place / "runs#" / name)).parameters.tracking_uri for name in ("a", "b")}
    assert uris == {f"sqlite:///{place}/runs#/mlflow.db"}
    other = check(str(place / "runs#" / "a"), tracking_uri="https://mlflow.example.org")
    assert other.parameters.tracking_uri == "https://mlflow.example.org"


def test_odd_folders_above_a_run_are_quoted(place: Path) -> None:
    folder = place / "a#1 b ü" / "run"
    parameters = check(str(folder)).parameters
    assert file_path(parameters.artifacts_uri) == folder / "artifacts"
    assert sqlite_path(parameters.tracking_uri) == folder.parent / "mlflow.db"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workflow": "trane"}, "workflow 'trane' is unknown. The nearest is 'train'"),
        ({"recipe": "tinny"}, "recipe 'tinny' is unknown. The nearest is 'tiny'"),
        ({"overrides": ("data.max_frame=64",)}, "The nearest is 'data.max_frames'"),
        ({"overrides": ("data.max_frames=many",)}, "'many' is not an int"),
        ({"overrides": ("seed=1", "data.max_frames=0")}, "data.max_frames=0 must be greater than 0"),
        ({"overrides": ("model.vision_base=file:///a\udcff",)}, "has control characters or bytes that are no text"),
        ({"tracking_uri": "sqlite:////a\nb"}, "has control characters"),
        ({"tracking_uri": "file:///mlruns"}, "has the scheme 'file', which MLflow does not support"),
        ({"stages": "video,vidoe"}, "The nearest is 'video'"),
        ({"run_id": "it's"}, 'run id "it\'s" cannot be part of URIs and ids. Use up to 100'),
    ],
)
def test_a_wrong_parameter_is_refused(arguments: dict[str, object], message: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check("run", **arguments)
    assert list(place.iterdir()) == []


def test_details_come_before_the_headline(capsys) -> None:
    tell(DataError("two lines are bad\n  line 1: a\n  line 2: b"))
    assert capsys.readouterr().err.splitlines() == ["  line 1: a", "  line 2: b", "DataError: two lines are bad"]


def test_every_task_has_a_limit() -> None:
    limits = TRAIN.task_limits(get_recipe("tiny"), WorkflowParameters())
    assert list(limits)[:4] == ["check-prerequisites", "import-start", "build-data", "validate-data"]
    assert list(limits) == TASKS
    assert list(limits)[-4:] == ["evaluate", "promote", "report", "finish"]


@pytest.mark.parametrize("task", TASKS)
def test_a_limit_names_a_setting_that_raises_it(task: str) -> None:
    tiny = get_recipe("tiny")
    limit = TRAIN.task_limits(tiny, WorkflowParameters())[task]
    more = apply_overrides(tiny, [f"{limit.setting}={2 * limit.stall_seconds:.0f}"])
    assert TRAIN.task_limits(more, WorkflowParameters())[task].stall_seconds >= 2 * limit.stall_seconds


def test_the_step_of_a_stage_waits_longer_than_the_stage_s_own_watch() -> None:
    for overrides in ([], ["stages.video.stall_seconds=90000"], ["launch.backend=trainjob"]):
        config = apply_overrides(get_recipe("tiny"), overrides)
        stage, limit = config.stages["video"], TRAIN.task_limits(config, WorkflowParameters())["train-video"]
        queued = config.placements["video"].queue_timeout_seconds if overrides == ["launch.backend=trainjob"] else 0
        assert limit.stall_seconds == queued + max(stage.startup_seconds, stage.stall_seconds) + 120


def test_the_step_of_a_build_on_a_cluster_waits_longer_than_the_build_s_own_watch() -> None:
    for name, workflow in WORKFLOWS.items():
        if name == "curate":  # it builds nothing
            continue
        recipe = get_recipe("ablation_tiny" if name == "ablation" else "tiny")
        placement = next(iter(recipe.placements.values()))
        placed = replace(recipe, placements={**recipe.placements, BUILD: placement})
        limits = [
            workflow.task_limits(apply_overrides(placed, overrides), WorkflowParameters())["build-data"]
            for overrides in (
                [],
                ["launch.backend=trainjob"],
                ["launch.backend=trainjob", "launch.task_stall_seconds=9000"],
            )
        ]
        queued = placement.queue_timeout_seconds
        assert [limit.stall_seconds for limit in limits] == [1800, queued + 7200 + 120, queued + 9000 + 120]
        assert {limit.setting for limit in limits} == {"launch.task_stall_seconds"}


def test_the_childs_environment() -> None:
    environment = child_environment(
        {"PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "2"}, Path("/r"), "1:2", Path("/t")
    )
    assert environment["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["VL3_RUNNER"] == "1:2"
    assert environment["VL3_TASK_LOG_DIR"] == "/r/logs"
    assert environment["TMPDIR"] == "/t"
