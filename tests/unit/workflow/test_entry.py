"""The entry point of a step process, run as kfp runs it: in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vl3.workflow.entry import task_name

PROGRAM = """
import sys
import types
from vl3.errors import {family}
from vl3.workflow.step import Step, StepOutcome
module = types.ModuleType("vl3.steps.probe")
def run(work):
    work.progress(1, 2, "half")
    print("said on stdout", flush=True)
    {body}
    with work.fresh_folder("out") as folder:
        (folder / "x").write_text("x")
        return StepOutcome(outputs={{"out": work.publish(folder, "out", kind="test")}})
module.STEP = Step(entries=("vl3.errors",), run=run, key_parts=lambda request: {{}})
sys.modules["vl3.steps.probe"] = module
from vl3.workflow.entry import run_step
run_step("probe", workflow={workflow!r}, outputs={{"out": {out!r}}})
"""


def _run(
    tmp_path: Path, body: str, family: str = "DataError", *, local: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    workflow = {
        "recipe": "tiny",
        "overrides": ["seed=3"],
        "data_uri": tmp_path.as_uri(),
        "artifacts_uri": (tmp_path / "artifacts").as_uri(),
        "tracking_uri": "",
        "run_id": "r",
    }
    program = PROGRAM.format(body=body, family=family, workflow=workflow, out=str(tmp_path / "out.json"))
    folder = {"VL3_RUN_FOLDER": str(tmp_path / "run")} if local else {}
    environment = {**os.environ, **folder, **variables}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def _status(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run" / "status" / "probe.json").read_text())


def test_a_good_step_writes_status_reference_and_log(tmp_path: Path) -> None:
    done = _run(tmp_path, "pass", VL3_TASK_LOG_DIR=str(tmp_path / "logs"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    status = _status(tmp_path)
    assert (status["task"], status["state"], status["error"]) == ("probe", "done", None)
    assert status["progress"] == {"done": 1, "total": 2, "left_seconds": None, "text": "half"}
    assert json.loads((tmp_path / "out.json").read_text())["kind"] == "test"
    log = (tmp_path / "logs" / "probe.log").read_text()
    assert "said on stdout" in log
    assert "probe is done" in log


def test_a_second_process_reuses_the_step(tmp_path: Path) -> None:
    _run(tmp_path, "pass")
    _run(tmp_path, "raise DataError('not run again')")
    assert _status(tmp_path)["state"] == "reused"


@pytest.mark.parametrize(
    ("body", "family", "message"),
    [
        ("raise DataError('line 3 is bad')", "DataError", "line 3 is bad"),
        ("1 / 0", "Vl3Error", "ZeroDivisionError: division by zero"),
        ("import errno; raise OSError(errno.ENOSPC, 'No space', '/x')", "StorageError", "/x: the disk is full"),
    ],
)
def test_a_failure_is_recorded_and_ends_the_process(tmp_path: Path, body: str, family: str, message: str) -> None:
    done = _run(tmp_path, body)
    assert done.returncode == 1
    error = _status(tmp_path)["error"]
    assert error["family"] == family
    assert error["message"].startswith(message)
    assert "Traceback" in done.stderr  # no runner, no log file: the trace stays on the stream
    assert not (tmp_path / "out.json").exists()


def test_a_good_step_leaves_kfps_executor_with_status_0(tmp_path: Path) -> None:
    assert _run(tmp_path, "pass", _KFP_RUNTIME="true").returncode == 0
    assert _run(tmp_path / "b", "1 / 0", _KFP_RUNTIME="true").returncode == 1


@pytest.mark.parametrize(
    ("name", "code", "family"), [("SIGTERM", 143, "TerminatedError"), ("SIGINT", 130, "InterruptError")]
)
def test_a_step_that_was_asked_to_end_is_no_defect(tmp_path: Path, name: str, code: int, family: str) -> None:
    done = _run(tmp_path, f"import os, signal; os.kill(os.getpid(), signal.{name})")
    assert done.returncode == code
    message = f"ended on request ({name}). What was finished is kept: start the run again to continue."
    assert _status(tmp_path)["error"] == {"family": family, "message": message}
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "SystemExit" not in done.stderr


def test_on_a_cluster_a_failure_is_noted_and_a_blind_retry_ends_at_once(tmp_path: Path) -> None:
    assert _run(tmp_path, "raise DataError('line 3 is bad')", local=False).returncode == 1
    (note,) = (tmp_path / "artifacts" / "runs" / "r" / "failures").iterdir()
    assert json.loads(note.read_text())["message"] == "line 3 is bad"
    again = _run(tmp_path, "print('worked again')", local=False)
    assert again.returncode == 1
    assert "DataError: line 3 is bad" in again.stderr
    assert "worked again" not in again.stdout


def test_on_a_cluster_a_retry_after_the_platforms_failure_works(tmp_path: Path) -> None:
    assert _run(tmp_path, "raise ClusterError('node lost')", "ClusterError", local=False).returncode == 1
    assert _run(tmp_path, "pass", local=False).returncode == 0


def test_on_a_cluster_termination_leaves_no_note(tmp_path: Path) -> None:
    _run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", local=False)
    assert not (tmp_path / "artifacts" / "runs").exists()


def test_task_names() -> None:
    assert task_name("train_stage", "vision_adaptation") == "train-vision-adaptation"
    assert task_name("validate_data") == "validate-data"
