"""Two workers under torchrun, through the launcher: the stage as a run has it."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from vl3.errors import ClusterError, TerminatedError
from vl3.launch.job import LaunchJob
from vl3.launch.local import launch_local
from vl3.training.job import StageJob

Events = list[dict[str, Any]]


def launch(job: StageJob, folder: Path, on_event: Callable[[dict[str, Any]], None] | None = None) -> Events:
    """Run a stage with two ranks; returns its events."""
    events: Events = []

    def collect(event: dict[str, Any]) -> None:
        events.append(event)
        if on_event:
            on_event(event)

    launch_local(
        LaunchJob(
            name="stage",
            backend="local",
            run_id="test",
            stage=job.stage,
            module="vl3.training.worker",
            document=asdict(job),
            processes_per_node=2,
            threads_per_process=1,
            log_path=folder / "stage.log",
            work_uri=job.work_uri,
            events_path=Path(job.events_path),
            failure_path=Path(job.failure_path),
        ),
        collect,
    )
    return events


def workers() -> list[psutil.Process]:
    """The two workers below this process, rank 0 first."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # a short-lived child that has ended meanwhile
            if "vl3.training.worker" in process.cmdline() and process.cmdline()[1:3] == ["-u", "-m"]:
                found[int(process.environ()["RANK"])] = process
    return [found[rank] for rank in sorted(found)]


def losses(*attempts: Events) -> dict[int, float]:
    return {e["step"]: e["values"]["loss"] for events in attempts for e in events if e["type"] == "metrics"}


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_two_ranks_learn_as_one_does(stage_inputs: Any, process_group: None, tmp_path: Path) -> None:
    from vl3.training.stage import Rank, run_stage

    events = launch(stage_inputs.job(tmp_path / "two"), tmp_path / "two")
    kinds = [event["type"] for event in events if event["type"] not in ("progress", "checkpoint")]
    assert kinds == ["start", "metrics", "metrics", "end"]
    assert events[0]["world_size"] == 2
    assert events[0]["startup_seconds"] > 0
    assert not workers()

    alone = stage_inputs.job(tmp_path / "one")
    assert run_stage(alone, Rank(rank=0, world_size=1, launched_at=0.0), stop_requested=lambda: False)
    lines = map(json.loads, Path(alone.events_path).read_text().splitlines())
    of_one = losses(list(lines))
    assert losses(events) == pytest.approx(of_one, rel=1e-4)

    # The checkpoint that two ranks wrote after step 6 is read by one; that of the last step has the weights alone.
    shutil.rmtree(tmp_path / "two" / "work" / "step-000008")
    fewer = replace(alone, work_uri=(tmp_path / "two" / "work").as_uri(), output_uri=(tmp_path / "fewer").as_uri())
    fewer = replace(fewer, events_path=str(tmp_path / "fewer.jsonl"))
    assert run_stage(fewer, Rank(rank=0, world_size=1, launched_at=0.0), stop_requested=lambda: False)
    start, *rest = map(json.loads, (tmp_path / "fewer.jsonl").read_text().splitlines())
    assert start["resumed_from_step"] == 6
    assert losses(rest)[8] == pytest.approx(of_one[8], rel=1e-4)


@pytest.mark.slow
def test_killed_ranks_go_on_to_the_same_weights_and_losses(stage_inputs: Any, tmp_path: Path) -> None:
    """With the optimizer's state on every rank; that ranks which share it go on is asked in tests/unit/pod."""
    # Enough steps that the ranks are still at work when the kill comes, on a quick machine too.
    changes = {"engine.zero_stage": 0, "engine.log_every_steps": 1, "stages.vision_adaptation.steps": 60}
    unbroken = launch(stage_inputs.job(tmp_path / "unbroken", **changes), tmp_path / "unbroken")
    job = stage_inputs.job(tmp_path / "killed", **changes)

    def kill_rank_one(event: dict[str, Any]) -> None:
        if event["type"] == "metrics" and event["step"] == 5:
            workers()[1].send_signal(signal.SIGKILL)

    attempts: Events = []
    with pytest.raises(ClusterError, match=r"rank 1 ended with exit code -9"):
        launch(job, tmp_path / "killed", lambda event: (attempts.append(event), kill_rank_one(event)))
    assert not workers()
    resumed = launch(job, tmp_path / "killed")
    (start,) = (event["resumed_from_step"] for event in resumed if event["type"] == "start")
    assert start % 3 == 0
    assert 3 <= start < 60
    assert losses(attempts, resumed) == losses(unbroken)
    assert weights(tmp_path / "killed") == weights(tmp_path / "unbroken")


@pytest.mark.slow
def test_a_terminated_worker_writes_a_checkpoint_and_the_end_is_said(stage_inputs: Any, tmp_path: Path) -> None:
    job = stage_inputs.job(tmp_path, **{"stages.vision_adaptation.steps": 400, "engine.log_every_steps": 1})

    def terminate_rank_zero(event: dict[str, Any]) -> None:
        if event["type"] == "metrics" and event["step"] == 2:
            os.kill(workers()[0].pid, signal.SIGTERM)

    with pytest.raises(
        TerminatedError, match=r"ended on request: one of its processes got SIGTERM .* resumes from its last checkpoint"
    ):
        launch(job, tmp_path, terminate_rank_zero)
    assert not workers()
    (newest,) = sorted((tmp_path / "work").iterdir())[-1:]
    step = int(newest.name.removeprefix("step-"))
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert f"stopped on request after step {step} of 400" in lines[-1]["text"]
