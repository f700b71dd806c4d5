"""The pod's entry point as Kubernetes runs it: a process with VL3_JOB and PET_*, several of them for several pods."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from vl3.pod.entry import write_termination_message
from vl3.store.artifacts import fetch, publish
from vl3.store.objects import open_store
from vl3.training.events import read_events, settled_events
from vl3.training.job import StageJob

Events = list[dict[str, Any]]


class Pods:
    """The pods of one TrainJob, as processes of this machine."""

    def __init__(self, job: StageJob, folder: Path, *, nodes: int = 1, **variables: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {
            "VL3_JOB": json.dumps(asdict(job)),
            "PET_NNODES": str(nodes),
            "PET_NPROC_PER_NODE": str(2 // nodes),
            "PET_MASTER_ADDR": "localhost",
            "PET_MASTER_PORT": str(port),
        }
        self._processes = [self._start(common | {"PET_NODE_RANK": str(rank)} | variables) for rank in range(nodes)]

    def wait(self) -> list[int]:
        """Exit codes; a pod that never ends is ended by the time limit of the test."""
        return [process.wait() for process in self._processes]

    def terminate(self, rank: int = 0) -> None:
        """As Kubernetes takes a pod away."""
        self._processes[rank].send_signal(signal.SIGTERM)

    def output(self, rank: int = 0) -> str:
        """Everything that a pod wrote."""
        return (self.folder / f"pod-{rank}.log").read_text()

    def events(self) -> Events:
        """The events in the first pod's output."""
        lines = self.output().splitlines()
        return [json.loads(line.removeprefix("vl3-event ")) for line in lines if line.startswith("vl3-event ")]

    def message(self, rank: int = 0) -> dict[str, str]:
        """The termination message."""
        return json.loads((self.folder / f"termination-{rank}").read_bytes())

    def wait_for(self, condition: Callable[[Events], bool]) -> None:
        """Wait for something in the first pod's events, as long as the pod works and the test has time."""
        while not condition(self.events()):
            assert self._processes[0].poll() is None, self.output()
            time.sleep(0.05)

    def _start(self, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        rank = variables["PET_NODE_RANK"]
        command = [
            sys.executable,
            "-m",
            "vl3.pod.entry",
            "--termination-log",
            str(self.folder / f"termination-{rank}"),
        ]
        with (self.folder / f"pod-{rank}.log").open("ab") as log:
            return subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT)


def pod_job(stage_inputs: Any, folder: Path, **overrides: object) -> StageJob:
    """A job as the launcher writes it into VL3_JOB."""
    changes = {"launch.processes_per_node": 2, "engine.log_every_steps": 1} | overrides
    return replace(stage_inputs.job(folder, **changes), events_path="", failure_path="")


STEPS = 100
"""Enough that a pod is still at work when it is asked to stop."""
_MANY_STEPS = {"stages.vision_adaptation.steps": STEPS, "engine.checkpoint_every_steps": 50}


def steps_of(events: Events) -> list[int]:
    return [event["step"] for event in events if event["type"] == "metrics"]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(stage_inputs: Any, tmp_path_factory: pytest.TempPathFactory) -> Pods:
    """One pod that trained to the end in one go."""
    folder = tmp_path_factory.mktemp("whole")
    pods = Pods(pod_job(stage_inputs, folder, **_MANY_STEPS), folder, PET_MASTER_ADDR="a-name-that-is-none")
    assert pods.wait() == [0], pods.output()
    return pods


def test_two_pods_meet_and_train_what_one_does(whole: Pods, stage_inputs: Any, tmp_path: Path) -> None:
    two = Pods(pod_job(stage_inputs, tmp_path / "two", **_MANY_STEPS), tmp_path / "two", nodes=2)
    assert two.wait() == [0, 0], two.output() + two.output(1)
    assert [event["type"] for event in two.events()][:3] == ["start", "metrics", "progress"]
    assert two.events()[-1]["type"] == "end"
    assert "vl3-event" not in two.output(1)
    assert read_events(tmp_path / "two" / "work" / "events.jsonl") == two.events()

    assert weights(tmp_path / "two") == weights(whole.folder)


def test_a_published_stage_is_not_trained_again(whole: Pods, stage_inputs: Any, tmp_path: Path) -> None:
    again = Pods(pod_job(stage_inputs, whole.folder, **_MANY_STEPS), tmp_path)
    assert again.wait() == [0]
    assert "is published already: nothing is left to do" in again.output()
    assert "torch" not in again.output()
    assert again.events() == []


@pytest.mark.slow
def test_a_pod_that_is_taken_away_goes_on_from_its_checkpoint(whole: Pods, stage_inputs: Any, tmp_path: Path) -> None:
    job = pod_job(stage_inputs, tmp_path / "cut", **_MANY_STEPS)
    first = Pods(job, tmp_path / "cut", nodes=2)
    first.wait_for(lambda events: bool(steps_of(events)))
    first.terminate(rank=1)
    assert first.wait() == [143, 143], first.output() + first.output(1)
    assert not (tmp_path / "cut" / "termination-0").exists()
    notes = [event["text"] for event in first.events() if event["type"] == "note"]
    assert "stopped on request after step" in notes[-1]  # on a busy machine a rank may be named as slow before

    second = Pods(job, tmp_path / "cut-2")
    assert second.wait() == [0], second.output()
    events = settled_events(read_events(tmp_path / "cut" / "work" / "events.jsonl"))
    assert steps_of(events) == steps_of(whole.events()) == list(range(1, STEPS + 1))
    assert [event["resumed_from_step"] for event in events if event["type"] == "start"] == [
        0,
        steps_of(first.events())[-1],
    ]
    assert weights(tmp_path / "cut") == weights(whole.folder)


@pytest.mark.slow
def test_pods_find_in_an_object_store_what_the_ones_before_left(
    stage_inputs: Any, s3_root: str, tmp_path: Path
) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(fetch(stage_inputs.dataset), folder)
    dataset = publish(folder, f"{s3_root}/dataset", kind="dataset", created_by={})
    job = pod_job(stage_inputs, tmp_path, **_MANY_STEPS)
    job = replace(job, dataset=dataset.to_dict(), work_uri=f"{s3_root}/work", output_uri=f"{s3_root}/model")
    first = Pods(job, tmp_path / "1")
    first.wait_for(lambda events: bool(steps_of(events)))
    first.terminate()
    assert first.wait() == [143], first.output()
    done = steps_of(first.events())[-1]
    kept = open_store(job.work_uri).list()
    assert "events.jsonl" in kept
    assert f"step-{done:06d}/manifest.json" in kept

    second = Pods(job, tmp_path / "2")
    assert second.wait() == [0], second.output()
    assert second.events()[0]["resumed_from_step"] == done
    open_store(job.work_uri).get_file("events.jsonl", tmp_path / "events.jsonl")
    events = settled_events(read_events(tmp_path / "events.jsonl"))
    assert steps_of(events) == list(range(1, STEPS + 1))
    assert events[-1]["type"] == "end"

    third = Pods(job, tmp_path / "3")
    assert third.wait() == [0]
    assert "nothing is left to do" in third.output()


@pytest.mark.slow
def test_a_store_that_refuses_is_said_with_its_family(stage_inputs: Any, s3_root: str, tmp_path: Path) -> None:
    job = replace(pod_job(stage_inputs, tmp_path), work_uri=f"{s3_root}/work", output_uri=f"{s3_root}/model")
    pods = Pods(job, tmp_path, AWS_SECRET_ACCESS_KEY="wrong")
    assert pods.wait() == [6], pods.output()
    assert pods.message()["family"] == "StorageError"
    assert s3_root.split("/")[2] in pods.message()["message"]


@pytest.mark.slow
def test_a_killed_worker_is_named_with_its_cause(stage_inputs: Any, tmp_path: Path) -> None:
    import psutil

    pods = Pods(pod_job(stage_inputs, tmp_path, **{"stages.vision_adaptation.steps": 400}), tmp_path)
    pods.wait_for(lambda events: bool(steps_of(events)))
    ours = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    found = [p for p in ours if "vl3.training.worker" in p.cmdline()[3:5]]
    next(p for p in found if p.environ()["RANK"] == "1").kill()
    assert pods.wait() == [137], pods.output()
    assert pods.message()["family"] == "ClusterError"
    assert "rank 1 ended with exit code -9 (signal 9, SIGKILL; who sent it is not known: " in pods.message()["message"]


def test_a_damaged_dataset_keeps_its_family(stage_inputs: Any, tmp_path: Path) -> None:
    job = pod_job(stage_inputs, tmp_path)
    pods = Pods(replace(job, dataset=job.dataset | {"uri": (tmp_path / "gone").as_uri()}), tmp_path)
    assert pods.wait() == [6], pods.output()
    assert pods.message()["family"] == "StorageError"
    assert "gone: the dataset is missing" in pods.message()["message"]


@pytest.mark.parametrize(
    ("variables", "changes", "expected"),
    [
        ({"PET_NNODES": ""}, {}, r"PET_NNODES='' must be a number"),
        ({"PET_NPROC_PER_NODE": "auto"}, {}, r"PET_NPROC_PER_NODE='auto' must be a number"),
        ({"PET_NPROC_PER_NODE": "3"}, {}, r"needs 2 processes, but its pods have 1 x 3 = 3"),
        ({"VL3_JOB": ""}, {}, r"VL3_JOB is not set"),
        ({"VL3_JOB": "{"}, {}, r"VL3_JOB: the stage's job file cannot be read"),
        ({}, {"code_version": "0" * 64}, r"launched by other code of vl3 \(version 000000000000\).*images differ"),
    ],
    ids=["no-place", "auto", "other-size", "no-job", "broken-job", "other-code"],
)
def test_what_does_not_fit_is_refused_before_torch(
    variables: dict[str, str], changes: dict[str, str], expected: str, stage_inputs: Any, tmp_path: Path
) -> None:
    pods = Pods(replace(pod_job(stage_inputs, tmp_path), **changes), tmp_path, **variables)
    assert pods.wait() == [2], pods.output()
    assert pods.message()["family"] == "ConfigError"
    assert re.search(expected, pods.message()["message"])


def test_a_termination_message_fits(tmp_path: Path) -> None:
    write_termination_message(tmp_path / "log", "DataError", "ü" * 9000)
    data = (tmp_path / "log").read_bytes()
    assert 3000 < len(data) <= 4000
    assert json.loads(data)["message"].endswith("ü ...")
    write_termination_message(tmp_path / "gone" / "log", "DataError", "only the log has it")


@pytest.mark.parametrize(("said", "seconds"), [("300", 285), ("", 105), ("soon", 105)])
def test_workers_get_the_pods_grace_period_but_for_a_margin(said: str, seconds: float) -> None:
    from vl3.pod.entry import _grace_seconds

    assert _grace_seconds({"VL3_GRACE_SECONDS": said}) == seconds


@pytest.mark.slow
def test_a_rank_that_stalls_ends_its_pod_and_the_next_attempt_goes_on(stage_inputs: Any, tmp_path: Path) -> None:
    job = pod_job(stage_inputs, tmp_path / "stall", **_MANY_STEPS, **{"engine.rank_stall_seconds": 3.0})
    first = Pods(job, tmp_path / "stall")
    first.wait_for(lambda events: len(steps_of(events)) > 1)
    ranks = {
        process.environ()["RANK"]: process
        for process in psutil.Process(first._processes[0].pid).children(recursive=True)
        if "vl3.training.worker" in process.cmdline() and "RANK" in process.environ()
    }
    ranks["1"].send_signal(signal.SIGSTOP)
    assert first.wait() == [4], first.output()
    message = first.message()
    assert message["family"] == "ClusterError"
    assert message["message"].startswith("rank 1 stalled ")
    assert f"Its process {ranks['1'].pid} is stopped by a signal" in message["message"]
    assert "--- rank 0\n" in first.output()  # the stacks of those that wait for it
    assert not ranks["1"].is_running() or ranks["1"].status() == psutil.STATUS_ZOMBIE

    second = Pods(job, tmp_path / "stall-2")
    assert second.wait() == [0], second.output()
