"""Step: the page of a curation, and its numbers as JSON."""

from typing import Any

from vl3.config.curation import CurationConfig
from vl3.steps.validate_curation import CORPUS_NAME
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_bytes
from vl3.system.folders import own_folder
from vl3.validation.result import DOCS_FOLDER, RESULT_FILE
from vl3.workflow.record import StepRecord
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork
from vl3.workflow.tracking import dataset_name

_PAGES = ("report.html", "report.json")


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Write report.html and report.json, publish them with the Data Docs, and copy all to the run's folder."""
    from vl3.report.curation import write_curation_report

    request = work.request
    with work.step_run() as step_run, work.fresh_folder("report") as folder:
        curation, videos, validation = (fetch(request.inputs[name]) for name in ("curation", "videos", "validation"))
        for path in (validation / DOCS_FOLDER).glob("*.html"):
            atomic_write_bytes(folder / DOCS_FOLDER / path.name, path.read_bytes())
        write_curation_report(
            curation,
            videos,
            validation / RESULT_FILE,
            folder,
            name=request.run_folder.name if request.run_folder else request.run_id,
            data=dataset_name(request),
            corpus=join_uri(request.inputs["corpus"].uri, CORPUS_NAME),
        )
        reference = work.publish(folder, "report", kind="report")
        step_run.log_text((fetch(reference) / _PAGES[0]).read_text(encoding="utf-8"), _PAGES[0])
    work.clear()
    _deliver(request, reference)
    return StepOutcome(outputs={"report": reference})


def _deliver(request: StepRequest[CurationConfig], report: Reference) -> None:
    """Copy the page with its Data Docs to `<run folder>/report/`."""
    if request.run_folder is None:
        return
    made, target = fetch(report), own_folder(request.run_folder / "report")
    own_folder(target / DOCS_FOLDER)
    for path in (*(made / name for name in _PAGES), *made.glob(f"{DOCS_FOLDER}/*.html")):
        atomic_write_bytes(target / path.relative_to(made), path.read_bytes())


def _redeliver(request: StepRequest[CurationConfig], record: StepRecord) -> None:
    _deliver(request, record.output("report"))


def key_parts(_: StepRequest[CurationConfig]) -> dict[str, Any]:
    """Everything is in the inputs."""
    return {}


STEP = Step(
    entries=("vl3.steps.report_curation", "vl3.report.curation"),
    run=run,
    key_parts=key_parts,
    on_reuse=_redeliver,
)
