"""Step: collect the results of every step and write the report."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.evaluation.beside import beside_published
from vl3.evaluation.changes import shown_items
from vl3.evaluation.document import (
    ITEMS_FILE,
    own_models,
    read_evaluation,
    read_evidence,
    read_items,
    read_pictures,
)
from vl3.evaluation.published import titles
from vl3.evaluation.records import read_records
from vl3.steps.chain import TrainedStage, plan_of, trained_stages
from vl3.steps.lineage import lineage
from vl3.steps.promote import PROMOTION_FILE
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch, read_manifest
from vl3.store.reference import Reference
from vl3.system.clock import is_time
from vl3.system.files import atomic_write_bytes, atomic_write_json, read_record
from vl3.system.folders import own_folder
from vl3.system.provenance import in_words, provenance, versions
from vl3.tracking.step_run import RunNotes
from vl3.tracking.words import Results
from vl3.training.events import EVENTS_NAME, STAGE_FILE
from vl3.validation.result import DOCS_FOLDER, RESULT_FILE
from vl3.workflow.record import StepRecord, record_of
from vl3.workflow.status import read_status
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name, note_results, open_tracker


def run(work: Work) -> StepOutcome:
    """Write report.html and report.json, publish them with the Data Docs, and copy all to the run's folder."""
    from vl3.report.page import write_report

    request = work.request
    with work.step_run() as step_run, work.fresh_folder("report") as folder:
        data = gather(request)
        data["run"]["mlflow_page"] = step_run.workflow_page
        data["validation"]["docs"] = _copy_docs(request, folder)
        atomic_write_json(folder / ITEMS_FILE, data["items"])
        write_report(data, folder, evaluation_folder=fetch(request.inputs["evaluation"]))
        reference = work.publish(folder, "report", kind="report")
        _note_results(request, step_run.workflow, reference)
    work.clear()
    _deliver(request, reference)
    return StepOutcome(outputs={"report": reference}, values={"verdict": data["verdict"]})


def gather(request: Request) -> dict[str, Any]:
    """What the report shows of the artifacts and the run, in the renderer's schema (vl3.report.data)."""
    inputs = request.inputs
    promotion = _promotion(request)
    validation = _read(inputs["validation"], RESULT_FILE)
    run_record = _run_record(request)
    stages = trained_stages(inputs["checkpoint"], request.artifacts_uri) if "checkpoint" in inputs else []
    evaluation = fetch(inputs["evaluation"])
    measured = read_evaluation(evaluation)
    own = own_models(measured)
    evidence, last = read_evidence(evaluation), own[-1]["name"]
    champion, no_champion = _champion(promotion)
    records = read_records(evaluation)
    return {
        "run": _run_facts(request, run_record, stages),
        "verdict": {"state": promotion["state"], "reason": promotion["reason"]},
        "chain": [_chain_step(request, record_of(reference)) for reference in _one_of_each_task(request, stages)],
        "wall_seconds": _wall_seconds(run_record),
        "stages": [_stage(record_of(stage.checkpoint).output("training")) for stage in stages],
        "settings": to_dict(request.config),
        "evaluation": {**measured, "models": own},
        "evidence": evidence,
        "published": beside_published(evidence, last, request.config.name),
        "titles": titles(),
        "shown_items": shown_items(records, last, champion["model"] if champion else None) if last in records else {},
        "item_pictures": read_pictures(evaluation),
        "items": read_items(evaluation),
        "champion": champion,
        "gates": promotion["gates"],
        "validation": _validation(validation),
        "lineage": lineage(request, stages, promotion),
        "missing": _missing(stages, no_champion),
    }


_OF_TRAINING = ("champion", "changed", "gates", "curves", "throughput", "cost", "difffp", "mix")
"""Sections of the report that only training fills."""
_NONE_PUBLISHED = "None of the paper's benchmarks was evaluated, so there are no published numbers to show beside."
_NO_PROMOTION: dict[str, Any] = {
    "state": "none",
    "reason": "This run evaluates a model that it was given; it trains and promotes nothing.",
    "gates": None,
    "champion": None,
}


def _missing(stages: list[TrainedStage], no_champion: str) -> dict[str, str]:
    """Why a section is missing, by its name."""
    if not stages:
        return {"published": _NONE_PUBLISHED, **dict.fromkeys(_OF_TRAINING, _NO_PROMOTION["reason"])}
    same = "The candidate answers every question as the champion does."
    compared = {"champion": no_champion, "changed": no_champion} if no_champion else {"changed": same}
    return {"published": _NONE_PUBLISHED, **compared}


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
    inputs, of_stages = request.inputs, []
    for stage in stages:
        plan = plan_of(stage.checkpoint, request.artifacts_uri)
        of_stages += [stage.checkpoint] if plan is None else [plan, stage.checkpoint]
    decisions = [inputs["promotion"]] if "promotion" in inputs else []
    return [inputs["start"], inputs["dataset"], inputs["validation"], *of_stages, inputs["evaluation"], *decisions]


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
    kept = {name: facts[name] for name in ("stage", "config", "plan")}
    return {**kept, "spent": facts.get("spent"), "planned": facts.get("planned"), "events": events, "notes": notes}


def _champion(promotion: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The champion that the candidate was compared with; or None, and why there is none."""
    found = promotion["champion"]
    if found is None:
        return None, "The candidate was compared with no champion: there was none, or it is the champion itself."
    if found["model"] is None:
        return None, f"Champion v{found['version']} was not evaluated beside the candidate: {found['why']}."
    names = {"model": found["model"], "candidate": promotion["candidate"]}
    return {"version": found["version"], **names}, ""


def _copy_docs(request: Request, folder: Path) -> str:
    """Copy the Data Docs into the report's folder, so that a link works wherever it is copied; returns the link."""
    docs = fetch(request.inputs["validation"]) / DOCS_FOLDER
    for path in docs.glob("*.html"):
        atomic_write_bytes(folder / DOCS_FOLDER / path.name, path.read_bytes())
    return f"{DOCS_FOLDER}/index.html" if (docs / "index.html").is_file() else ""


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
    """Copy the report with its Data Docs to `<run folder>/report/`."""
    if request.run_folder is None:
        return
    made, target = fetch(report), own_folder(request.run_folder / "report")
    own_folder(target / DOCS_FOLDER)
    names = ("report.html", "report.json", ITEMS_FILE)
    for path in (*(made / name for name in names), *made.glob(f"{DOCS_FOLDER}/*.html")):
        atomic_write_bytes(target / path.relative_to(made), path.read_bytes())


def _redeliver(request: Request, record: StepRecord) -> None:
    """Copy a reused report, too: it is still this run's report."""
    _deliver(request, record.output("report"))
    with open_tracker(request).notes(request.task) as notes:
        _note_results(request, notes, record.output("report"))


def _note_results(request: Request, notes: RunNotes, report: Reference) -> None:
    """Note on the workflow's run in MLflow what the report shows first: scores, verdict, dataset, model, the page."""
    promotion = _promotion(request)
    first, *trained = own_models(read_evaluation(fetch(request.inputs["evaluation"])))
    last, dataset = (trained or [first])[-1], request.inputs["dataset"]
    results = Results(
        state=promotion["state"],
        reason=promotion["reason"],
        model=promotion.get("model", request.model_uri),
        version=promotion.get("version"),
        before=first["mean_accuracy"],
        after={model["name"]: model["mean_accuracy"] for model in trained},
        categories={name: task["accuracy"] for name, task in last["tasks"].items()},
        report=str(request.run_folder / "report" / "report.html") if request.run_folder else report.uri,
    )
    notes.log_dataset(dataset_name(request), dataset.sha256, dataset.uri)
    made = fetch(report)
    for path in (made / "report.html", *sorted(made.glob(f"{DOCS_FOLDER}/*.html"))):  # the page links to them
        notes.log_text(path.read_text(encoding="utf-8"), path.relative_to(made).as_posix())
    note_results(request, notes, results)
    _note_costs(request, notes)


def _note_costs(request: Request, notes: RunNotes) -> None:
    """Note on the workflow's run what its stages took together, planned and spent."""
    if "checkpoint" not in request.inputs:
        return
    totals: dict[str, float] = {}
    for stage in trained_stages(request.inputs["checkpoint"], request.artifacts_uri):
        facts = _read(record_of(stage.checkpoint).output("training"), STAGE_FILE)
        for kind in ("spent", "planned"):
            for name in ("process_hours", "gpu_hours", "cost"):
                value = (facts.get(kind) or {}).get(name)
                if value is not None:
                    totals[f"{kind}/{name}"] = totals.get(f"{kind}/{name}", 0.0) + value
    if totals:
        notes.log_metrics([(0, totals)])


def _promotion(request: Request) -> dict[str, Any]:
    """The decision; _NO_PROMOTION in a run that only evaluates."""
    inputs = request.inputs
    return _read(inputs["promotion"], PROMOTION_FILE) if "promotion" in inputs else _NO_PROMOTION


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
