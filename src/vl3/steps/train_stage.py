"""Step: train one stage and register its checkpoint as a candidate."""

import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.codec import to_dict
from vl3.config.stages import LIMITS
from vl3.data.plan.facts import PLAN_NAME, PlanFacts, read_facts
from vl3.errors import ClusterError, StorageError
from vl3.launch.backend import launch
from vl3.launch.grace import estimate_grace, estimated_save_seconds, longest_step_seconds, measured_save_seconds
from vl3.launch.job import LaunchJob
from vl3.recipes.effective import stage_view
from vl3.steps.chain import INITIAL, PLAN, origin_of
from vl3.steps.registry import candidate
from vl3.steps.request import Request, Work
from vl3.steps.stage_cost import StageCost, planned_seconds, stage_cost
from vl3.store.artifacts import fetch, fetch_file, is_intact, note_provenance, read_manifest
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.system.files import atomic_write_bytes, atomic_write_json, storage_errors
from vl3.system.folders import scratch_folder
from vl3.tracking.trained import CHECKPOINT_TAG
from vl3.training.events import EVENTS_NAME, PROFILE_FOLDER, STAGE_FILE, parse_event, read_events, settled_events
from vl3.training.job import StageJob
from vl3.training.outcome import FAILURE_NAME
from vl3.workflow.record import StepRecord
from vl3.workflow.step import Step, StepOutcome, is_published
from vl3.workflow.tracking import dataset_name

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 10.0
_MAX_NUMBER = 1e12
"""Upper limit of every count and time of a stage."""


def run(work: Work) -> StepOutcome:
    """Launch the stage (it resumes from its last checkpoint by itself), then publish its log and register it.

    Raises:
        Vl3Error: what ended the stage.
    """
    request = work.request
    stage = request.part
    _check_inputs(request)
    plan = _plan_facts(request.inputs["plan"])
    with work.step_run() as step_run:
        step_run.log_params(_own_settings(request) | {"steps": plan.steps, "packs_per_step": plan.packs_per_step})
        step_run.log_dataset(dataset_name(request), request.inputs["dataset"].sha256, request.inputs["dataset"].uri)
        checkpoint = is_published(work, "checkpoint")
        if checkpoint is None:
            checkpoint = _train(work, step_run, plan)
        training = is_published(work, "training")
        written = _written_events(work, training)
        events = settled_events(written)
        planned = planned_seconds(request.config, stage, plan)
        cost = stage_cost(request.config, stage, written, planned_seconds=planned)
        EventForwarder(work, step_run, plan.steps).replay(events)
        step_run.register(
            model=request.config.promotion.registered_model,
            of_workflow=stage == list(request.config.stages)[-1],
            **candidate(request, stage, checkpoint, request.inputs["dataset"], steps=plan.steps),
        )
        step_run.set_tags({CHECKPOINT_TAG: checkpoint.uri} | cost.tags())
        step_run.log_metrics([(0, cost.metrics())])
    training = training or _publish_log(work, events, plan, cost)
    work.clear()
    return StepOutcome(
        outputs={"checkpoint": checkpoint, "training": training},
        values={"stage": stage, "steps": plan.steps, "end": _last(events, "end"), "start": _last(events, "start")},
    )


def key_parts(request: Request) -> dict[str, Any]:
    """The stage's effective configuration without what only concerns how it is run, saved, logged or evaluated.

    The number of processes only changes the order of sums: a stage may resume with another number, and a finished one
    is not trained again because of it.
    """
    view = stage_view(request.config, request.part)
    # the digests of the bases are in the input
    for group in ("name", "model", "launch", "loader", "evaluation", "promotion", "placement", *LIMITS):
        view.pop(group)
    published = request.config.published_type(request.part)
    view["engine"] = {"precision": view["engine"]["precision"], "published": published}
    view["data"].pop("build_workers")
    return view | request.config.model.fixed_resolution


def cost(record: StepRecord) -> str:
    """The cost of training a stage again: all its steps at the speed of the finished one's last attempt.

    An attempt that did the last 100 of 400 steps in 50 s: 400 steps cost about 200 s. The record may be from another
    version of vl3, so its values are checked.
    """
    steps, processes = record.values.get("steps"), _field(record, "start", "world_size")
    seconds, done = _field(record, "end", "seconds"), _field(record, "end", "steps")
    total = seconds / done * steps if seconds and done and isinstance(steps, int) else record.seconds
    where = f" on {processes:.0f} process{'' if processes == 1 else 'es'}" if processes else ""
    return f"Training it again costs about {_duration(total)}{where}, as the finished one took"


def _field(record: StepRecord, event: str, name: str) -> float | None:
    """A number of an event in the record; None if it is missing or not valid."""
    values = record.values.get(event)
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, int | float) and 0 < value < _MAX_NUMBER else None


def _duration(seconds: float) -> str:
    """`5 h 12 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"


class EventForwarder:
    """Forwards a stage's events: progress to the status file, metrics to MLflow in batches, the state to both.

    Nothing here waits for MLflow. The event file holds every metric, and all of them are passed again at the end.
    """

    def __init__(self, work: Work, step_run: "StepRun", steps: int) -> None:
        self._work = work
        self._step_run = step_run
        self._done, self._total = 0, steps
        self._waiting: list[dict[str, Any]] = []
        self._sent_at = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """Forward one event."""
        if event["type"] == "progress":
            self._done, self._total = event["done"], event["total"]
            self._work.progress(event["done"], event["total"], event["text"])
        elif event["type"] == "metrics":
            self._waiting.append(event)
            if time.monotonic() - self._sent_at > _FLUSH_SECONDS:
                self._send(self._waiting, may_drop=True)
                self._waiting, self._sent_at = [], time.monotonic()
        elif event["type"] == "start" and event.get("code_changes"):
            self._step_run.set_tags(_code_tag(event))
        elif event["type"] == "straggler":
            self._step_run.set_tags({"vl3.straggler": f"rank {event['rank']} on {event.get('host', '?')}"})
        elif event["type"] == "state":
            self._work.progress(self._done, self._total, f"{event['state']}: {event['text']}")
            self._step_run.set_tags({"vl3.launch_state": event["state"], "vl3.launch_state_text": event["text"]})

    def replay(self, events: list[dict[str, Any]]) -> None:
        """Send every metric of the whole event file; the tracking run skips those that it has."""
        self._send([event for event in events if event["type"] == "metrics"])
        start = _last(events, "start") or {}
        if start.get("code_changes"):
            self._step_run.set_tags(_code_tag(start))

    def _send(self, events: list[dict[str, Any]], *, may_drop: bool = False) -> None:
        if events:
            rows = [(event["step"], event["values"]) for event in events]
            times_seconds = [event["time"] for event in events]
            self._step_run.log_metrics(rows, times_seconds=times_seconds, may_drop=may_drop)


def _check_inputs(request: Request) -> None:
    """Report a damaged input before processes are started. Inputs of pods are not downloaded for this check.

    Raises:
        StorageError: the dataset, the plan or the previous stage's checkpoint is not the one in the workflow.
    """
    for name in ("dataset", "plan", INITIAL):
        reference = request.inputs[name]
        if request.config.launch.backend == "local":
            fetch(reference)
        elif not is_intact(reference):
            raise StorageError(
                f"{reference.uri}: the {reference.kind} is missing, incomplete or not the one referred to (expected "
                f"sha256 {reference.sha256}). Run the step that makes it again."
            )


def _plan_facts(plan: Reference) -> PlanFacts:
    """What the plan says about itself; its arrays stay where they are."""
    with scratch_folder(None, "plan") as folder:
        return read_facts(fetch_file(plan, PLAN_NAME, folder))


def _train(work: Work, step_run: "StepRun", plan: PlanFacts) -> Reference:
    result = launch(_launch_job(work), EventForwarder(work, step_run, plan.steps))
    preemptions = sum(change.state == "preempted" for change in result.states)
    numbers = {
        "launch/attempts": result.attempts,
        "launch/seconds_queued": result.seconds_queued,
        "launch/seconds_running": result.seconds_running,
        "launch/preemptions": preemptions,
    }
    step_run.log_metrics([(0, numbers)])
    checkpoint = is_published(work, "checkpoint")
    if checkpoint is None:
        raise ClusterError(
            f"{work.request.task}: every process succeeded, but {work.output_uri('checkpoint')} has no complete "
            "checkpoint. Check the stage's log and start the run again."
        )
    _note_images(checkpoint, result.images, step_run)
    return checkpoint


def _note_images(checkpoint: Reference, images: tuple[str, ...], step_run: "StepRun") -> None:
    """Say in the manifest and in MLflow which images trained; a pod cannot see its own, and only the launcher can."""
    if not images:
        return
    text = ", ".join(images)
    step_run.set_tags({"vl3.image": text})
    try:
        note_provenance(checkpoint, {"image": text})
    except StorageError as error:  # the checkpoint is whole, and its log and MLflow name the image
        log.warning("the manifest does not name the image %s: %s", text, error)


def _launch_job(work: Work) -> LaunchJob:
    request, folder = work.request, work.work_folder()
    settings, stage = request.config.launch, request.part
    is_local = settings.backend == "local"
    events_path, failure_path = folder / EVENTS_NAME, folder / FAILURE_NAME
    job = _stage_job(work)
    if is_local:
        job = replace(job, commit=request.commit, events_path=str(events_path), failure_path=str(failure_path))
    grace_seconds = None if is_local else _grace_seconds(work)
    return LaunchJob(
        name=request.task,
        backend=settings.backend,
        run_id=request.run_id,
        stage=stage,
        module="vl3.training.worker",
        document=asdict(job),
        processes_per_node=settings.processes_per_node,
        threads_per_process=settings.threads_per_process,
        placement=None if is_local else request.config.placements[stage],
        packs_per_step=request.config.shared_packs(stage),
        log_path=request.log_path,
        events_path=events_path,
        failure_path=failure_path,
        work_uri=work.work_uri,
        rank_stall_seconds=request.config.engine.rank_stall_seconds,
        grace_seconds=grace_seconds,
        **{name: getattr(request.config.stages[stage], name) for name in LIMITS},
    )


def _grace_seconds(work: Work) -> int | None:
    """Time that the stage's pods get to write a last checkpoint, from what is known; None: the default."""
    request, initial = work.request, work.request.inputs[INITIAL]
    data = open_store(work.work_uri).read(EVENTS_NAME) or b""
    events = [event for event in map(parse_event, data.splitlines()) if event is not None]
    step_seconds, save_seconds = longest_step_seconds(events), measured_save_seconds(events)
    if save_seconds is None:
        if initial.kind == "start":  # bases, which may be anywhere
            return None
        files = read_manifest(initial).files
        weight_bytes = sum(file.size_bytes for name, file in files.items() if name.endswith(".safetensors"))
        save_seconds = estimated_save_seconds(weight_bytes, 2, request.config, request.part)
    return estimate_grace(save_seconds, step_seconds)


def _stage_job(work: Work) -> StageJob:
    """The job as pods get it: independent of this machine, so that a new launcher creates the same one."""
    request = work.request
    return StageJob(
        config=to_dict(request.config),
        stage_order=list(request.config.stages),
        stage=request.part,
        dataset=request.inputs["dataset"].to_dict(),
        plan=request.inputs["plan"].to_dict(),
        initial_model=request.inputs[INITIAL].to_dict(),
        work_uri=work.work_uri,
        output_uri=work.output_uri("checkpoint"),
        created_by=work.created_by,
        made_from={name: origin_of(request.inputs[name], request.artifacts_uri) for name in (INITIAL, "dataset", PLAN)},
        code_version=work.code_version,
        commit="",
        events_path="",
        failure_path="",
    )


def _written_events(work: Work, training: Reference | None) -> list[dict[str, Any]]:
    """The stage's events, of all attempts: from its log if that is published, otherwise from the work folder."""
    if training is not None:
        return read_events(fetch(training) / EVENTS_NAME)
    path = work.work_folder() / EVENTS_NAME
    if work.request.config.launch.backend == "trainjob":  # the pods' copy is complete, the launcher's may not be
        kept = open_store(work.work_uri).read(EVENTS_NAME)
        if kept is not None:
            atomic_write_bytes(path, kept)
    return read_events(path)


def _publish_log(work: Work, events: list[dict[str, Any]], plan: PlanFacts, cost: StageCost) -> Reference:
    """Publish the stage's events, configuration and plan in numbers, from which the report draws its curves."""
    stage = work.request.part
    with work.fresh_folder("training") as folder:
        _copy_profiles(work, folder)
        with storage_errors(folder):
            (folder / EVENTS_NAME).write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        config = to_dict(work.request.config.stages[stage])
        facts = {"stage": stage, "config": config, "plan": plan.summary(), **cost.to_dict()}
        atomic_write_json(folder / STAGE_FILE, facts)
        return work.publish(folder, "training", kind="training-log")


def _copy_profiles(work: Work, folder: Path) -> None:
    """Put the traces that rank 0 left in the stage's work folder beside its events."""
    if not work.request.config.engine.profile_steps:
        return
    store = open_store(work.work_uri)
    for key in store.list(f"{PROFILE_FOLDER}/"):
        with storage_errors(folder):
            (folder / PROFILE_FOLDER).mkdir(exist_ok=True)
        store.get_file(key, folder / PROFILE_FOLDER / Path(key).name)


def _code_tag(start: dict[str, Any]) -> dict[str, str]:
    return {"vl3.code_changes": "; ".join(start["code_changes"])}


def _last(events: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    return next((event for event in reversed(events) if event["type"] == kind), None)


def _own_settings(request: Request) -> dict[str, Any]:
    """The stage's own row of the recipe, as parameters; the workflow's run has the whole configuration."""
    row = to_dict(request.config.stages[request.part])
    mixture = ", ".join(f"{kind} {_amount(asked)}" for kind, asked in row.pop("mixture").items())
    return {"stage": request.part, "number": request.config.stage_number(request.part), **row, "mixture": mixture}


def _amount(asked: float | dict[str, Any]) -> str:
    """`3`, or `amount 3 cap 50` of what a mixture says in full."""
    if isinstance(asked, dict):
        return " ".join(f"{name} {value:g}" for name, value in asked.items() if value is not None)
    return f"{asked:g}"


STEP = Step(
    libraries=("torch", "transformers", "deepspeed", "peft", "numpy", "tokenizers", "av", "pillow"),
    run=run,
    key_parts=key_parts,
    cost=cost,
)
