"""Step: the arms of an ablation side by side, beside the published numbers, as a page and in MLflow."""

from typing import Any, cast

from vl3.config.ablation import AblationConfig
from vl3.evaluation.document import read_benchmarks_file, read_evaluation, read_items
from vl3.steps.benchmarks import partial_copies
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_bytes
from vl3.system.folders import own_folder
from vl3.tracking.machine import NEXT_STEP
from vl3.tracking.step_run import RunNotes
from vl3.workflow.record import StepRecord
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name, open_tracker


def run(work: Work) -> StepOutcome:
    """Write report.html and report.json, publish them, and copy them to the run's folder."""
    from vl3.report.arms import compare_arms, verdict, write_arms_page

    request = work.request
    with work.step_run() as step_run, work.fresh_folder("report") as folder:
        comparison = compare_arms(_results(request))
        write_arms_page(comparison, folder, run_name=_run_name(request))
        report = work.publish(folder, "report", kind="report")
        _note(request, step_run.workflow, report)
    work.clear()
    _deliver(request, report)
    return StepOutcome(outputs={"report": report}, values={"verdict": verdict(comparison)})


def _results(request: Request) -> list[Any]:
    """What each arm's evaluation found, in the order of the recipe."""
    from vl3.report.arms import ArmResult

    config = cast("AblationConfig", request.config)
    results = []
    for number, (name, arm) in enumerate(config.arms.items(), 1):
        evaluation = fetch(request.inputs[f"arm_{number}"])
        scores = read_benchmarks_file(evaluation)
        models = read_evaluation(evaluation)["models"]
        side = config.arm(name).model.side_patches or 0
        facts = {
            "pixels": f"{arm.picture_side_px} x {arm.picture_side_px}",
            "tokens of a picture": side**2,
            "encoder": arm.vision_base,
        }
        results.append(
            ArmResult(
                name=name,
                title=arm.title,
                facts=facts,
                models=models,
                benchmarks={
                    benchmark: found["score"] for benchmark, found in scores.get(models[-1]["name"], {}).items()
                },
                items=read_items(evaluation),
                published=arm.published,
                partial=partial_copies(evaluation),
            )
        )
    return results


def _note(request: Request, notes: RunNotes, report: Reference) -> None:
    """Note on the workflow's run in MLflow the scores of each arm, the published ones, the verdict and the page."""
    from vl3.report.arms import NUMBERS, PAGE, verdict

    made, dataset = fetch(report), request.inputs["dataset"]
    comparison = parse_object((made / NUMBERS).read_bytes())
    values = {f"{arm['name']}/accuracy/mean": arm["mean_accuracy"] for arm in comparison["arms"]}
    for row in comparison["categories"]:
        found = {name: score for name, score in row["scores"].items() if score is not None}
        values |= {f"{name}/accuracy/{row['category']}": score["accuracy"] for name, score in found.items()}
    for row in comparison["benchmarks"]:
        for kind in ("published", "ours"):
            scores = {name: score for name, score in row[kind].items() if score is not None}
            values |= {f"{name}/{kind}/{row['benchmark']}": score for name, score in scores.items()}
    said = verdict(comparison)
    notes.log_metrics([(NEXT_STEP, values)])
    notes.log_dataset(dataset_name(request), dataset.sha256, dataset.uri)
    for name in (PAGE, NUMBERS):
        notes.log_text((made / name).read_text(encoding="utf-8"), name)
    notes.set_tags({"verdict": said})
    notes.describe(
        f"Ablation of {len(comparison['arms'])} encoders: {said}.\n\nThe page is `{PAGE}` among the artifacts."
    )


def _deliver(request: Request, report: Reference) -> None:
    """Copy the page to `<run folder>/report/`."""
    from vl3.report.arms import NUMBERS, PAGE

    if request.run_folder is None:
        return
    made, target = fetch(report), own_folder(request.run_folder / "report")
    for name in (PAGE, NUMBERS):
        atomic_write_bytes(target / name, (made / name).read_bytes())


def _redeliver(request: Request, record: StepRecord) -> None:
    """Copy a reused page, too: it is still this run's page."""
    _deliver(request, record.output("report"))
    with open_tracker(request).notes(request.task) as notes:
        _note(request, notes, record.output("report"))


def _run_name(request: Request) -> str:
    return request.run_folder.name if request.run_folder else request.run_id


def key_parts(request: Request) -> dict[str, Any]:
    """What the page says of the arms beside their scores, which are in the inputs."""
    config = cast("AblationConfig", request.config)
    arms = {
        name: [arm.title, arm.vision_base, arm.picture_side_px, dict(arm.published)]
        for name, arm in config.arms.items()
    }
    return {"arms": arms, "run": _run_name(request)}


STEP = Step(
    entries=("vl3.steps.compare_arms", "vl3.report.arms"),
    run=run,
    key_parts=key_parts,
    on_reuse=_redeliver,
)
