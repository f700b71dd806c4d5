"""The training step with a launcher that only pretends: what it asks for, what it keeps, what it leaves behind."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.plans import make_plan
from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError, ConfigError, StorageError
from vl3.launch.job import LaunchJob, LaunchResult, StateChange
from vl3.pod.sources import TRAINING_ENTRIES
from vl3.steps import train_stage
from vl3.store.artifacts import fetch, find, is_intact, publish, read_manifest
from vl3.system.uris import file_path
from vl3.training.events import read_events
from vl3.workflow.code import code_version
from vl3.workflow.record import StepRecord
from vl3.workflow.step import StepRequest, execute, key_parts

LIBRARIES = train_stage.STEP.libraries
FIRST = [
    {"type": "start", "resumed_from_step": 0, "time": 0.5, "world_size": 2, "startup_seconds": 0.5},
    {"type": "metrics", "step": 1, "time": 1.0, "values": {"loss": 3.0}},
]
BEYOND = {"type": "metrics", "step": 2, "time": 2.0, "values": {"loss": 9.0}}
REST = [
    {"type": "start", "resumed_from_step": 1, "time": 2.5, "world_size": 1, "startup_seconds": 0.0},
    {"type": "metrics", "step": 2, "time": 3.0, "values": {"loss": 2.0}},
    {"type": "straggler", "step": 2, "time": 3.0, "rank": 3, "host": "gpu-7"},
    {"type": "progress", "done": 2, "total": 2, "text": "loss 2.0"},
    {"type": "end", "seconds": 1.0, "steps": 1, "bad_samples": []},
]


@dataclasses.dataclass
class PretendedRun:
    """A tracking run that remembers."""

    registered: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    tags: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: list[tuple[int, dict[str, float]]] = dataclasses.field(default_factory=list)

    def __enter__(self) -> "PretendedRun":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def log_params(self, _: object) -> None:
        pass

    def register(self, **version: Any) -> None:
        self.registered.append(version)

    def log_dataset(self, *_: object) -> None:
        pass

    def set_tags(self, tags: dict[str, Any]) -> None:
        self.tags |= tags

    def log_metrics(self, rows: list[tuple[int, dict[str, float]]], **_: object) -> None:
        self.metrics += rows


@dataclasses.dataclass
class Launcher:
    """Stands for vl3.launch: remembers the job, writes what a stage leaves, says what a launcher says."""

    jobs: list[LaunchJob] = dataclasses.field(default_factory=list)
    error: Exception | None = None
    images: tuple[str, ...] = ()

    def __call__(self, job: LaunchJob, on_event: Callable[[dict[str, Any]], None]) -> LaunchResult:
        self.jobs.append(job)
        states = (
            StateChange(state="queued", text="waits for quota of cpu", time=1.0),
            StateChange(state="preempted", text="by a higher priority", time=2.0),
        )
        for state in states:
            on_event(state.as_event())
        # Pods keep their events in the store; local processes write into the file they are told.
        where = job.events_path if job.backend == "local" else file_path(job.work_uri) / "events.jsonl"
        where.parent.mkdir(parents=True, exist_ok=True)
        with where.open("a") as file:
            file.writelines(json.dumps(event) + "\n" for event in ([*FIRST, BEYOND] if self.error else REST))
        if self.error:
            raise self.error
        for event in REST:
            on_event(event)
        weights = job.events_path.parent / "weights"
        weights.mkdir()
        (weights / "model.safetensors").write_bytes(b"weights")
        publish(weights, job.document["output_uri"], kind="checkpoint", created_by=job.document["created_by"])
        return LaunchResult(attempts=2, seconds_queued=5.0, seconds_running=7.0, states=states, images=self.images)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> PretendedRun:
    pretended = PretendedRun()
    monkeypatch.setattr("vl3.workflow.step.StepWork.step_run", lambda self: pretended)
    return pretended


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    pretended = Launcher()
    monkeypatch.setattr(train_stage, "launch", pretended)
    return pretended


@pytest.fixture
def make_request(request_of_tiny: StepRequest, tmp_path: Path) -> Callable[[str], StepRequest]:
    def make(backend: str) -> StepRequest:
        inputs = {}
        for name, kind in (("dataset", "dataset"), ("initial", "checkpoint")):
            folder = tmp_path / f"new-{name}"
            folder.mkdir()
            (folder / "file").write_text(name)
            inputs[name] = publish(folder, (tmp_path / name).as_uri(), kind=kind, created_by={})
        make_plan(tmp_path / "planned", steps=2).close()
        inputs["plan"] = publish(
            tmp_path / "planned" / "plan", (tmp_path / "plan").as_uri(), kind="plan", created_by={}
        )
        config = apply_overrides(request_of_tiny.config, [f"launch.backend={backend}", "stages.alignment.steps=2"])
        return dataclasses.replace(
            request_of_tiny, task="train-alignment", part="alignment", config=config, inputs=inputs
        )

    return make


def _execute(request: StepRequest) -> tuple[StepRecord, list[str]]:
    told: list[str] = []
    record, _ = execute(train_stage.STEP, request, lambda done, total, text: told.append(f"{done}/{total} {text}"))
    return record, told


@pytest.mark.parametrize("backend", ["local", "trainjob"])
def test_a_stage_that_was_cut_off_ends_with_each_step_once(
    backend: str, make_request: Callable[[str], StepRequest], run: PretendedRun, launcher: Launcher, tmp_path: Path
) -> None:
    request = make_request(backend)
    launcher.error = ClusterError("the launcher was killed")
    with pytest.raises(ClusterError):
        _execute(request)
    launcher.error = None
    record, told = _execute(request)
    events = read_events(fetch(record.outputs["training"]) / "events.jsonl")
    assert [(event["step"], event["values"]["loss"]) for event in events if event["type"] == "metrics"] == [
        (1, 3.0),
        (2, 2.0),
    ]
    assert [(one["model"], one["stage"], one["of_workflow"]) for one in run.registered] == [
        ("vl3-tiny", "alignment", False)
    ]
    assert run.registered[0]["source_uri"] == record.outputs["checkpoint"].uri
    assert (record.values["end"]["steps"], record.values["steps"]) == (1, 2)
    facts = json.loads((fetch(record.outputs["training"]) / "stage.json").read_text())
    # Two processes for 2 s until the first attempt's last event, which was trained again, and one for half a second.
    assert facts["spent"]["process_hours"] == pytest.approx(4.5 / 3600)
    assert (facts["spent"]["attempts"], facts["planned"]) == (2, None)
    assert run.tags["vl3.spent"].startswith("0.00125 process-hours on pool ")
    assert (0, {"spent/hours": 2.5 / 3600, "spent/process_hours": 4.5 / 3600, "spent/gpu_hours": 0.0}) in run.metrics
    assert facts["plan"]["steps"] == run.registered[0]["step"] == 2
    assert (fetch(record.outputs["checkpoint"]) / "model.safetensors").read_bytes() == b"weights"
    assert told == ["0/2 queued: waits for quota of cpu", "0/2 preempted: by a higher priority", "2/2 loss 2.0"]
    assert list((tmp_path / "artifacts" / "work" / "train-alignment").iterdir()) == []
    assert run.tags["vl3.launch_state"] == "preempted"
    assert run.tags["vl3.straggler"] == "rank 3 on gpu-7"
    numbers = next(values for _, values in run.metrics if "launch/attempts" in values)
    assert numbers == {
        "launch/attempts": 2, "launch/seconds_queued": 5.0, "launch/seconds_running": 7.0, "launch/preemptions": 1
    }  # fmt: skip


def test_the_image_of_the_pods_is_said_in_the_manifest_and_in_mlflow(
    make_request: Callable[[str], StepRequest], run: PretendedRun, launcher: Launcher
) -> None:
    request = make_request("trainjob")
    launcher.images = ("ghcr.io/vl3/trainer@sha256:ab",)
    checkpoint = _execute(request)[0].outputs["checkpoint"]
    assert run.tags["vl3.image"] == "ghcr.io/vl3/trainer@sha256:ab"
    manifest = read_manifest(checkpoint)
    assert manifest.provenance["image"] == "ghcr.io/vl3/trainer@sha256:ab"
    assert manifest.provenance["commit"]
    assert is_intact(checkpoint)


def test_local_processes_get_files_and_pods_get_nothing_of_this_machine(
    make_request: Callable[[str], StepRequest], run: PretendedRun, launcher: Launcher, tmp_path: Path
) -> None:
    _execute(make_request("local"))
    (local,) = launcher.jobs
    assert (local.backend, local.stage, local.placement) == ("local", "alignment", None)
    assert local.document["events_path"] == str(local.events_path)
    assert local.document["failure_path"] == str(local.failure_path)
    assert local.document["code_version"] == code_version(TRAINING_ENTRIES)


def test_pods_get_the_placement_and_nothing_of_this_machine(
    make_request: Callable[[str], StepRequest], run: PretendedRun, launcher: Launcher, tmp_path: Path
) -> None:
    request = make_request("trainjob")
    _execute(request)
    (job,) = launcher.jobs
    assert job.placement == request.config.placements["alignment"]
    assert (job.document["events_path"], job.document["failure_path"]) == ("", "")
    assert job.document["work_uri"] == job.work_uri
    assert (job.startup_seconds, job.stall_seconds, job.timeout_seconds) == (7200, 1800, None)


def test_what_is_published_is_not_trained_again(
    make_request: Callable[[str], StepRequest], run: PretendedRun, launcher: Launcher, tmp_path: Path
) -> None:
    """As after a kill between the last output and the step's record: nothing is launched, and the log is the same."""
    request = make_request("trainjob")
    record, _ = _execute(request)
    (tmp_path / "artifacts" / "steps" / "train-alignment" / f"{record.key}.json").unlink()
    again, _ = _execute(request)
    assert len(launcher.jobs) == 1
    assert again.outputs == record.outputs
    assert again.values == record.values


def test_a_missing_input_is_named_before_anything_is_launched(
    make_request: Callable[[str], StepRequest], run: PretendedRun, launcher: Launcher, tmp_path: Path
) -> None:
    request = make_request("trainjob")
    (tmp_path / "initial" / "file").write_text("other")
    with pytest.raises(StorageError, match=r"initial: the checkpoint is missing, incomplete or not the one referred"):
        _execute(request)
    assert launcher.jobs == []


def test_an_end_without_weights_is_not_taken_for_success(
    make_request: Callable[[str], StepRequest], run: PretendedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = LaunchResult(attempts=1, seconds_queued=0.0, seconds_running=0.0, states=())
    monkeypatch.setattr(train_stage, "launch", lambda job, on_event: nothing)
    request = make_request("trainjob")
    with pytest.raises(ClusterError, match=r"train-alignment: every process succeeded, but .* has no complete checkp"):
        _execute(request)
    assert find(request.artifacts_uri) is None


def test_the_key_is_the_same_where_the_libraries_are_pinned_and_not_installed(
    make_request: Callable[[str], StepRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request("trainjob")
    full = key_parts(train_stage.STEP, request)
    pins = {library: version(library) for library in LIBRARIES}
    _uninstall(monkeypatch)
    with pytest.raises(ConfigError, match=r"av is not installed here"):
        key_parts(train_stage.STEP, request)
    assert key_parts(train_stage.STEP, dataclasses.replace(request, library_pins=pins)) == full
    other = dataclasses.replace(request, library_pins=pins | {"torch": "0.0"})
    assert key_parts(train_stage.STEP, other) != full


def _uninstall(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import PackageNotFoundError

    def not_found(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("vl3.workflow.code.version", not_found)


@pytest.mark.parametrize("step", ["train_stage", "promote", "report"])
def test_the_launcher_images_steps_load_nothing_heavy(step: str) -> None:
    program = (
        f"import sys, importlib; importlib.import_module('vl3.steps.{step}'); import vl3.launch.jobs.run; "
        "import vl3.workflow.entry, vl3.pod.entry; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "& {'torch', 'numpy', 'pandas', 'pyarrow', 'PIL', 'av', 'transformers', 'deepspeed', 'mlflow', 'kfp'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
