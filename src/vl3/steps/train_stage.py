"""Step: train one stage and register its checkpoint as a candidate."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.codec import to_dict
from vl3.config.stages import Stage
from vl3.errors import ClusterError
from vl3.launch.backend import launch
from vl3.launch.job import LaunchJob
from vl3.recipes.effective import stage_view
from vl3.steps.step import Step, StepOutcome, StepRequest, StepWork, is_published
from vl3.steps.tracking import register_checkpoint
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.store.writing import atomic_write_json, storage_errors
from vl3.training.job import StageJob

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun

log = logging.getLogger(__name__)

_EVENTS = "events.jsonl"
_FLUSH_SECONDS = 10.0


def run(work: StepWork) -> StepOutcome:
    """Launch the stage (it goes on from its last checkpoint by itself), then publish its log and register it.

    Raises:
        Vl3Error: what ended the stage.
    """
    request = work.request
    stage = _require_stage(request)
    fetch(request.inputs["dataset"])  # a damaged input is named here, before processes are started on it
    with work.step_run() as step_run:
        step_run.log_params({"stage": stage.value, "step_inputs": _digests(request)})
        step_run.log_dataset("dataset", request.inputs["dataset"].sha256, request.inputs["dataset"].uri)
        checkpoint = is_published(work, "checkpoint")
        if checkpoint is None:
            checkpoint = _train(work, step_run)
        events = _read_events(work.work_folder() / _EVENTS)
        EventForwarder(work, step_run).replay(events)
        version = register_checkpoint(request, stage, checkpoint, request.inputs["dataset"], step_run.run_id)
        step_run.set_tags({"vl3.model_version": version, "vl3.checkpoint_uri": checkpoint.uri})
    training = is_published(work, "training") or _publish_log(work, events, version)
    shutil.rmtree(work.work_folder(), ignore_errors=True)
    return StepOutcome(
        outputs={"checkpoint": checkpoint, "training": training},
        values={"stage": stage.value, "version": version, "end": _last(events, "end"), "start": _last(events, "start")},
    )


def key_parts(request: StepRequest) -> dict[str, Any]:
    """The stage's effective configuration without what only concerns where and how it is run, saved, logged or judged.

    Of how it is launched only the number of processes and their threads stay: they decide the order of sums.
    """
    stage = _require_stage(request)
    view = stage_view(request.config, stage)
    threads = view.pop("launch")["threads_per_process"]
    view["processes"] = {"count": request.config.num_processes(stage), "threads": threads}
    # bases come in by the input's digest
    for group in ("name", "model", "evaluation", "promotion", "timeout_seconds", "placement"):
        view.pop(group)
    for name in ("checkpoint_every_steps", "keep_checkpoints", "log_every_steps"):
        view["engine"].pop(name)
    view["data"].pop("build_workers")
    return view


class EventForwarder:
    """Passes a stage's events on: progress to the status file, metrics to MLflow in batches.

    A tracking store that does not answer for a while does not end the stage: what was not sent is sent at the end.
    """

    def __init__(self, work: StepWork, step_run: "StepRun") -> None:
        self._work = work
        self._step_run = step_run
        self._waiting: list[dict[str, Any]] = []
        self._sent_at = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event as it happens."""
        if event["type"] == "progress":
            self._work.progress(event["done"], event["total"], event["text"])
        elif event["type"] == "metrics":
            self._waiting.append(event)
            if time.monotonic() - self._sent_at > _FLUSH_SECONDS:
                self._flush()

    def replay(self, events: list[dict[str, Any]]) -> None:
        """Send every metric of the whole event file; those that were sent are left out by the run itself.

        Raises:
            ClusterError: the tracking store does not answer.
        """
        self._send([event for event in events if event["type"] == "metrics"])

    def _flush(self) -> None:
        self._sent_at = time.monotonic()
        try:
            self._send(self._waiting)
        except ClusterError as error:
            log.warning("metrics are kept back for now: %s", error)
        else:
            self._waiting = []

    def _send(self, events: list[dict[str, Any]]) -> None:
        if events:
            rows = [(event["step"], event["values"]) for event in events]
            self._step_run.log_metrics(rows, times_seconds=[event["time"] for event in events])


def _train(work: StepWork, step_run: "StepRun") -> Reference:
    request, folder = work.request, work.work_folder()
    stage = _require_stage(request)
    initial = request.inputs["initial"]
    failure_path, job_path = folder / "failure.json", folder / "job.json"
    failure_path.unlink(missing_ok=True)
    StageJob(
        config=to_dict(request.config),
        stage=stage.value,
        dataset=request.inputs["dataset"].to_dict(),
        initial_model=initial.to_dict() if initial.kind == "checkpoint" else None,
        work_uri=work.work_uri,
        output_uri=work.output_uri("checkpoint"),
        created_by=work.created_by,
        events_path=str(folder / _EVENTS),
        failure_path=str(failure_path),
    ).write(job_path)
    launch(_launch_job(work, job_path), request.config.launch.backend, EventForwarder(work, step_run))
    checkpoint = is_published(work, "checkpoint")
    if checkpoint is None:
        raise ClusterError(
            f"{request.task}: every process ended well, yet {work.output_uri('checkpoint')} holds no whole checkpoint. "
            "Look at the stage's log and start the run again."
        )
    return checkpoint


def _launch_job(work: StepWork, job_path: Path) -> LaunchJob:
    request, folder = work.request, job_path.parent
    settings, stage = request.config.launch, _require_stage(request)
    return LaunchJob(
        name=request.task,
        module="vl3.training.worker",
        arguments=("--job", str(job_path)),
        nodes=1,
        processes_per_node=settings.processes_per_node,
        threads_per_process=settings.threads_per_process,
        environment={},
        log_path=request.log_path or folder / "workers.log",
        events_path=folder / _EVENTS,
        failure_path=folder / "failure.json",
        timeout_seconds=request.config.stages[stage].timeout_seconds,
    )


def _publish_log(work: StepWork, events: list[dict[str, Any]], version: int) -> Reference:
    """The stage's events beside its configuration: what the report draws its curves from."""
    stage = _require_stage(work.request)
    with work.fresh_folder("training") as folder:
        with storage_errors(folder):
            (folder / _EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        facts = {"stage": stage.value, "config": to_dict(work.request.config.stages[stage]), "version": version}
        atomic_write_json(folder / "stage.json", facts)
        return work.publish(folder, "training", kind="training-log")


def _read_events(path: Path) -> list[dict[str, Any]]:
    """The whole lines of an event file; a killed writer may have left half a line."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: a broken line is left out: %.80r", path, line)
    return events


def _last(events: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    return next((event for event in reversed(events) if event["type"] == kind), None)


def _digests(request: StepRequest) -> dict[str, str]:
    return {name: reference.sha256 for name, reference in request.inputs.items()}


def _require_stage(request: StepRequest) -> Stage:
    assert request.stage is not None
    return request.stage


STEP = Step(
    code=(
        "errors.py",
        "config/*.py",
        "store/*.py",
        "data/*.py",
        "models/*.py",
        "training/*.py",
        "steps/train_stage.py",
    ),
    exclude=(
        "data/world*.py",
        "data/corpus*.py",
        "data/tokenizer_build.py",
        "data/build*.py",
        "training/base_*.py",
        "models/convert.py",
        "models/layout_files.py",
        "models/preprocessing.py",
    ),
    libraries=("torch", "transformers", "deepspeed", "peft", "numpy", "tokenizers", "av", "pillow"),
    run=run,
    key_parts=key_parts,
)
