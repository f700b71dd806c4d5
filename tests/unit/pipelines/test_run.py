"""The runner's command line: bad input gets one line and the right exit code, at once."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.workflows import TASKS, TRAIN
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.errors import DataError
from vl3.pipelines.local.display import PlainDisplay, progress_text, tell
from vl3.pipelines.local.watch import child_environment
from vl3.pipelines.run import local_parameters, main
from vl3.recipes.catalog import get_recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workflow", "trane"], "workflow 'trane' is unknown. The nearest is 'train'"),
        (["--recipe", "tinny"], "recipe 'tinny' is unknown. The nearest is 'tiny'"),
        (["--set", "data.max_frame=64"], "The nearest is 'data.max_frames'"),
        (["--set", "data.max_frames=many"], "'many' is not an int"),
        (["--set", "seed=1", "data.max_frames=0"], "data.max_frames=0 must be greater than 0"),
        (["--tracking", "file:///mlruns"], "has the scheme 'file', which MLflow does not support"),
        (["--tracking", "http://me:hunter2@host"], "--tracking http://***@host has a password"),
        (["--set", "model.vision_base=s3://a:hunter2@b/c"], "--set model.vision_base=s3://***@b/c has a password"),
    ],
)
def test_a_wrong_argument_ends_with_2(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main([*arguments, "--run", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "hunter2" not in err
    assert err.startswith("ConfigError: ")
    assert not (tmp_path / "run").exists()


def test_runs_beside_each_other_share_a_tracking_store_unless_another_is_named(tmp_path: Path) -> None:
    given = WorkflowParameters()
    folders = [tmp_path / "runs#" / name for name in ("a", "b")]
    uris = {local_parameters(given, TRAIN, folder).tracking_uri for folder in folders}
    assert uris == {f"sqlite:///{tmp_path}/runs%23/mlflow.db"}
    other = replace(given, tracking_uri="https://mlflow.example.org")
    assert local_parameters(other, TRAIN, folders[0]).tracking_uri == "https://mlflow.example.org"


def test_a_run_folder_that_cannot_be_made_ends_with_6(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--run", str(tmp_path / "file" / "run")]) == 6
    assert "the run folder cannot be created" in capsys.readouterr().err


def test_a_wrong_argument_is_answered_quickly(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "vl3.pipelines.run", "--recipe", "x", "--run", str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # processor time: on a busy machine a second takes longer
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_details_come_before_the_headline(capsys) -> None:
    tell(DataError("two lines are bad\n  line 1: a\n  line 2: b"))
    assert capsys.readouterr().err.splitlines() == ["  line 1: a", "  line 2: b", "DataError: two lines are bad"]


def test_every_task_has_a_limit() -> None:
    limits = TRAIN.task_limits(get_recipe("tiny"), WorkflowParameters())
    assert list(limits)[:3] == ["check-prerequisites", "validate-data", "train-vision-adaptation"]
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


def test_plain_display_says_each_change_once(capsys) -> None:
    display = PlainDisplay("title")
    task = {"name": "a", "state": "running", "seconds": 0.0}
    display.update([task], {})
    display.update([task], {})
    display.update([task | {"state": "done", "seconds": 1.25}], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "title"
    assert [line[9:] for line in lines[1:]] == ["a: started", "a: done (1.2 s)"]


def test_progress_text() -> None:
    assert progress_text({"progress": {"done": 3, "total": 9, "text": "loss 0.4"}}) == "3 of 9, loss 0.4"
    assert progress_text({"progress": None}) == ""


def test_a_models_folder_becomes_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my model#1").mkdir()
    monkeypatch.chdir(tmp_path)
    given = local_parameters(WorkflowParameters(model_uri="my model#1"), TRAIN, tmp_path)
    assert given.model_uri == f"{tmp_path.as_uri()}/my%20model%231"
    for uri in ("hf://owner/name@main", "models:/vl3-tiny@champion", "s3://bucket/key", ""):
        assert local_parameters(WorkflowParameters(model_uri=uri), TRAIN, tmp_path).model_uri == uri


def test_a_model_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    assert main(["--run", str(folder), "--stages", "video", "--from", "DAMO-NLP-SG/VideoLLaMA3-2B"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "model 'DAMO-NLP-SG/VideoLLaMA3-2B': there is no folder" in message
    assert "is written as hf://owner/name" in message
    assert main(["--run", str(folder), "--stages", "video,vidoe"]) == 2
    assert "The nearest is 'video'" in capsys.readouterr().err
    assert not folder.exists()
