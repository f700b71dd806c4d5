"""launch_local with real processes: events, errors, and nothing left behind in any case."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.processes import is_alive
from vl3.errors import ClusterError, ConfigError, DataError, TerminatedError
from vl3.launch import local
from vl3.launch.backend import launch
from vl3.launch.job import LaunchJob
from vl3.launch.local import launch_local
from vl3.system import endings

MakeJob = Callable[..., LaunchJob]


def worker_pids(folder: Path) -> list[int]:
    texts = [path.read_text() for path in sorted(folder.glob("pid-*"))]
    return [int(text) for text in texts if text]  # a file that was just made is empty


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_launch_passes_events_on_and_sets_the_environment(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("VL3_RUNNER", "")
    (tmp_path / "events.jsonl").write_text('{"type": "of an earlier attempt"}\n')
    (tmp_path / "failure.json").write_text('{"family": "DataError", "message": "of an earlier attempt"}')
    events: list[dict[str, Any]] = []
    result = launch(make_job("succeed"), events.append)
    assert [event["type"] for event in events] == ["started", "environment"]
    assert events[1] == {
        "type": "environment",
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "PYTHONDONTWRITEBYTECODE": None,
        "VL3_RUNNER": "",
    }
    log = (tmp_path / "logs" / "stage.log").read_text()
    assert "hello of rank 0" in log
    assert "hello of rank 1" in log
    assert (result.attempts, result.seconds_queued) == (1, 0.0)
    assert result.seconds_running > 0


def test_launch_raises_the_recorded_error_in_its_family(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^clip\.mp4 is empty$"):
        launch_local(make_job("fail"), lambda event: None)
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_launch_names_rank_exit_code_memory_and_log_of_a_killed_worker(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        launch_local(make_job("crash"), lambda event: None)
    message = str(caught.value)
    assert (
        "stage video failed: rank 1 ended with exit code -9 (signal 9, SIGKILL; who sent it is not known: " in message
    )
    assert "most likely" not in message
    assert "If it was memory, lower packs_per_step (of an evaluation batch_size) or data.max_length_tokens" in message
    assert str(tmp_path / "logs" / "stage.log") in message
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_launch_quotes_the_exception_that_ended_a_worker(make_job: MakeJob) -> None:
    with pytest.raises(ClusterError, match=r"rank 1 ended with exit code 1 \(KeyError: 'pixels'\)\."):
        launch_local(make_job("raise"), lambda event: None)


def test_launch_says_which_counter_proves_that_memory_ran_out(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "memory.events"
    counts.write_text("oom 0\noom_kill 2\n")
    monkeypatch.setattr(endings, "_MACHINE", counts)
    monkeypatch.setattr(endings, "_OWN_CGROUPS", tmp_path / "none")
    with pytest.raises(ClusterError, match=rf"memory ran out: .* in {counts} rose from 2 to 3"):
        launch_local(make_job("crash"), lambda event: counts.write_text("oom 0\noom_kill 3\n"))


def test_launch_names_a_fault_in_native_code(make_job: MakeJob) -> None:
    with pytest.raises(ClusterError, match=r"rank 1 ended with exit code -11 \(signal 11, SIGSEGV: a fault in native"):
        launch_local(make_job("fault"), lambda event: None)


def test_a_stage_that_was_asked_to_end_is_no_failure(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(
        TerminatedError,
        match=r"^stage video ended on request: .* Start the run again: it resumes",
    ):
        launch_local(make_job("asked"), lambda event: None)
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_a_torchrun_that_was_asked_to_end_is_no_failure(make_job: MakeJob, tmp_path: Path) -> None:
    def ask(event: dict[str, Any]) -> None:
        wait_until(lambda: len(worker_pids(tmp_path)) == 2, 300)
        psutil.Process(worker_pids(tmp_path)[0]).parent().terminate()

    with pytest.raises(TerminatedError, match=r"^stage video ended on request: "):
        launch_local(make_job("wait"), ask)
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_launch_stops_workers_that_have_hung(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_GRACE_SECONDS", 0.5)
    with pytest.raises(ClusterError) as caught:
        launch_local(make_job("hang", stall_seconds=0.5), lambda event: None)
    message = str(caught.value)
    assert message.startswith("stage video: no step was finished for ")
    assert "(step 3 of 10 was the last), so it has hung and was stopped" in message
    assert f"(log: {tmp_path / 'logs' / 'stage.log'})" in message
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_a_rank_that_hangs_is_named_with_its_stack_and_the_stage_is_started_again(
    make_job: MakeJob, tmp_path: Path
) -> None:
    notes: list[dict[str, Any]] = []
    result = launch_local(make_job("stall-once", rank_stall_seconds=1.0), notes.append)
    assert result.attempts == 2
    (note,) = [event["text"] for event in notes if event["type"] == "note"]
    assert note.startswith("rank 1 stalled in the forward pass of step 4: nothing happened for 1 s")
    assert "the others wait for it. Its process " in note
    assert note.endswith(f"All stacks are in {tmp_path / 'logs' / 'stage.log'}. Started again from the checkpoint")
    log = (tmp_path / "logs" / "stage.log").read_text()
    assert "--- rank 0" in log
    assert "in wait_for_nothing" in log.partition("--- rank 1")[2]


def test_a_stopped_rank_that_comes_no_further_ends_the_stage(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        launch_local(make_job("stall-stopped", rank_stall_seconds=1.0), lambda event: None)
    message = str(caught.value)
    assert re.match(r"stage video: rank 1 stalled in the forward pass of step 4: nothing happened for \d+ s", message)
    assert "is stopped by a signal and cannot show its Python stack" in message
    assert "It stalled before at step 4 and came no further, so it is not started once more" in message
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_launch_stops_stubborn_workers_at_a_limit_that_was_set(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_GRACE_SECONDS", 0.5)
    said = r"it was still running after 4 s, the limit that stages\.video\.timeout_seconds sets, and was stopped"
    with pytest.raises(ConfigError, match=said):
        launch_local(make_job("stubborn", timeout_seconds=4), lambda event: None)
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_launch_lets_workers_finish_when_it_is_interrupted(make_job: MakeJob, tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        wait_until(lambda: len(worker_pids(tmp_path)) == 2, 300)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch_local(make_job("wait"), stop)
    assert (tmp_path / "terminated-0").exists()
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_launch_ends_workers_whose_torchrun_was_killed(make_job: MakeJob, tmp_path: Path) -> None:
    def kill_torchrun(event: dict[str, Any]) -> None:
        wait_until(lambda: len(worker_pids(tmp_path)) == 2, 300)
        psutil.Process(worker_pids(tmp_path)[0]).parent().kill()

    with pytest.raises(ClusterError, match="torchrun ended with exit code -9"):
        launch_local(make_job("wait"), kill_torchrun)
    assert not any(is_alive(pid) for pid in worker_pids(tmp_path))


def test_workers_end_when_the_launching_process_is_killed(make_job: MakeJob, tmp_path: Path) -> None:
    code = f"from pathlib import Path, PosixPath\nfrom vl3.launch.job import LaunchJob, Words\n" \
           f"from vl3.launch.local import launch_local\nlaunch_local({make_job('wait')!r}, print)\n"  # fmt: skip
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    wait_until(lambda: len(worker_pids(tmp_path)) == 2, 300)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in worker_pids(tmp_path)), 300)


def test_launch_refuses_what_it_cannot_do(make_job: MakeJob) -> None:
    with pytest.raises(ConfigError, match=r"launch\.backend='slurm' is unknown\. Choose one of local, trainjob"):
        make_job("succeed", backend="slurm")
    with pytest.raises(ConfigError, match=r"launch\.placement of stage video is missing.*placements\.video"):
        make_job("succeed", backend="trainjob")
    with pytest.raises(ConfigError, match=r"launch\.processes_per_node=0 must be greater than 0"):
        make_job("succeed", processes_per_node=0)
