"""Watching a run: what the runner does when its child hangs, dies or is to be stopped. The child is a stand-in."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.workflows import TRAIN
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.lifeline import RUNNER_VARIABLE, runner_mark
from vl3.pipelines.local import watch as watch_module
from vl3.pipelines.local.watch import RunWatch, child_environment
from vl3.recipes.catalog import get_recipe
from vl3.system.processes import find_marked

STATUS = """
import json, os, pathlib, time
folder = pathlib.Path(os.environ["VL3_RUN_FOLDER"]) / "status"
def status(state, error=None, ended_at=None):
    data = {"task": "validate-data", "state": state, "started_at": "%s", "ended_at": ended_at, "pid": 1,
            "progress": None, "error": error}
    (folder / "validate-data.json").write_text(json.dumps(data))
"""


@pytest.fixture
def make_watch(tmp_path: Path, monkeypatch) -> Callable[[str], RunWatch]:
    """Makes a watch whose child runs a program instead of kfp."""

    def make(program: str, started_at: str = "2026-01-01T00:00:00+00:00", overrides: tuple[str, ...] = ()) -> RunWatch:
        def start(self: RunWatch) -> "subprocess.Popen[bytes]":
            mark = runner_mark(os.getpid())
            environment = child_environment(os.environ, tmp_path, mark, tmp_path)
            command = [sys.executable, "-c", STATUS % started_at + program]
            return subprocess.Popen(command, env=environment, start_new_session=True)

        monkeypatch.setattr(RunWatch, "_start", start)
        limits = TRAIN.task_limits(apply_overrides(get_recipe("tiny"), overrides), WorkflowParameters())
        return RunWatch(tmp_path, "train", WorkflowParameters(recipe="tiny"), limits, tmp_path / "temporary")

    return make


def _record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def _require_nothing_left() -> None:
    assert find_marked(f"{RUNNER_VARIABLE}={runner_mark(os.getpid())}") == []


def test_a_task_that_has_hung_is_stopped(make_watch, tmp_path: Path, capsys) -> None:
    code = make_watch("status('running'); time.sleep(600)", overrides=("launch.task_stall_seconds=0.5",)).run()
    assert code == 4
    error = _record(tmp_path)["error"]
    assert error["family"] == "ClusterError"
    assert "validate-data has made no progress for" in error["message"]
    assert str(tmp_path / "logs" / "validate-data.log") in error["message"]
    (override,) = re.findall(r'SET="([^"]+)"', error["message"])
    assert apply_overrides(get_recipe("tiny"), [override]).launch.task_stall_seconds == 1.0
    assert capsys.readouterr().err.splitlines()[-1] == f"ClusterError: {error['message']}"
    _require_nothing_left()


def test_a_damaged_record_does_not_make_another_run(make_watch, tmp_path: Path) -> None:
    """The MLflow run of its id would stay open for ever."""
    make_watch("raise SystemExit(1)").run()
    run_id = _record(tmp_path)["run_id"]
    (tmp_path / "run.json").write_bytes((tmp_path / "run.json").read_bytes()[:100])
    make_watch("status('done', ended_at='2026-01-01T00:00:01+00:00')").run()
    assert _record(tmp_path)["run_id"] == run_id
    assert json.loads((tmp_path / "kfp" / "request.json").read_text())["parameters"]["run_id"] == run_id


def test_a_task_is_never_stopped_for_its_age(make_watch, tmp_path: Path) -> None:
    """It has been running since January, longer than any limit."""
    program = "status('running'); time.sleep(1); status('done', ended_at='2026-03-01T00:00:00+00:00')"
    assert make_watch(program).run() == 0


def test_progress_is_what_a_status_shows(make_watch, monkeypatch) -> None:
    watch = make_watch("")
    watch._statuses["validate-data"] = {"progress": None}
    assert not watch._pace("validate-data", 0.0).is_stalled(1800.0)
    assert watch._pace("validate-data", 1801.0).is_stalled(1801.0)
    watch._statuses["validate-data"] = {"progress": {"done": 1, "total": 9, "text": "samples"}}
    assert not watch._pace("validate-data", 1801.0).is_stalled(1801.0 + 18010.0)  # ten times the longest pause
    assert watch._pace("validate-data", 1801.0).is_stalled(1801.0 + 18011.0)


@pytest.mark.parametrize(("family", "code"), [("TerminatedError", 143), ("InterruptError", 130)])
def test_a_task_that_was_asked_to_end_interrupts_the_run(
    make_watch, tmp_path: Path, capsys, family: str, code: int
) -> None:
    error = {"family": family, "message": "ended on request (SIGX)."}
    assert make_watch(f"status('failed', {error!r}); raise SystemExit(1)").run() == code
    assert _record(tmp_path)["state"] == "interrupted"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{family}: validate-data: ended on request (SIGX).")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_workflow_s_process_that_was_asked_to_end_interrupts_the_run(
    make_watch, tmp_path: Path, capsys, name: str, code: int
) -> None:
    program = f"import signal; signal.signal(signal.{name}, signal.SIG_DFL); os.kill(os.getpid(), signal.{name})"
    assert make_watch(f"status('running'); {program}").run() == code
    assert _record(tmp_path)["state"] == "interrupted"
    assert f"the workflow's process ended on request ({name}). Finished work is kept" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kfp", "status", "logs", "logs/runner.log"])
def test_a_link_in_the_run_leads_nowhere(name: str, tmp_path: Path) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.mkdir()
    (precious / "request.json").write_text("dear")
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(precious / "request.json" if name.endswith(".log") else precious)
    watch = RunWatch(run, "train", WorkflowParameters(recipe="tiny"), {}, tmp_path / "temporary")
    watch._prepare()
    with watch._start() as child:
        child.kill()
    assert {path.name: path.read_text() for path in precious.iterdir()} == {"request.json": "dear"}
    assert not (run / name).is_symlink()


def test_a_workflow_that_does_nothing_is_stopped(make_watch, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(watch_module, "_IDLE_LIMIT_SECONDS", 0.3)
    assert make_watch("time.sleep(60)").run() == 4
    assert "no task has started for" in _record(tmp_path)["error"]["message"]
    _require_nothing_left()


@pytest.mark.parametrize(("family", "code"), [("DataError", 3), ("StorageError", 6), ("Vl3Error", 1), ("New", 1)])
def test_a_failed_task_gives_its_families_exit_code(make_watch, tmp_path: Path, capsys, family: str, code: int) -> None:
    error = {"family": family, "message": "first line\n  detail"}
    assert make_watch(f"status('failed', {error!r}); raise SystemExit(1)").run() == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  detail"
    assert lines[-1].endswith(f": validate-data: first line (log: {tmp_path / 'logs' / 'validate-data.log'})")
    assert _record(tmp_path)["state"] == "failed"


def test_a_killed_task_is_explained(make_watch, tmp_path: Path, capsys) -> None:
    now = "2999-01-01T00:00:00+00:00"
    assert make_watch("status('running'); os.kill(os.getpid(), 9)", now).run() == 4
    said = capsys.readouterr().err
    assert "validate-data ended without a status: its process was killed; who did it is not known: " in said
    assert "perhaps because memory" not in said


def test_the_task_that_failed_is_told_not_the_exit_handler(make_watch, tmp_path: Path, capsys) -> None:
    finish = """
error = {"family": "ClusterError", "message": "MLflow is away"}
data = {"task": "finish", "state": "failed", "started_at": "2026-01-01T00:00:00+00:00", "ended_at": None, "pid": 1,
        "progress": None, "error": error}
(folder / "finish.json").write_text(json.dumps(data))
"""
    error = {"family": "DataError", "message": "first line"}
    assert make_watch(f"{finish}status('failed', {error!r}); raise SystemExit(1)").run() == 3
    assert "DataError: validate-data: first line" in capsys.readouterr().err.splitlines()[-1]


def test_an_exit_handler_that_fails_fails_the_run(make_watch, tmp_path: Path, capsys) -> None:
    finish = """
error = {"family": "ClusterError", "message": "MLflow is away"}
data = {"task": "finish", "state": "failed", "started_at": "2026-01-01T00:00:00+00:00", "ended_at": None, "pid": 1,
        "progress": None, "error": error}
(folder / "finish.json").write_text(json.dumps(data))
raise SystemExit(1)
"""
    assert make_watch(f"status('done', ended_at='2026-01-01T00:00:02+00:00'){finish}").run() == 4
    assert "ClusterError: finish: MLflow is away" in capsys.readouterr().err.splitlines()[-1]


def test_a_child_that_dies_outside_of_any_task_is_explained(make_watch, tmp_path: Path, capsys) -> None:
    assert make_watch("raise SystemExit(7)").run() == 1
    assert "ended with status 7 outside of any task" in capsys.readouterr().err


def test_an_interrupt_stops_everything(make_watch, tmp_path: Path, capsys) -> None:
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3000)'],"
    watch = make_watch(
        f"{program} start_new_session=True); status('running'); time.sleep(3000)", "2999-01-01T00:00:00+00:00"
    )
    timer = threading.Timer(1.0, watch.interrupt, [15])
    timer.start()
    assert watch.run() == 143
    record = _record(tmp_path)
    assert (record["state"], record["exit_code"]) == ("interrupted", 143)
    assert record["tasks"][3]["state"] == "interrupted"
    assert capsys.readouterr().err.startswith("interrupted: no process of the run is left.")
    _require_nothing_left()


def test_a_good_end(make_watch, tmp_path: Path, capsys) -> None:
    end = "2026-01-01T00:00:02+00:00"
    assert make_watch(f"status('done', ended_at='{end}')").run() == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "succeeded in" in out
    assert _record(tmp_path)["tasks"][3]["seconds"] == 2.0
    assert not (tmp_path / "temporary").exists()
