"""Step: collect the results of every step and write the report."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from vl3.evaluation.document import read_evaluation
from vl3.steps.chain import TrainedStage, trained_stages
from vl3.steps.lineage import lineage
from vl3.steps.promote import PROMOTION_FILE
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch, read_manifest
from vl3.store.reference import Reference
from vl3.system.clock import is_time
from vl3.system.files import atomic_write_bytes, read_record
from vl3.system.folders import own_folder
from vl3.system.provenance import in_words, provenance, versions
from vl3.training.events import EVENTS_NAME, STAGE_FILE
from vl3.validation.result import RESULT_FILE
from vl3.workflow.record import StepRecord, record_of
from vl3.workflow.status import read_status
from vl3.workflow.step import Step, StepOutcome


def run(work: Work) -> StepOutcome:
    """Write report.html and report.json, publish them, and copy them to the run's folder."""
    from vl3.report.page import write_report

    request = work.request
    with work.step_run() as step_run, work.fresh_folder("report") as folder:
        data = gather(request)
        page = write_report(data, folder, evaluation_folder=fetch(request.inputs["evaluation"]))
        step_run.log_artifact(page)
        reference = work.publish(folder, "report", kind="report")
    work.clear()
    _deliver(request, reference)
    return StepOutcome(outputs={"report": reference}, values={"verdict": data["verdict"]})


def gather(request: Request) -> dict[str, Any]:
    """Everything that the report shows, in the renderer's schema (vl3.report.data)."""
    promotion = _read(request.inputs["promotion"], PROMOTION_FILE)
    validation = _read(request.inputs["validation"], RESULT_FILE)
    run_record = _run_record(request)
    stages = trained_stages(request.inputs["checkpoint"], request.artifacts_uri)
    return {
        "run": _run_facts(request, run_record, stages),
        "verdict": {"state": promotion["state"], "reason": promotion["reason"]},
        "chain": [_chain_step(request, record_of(reference)) for reference in _one_of_each_task(request, stages)],
        "wall_seconds": _wall_seconds(run_record),
        "stages": [_stage(record_of(stage.checkpoint).output("training")) for stage in stages],
        "evaluation": read_evaluation(fetch(request.inputs["evaluation"])),
        "gates": promotion["gates"],
        "validation": _validation(validation),
        "lineage": lineage(request, stages, promotion),
        "missing": {},
    }


def _run_facts(request: Request, run_record: dict[str, Any], stages: list[TrainedStage]) -> dict[str, Any]:
    made = [(stage.name, read_manifest(stage.checkpoint).provenance) for stage in stages]
    ran = [{"what": what, **in_words(found)} for what, found in [("this report", provenance()), *made]]
    return {
        "run_id": request.run_id,
        "run_name": request.run_folder.name if request.run_folder else request.run_id,
        "recipe": request.config.name,
        "seed": request.config.seed,
        "started_at": _unix(run_record.get("started_at")),
        "overrides": list(request.overrides),
        "ran": ran,
        "versions": versions(request.library_pins),
        "machine": ran[0]["machine"],
    }


def _one_of_each_task(request: Request, stages: list[TrainedStage]) -> list[Reference]:
    """One output of each task, in the order of the workflow."""
    inputs, checkpoints = request.inputs, [stage.checkpoint for stage in stages]
    return [inputs["start"], inputs["dataset"], *checkpoints, inputs["evaluation"], inputs["promotion"]]


def _chain_step(request: Request, record: StepRecord) -> dict[str, Any]:
    """A task with its times: of this run if a runner records them, otherwise of its record."""
    status = _status(request, record.name)
    if status is None:
        ended_at = _unix(record.created_at)
        times = {"started_at": ended_at and ended_at - record.seconds, "ended_at": ended_at, "seconds": record.seconds}
        return {"name": record.name, "state": "done", **times}
    started_at, ended_at = _unix(status["started_at"]), _unix(status["ended_at"])
    seconds = ended_at - started_at if started_at and ended_at else None
    produced = record.seconds if status["state"] == "reused" else None
    times = {"started_at": started_at, "ended_at": ended_at, "seconds": seconds, "produced_in_seconds": produced}
    return {"name": record.name, "state": status["state"], **times}


def _stage(training: Reference) -> dict[str, Any]:
    folder = fetch(training)
    facts = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))
    lines = (folder / EVENTS_NAME).read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    notes = list(dict.fromkeys(event["text"] for event in events if event["type"] == "note"))
    return {"stage": facts["stage"], "config": facts["config"], "events": events, "notes": notes}


def _validation(result: dict[str, Any]) -> dict[str, Any]:
    findings = [
        {
            **{name: finding[name] for name in ("severity", "check", "message", "count")},
            "examples": [f"{row['where']}: {row['reason']}" for row in finding["rows"][:5]],
        }
        for finding in (*result["critical"], *result["warnings"])
    ]
    return {"passed": result["passed"], "findings": findings, "facts": result["facts"]}


def _deliver(request: Request, report: Reference) -> None:
    """Copy the report to `<run folder>/report/`."""
    if request.run_folder is None:
        return
    made, target = fetch(report), own_folder(request.run_folder / "report")
    for name in ("report.html", "report.json"):
        atomic_write_bytes(target / name, (made / name).read_bytes())


def _redeliver(request: Request, record: StepRecord) -> None:
    """Copy a reused report, too: it is still this run's report."""
    _deliver(request, record.output("report"))


def _read(reference: Reference, name: str) -> dict[str, Any]:
    return json.loads((fetch(reference) / name).read_text(encoding="utf-8"))


def _run_record(request: Request) -> dict[str, Any]:
    path = request.run_folder / "run.json" if request.run_folder else None
    return read_record(path) if path else {}


def _status(request: Request, task: str) -> dict[str, Any] | None:
    path: Path | None = request.run_folder / "status" / f"{task}.json" if request.run_folder else None
    return read_status(path) if path else None


def _wall_seconds(run_record: dict[str, Any]) -> float | None:
    started_at = _unix(run_record.get("started_at"))
    return None if started_at is None else time.time() - started_at


def _unix(text: Any) -> float | None:
    return datetime.fromisoformat(text).timestamp() if is_time(text) else None


def key_parts(request: Request) -> dict[str, Any]:
    """The overrides and the seed: everything else is in the inputs."""
    return {"overrides": list(request.overrides), "seed": request.config.seed}


STEP = Step(
    entries=("vl3.steps.report", "vl3.report.page"),
    run=run,
    key_parts=key_parts,
    on_reuse=_redeliver,
)
