"""Step: held-out accuracy of every task, of the models that the configuration names.

The questions are answered by a job: processes on this machine, or pods of a TrainJob where `placements.evaluation`
says. They keep each answer as it comes, so that a step that is started again asks what has no answer yet; this step
puts the answers together.
"""

import itertools
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.codec import to_dict
from vl3.config.evaluation import evaluated_models
from vl3.config.placement import BENCHMARKS, EVALUATION
from vl3.config.run import RunConfig
from vl3.config.stages import STARTUP_SECONDS
from vl3.evaluation.document import CHAMPION, EVALUATION_FILE, EVIDENCE_FILE, own_models, read_evaluation
from vl3.evaluation.job import EvaluationJob
from vl3.launch.backend import launch
from vl3.launch.job import EVALUATING, LaunchJob
from vl3.steps.benchmarks import (
    asked_items,
    benchmark_copies,
    bring_scores,
    harness_python,
    headlines,
    partial_copies,
    submitted,
)
from vl3.steps.chain import MODEL, trained_stages
from vl3.steps.champion import FoundChampion, champion_digest, find_champion
from vl3.steps.judging import judging_of
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch
from vl3.store.bases import LANGUAGE, VISION, fetch_base
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.files import atomic_write_json
from vl3.training.events import EVENTS_NAME
from vl3.training.outcome import FAILURE_NAME
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun

log = logging.getLogger("vl3.step")

GIVEN = "model"
"""Name of the model of a run that trains nothing."""
BEFORE = "before"
"""Name of what the first stage starts from."""
Models = list[tuple[str, Reference | None]]
"""Name and artifact of each model; None for the one that is assembled from the bases."""


def run(work: Work) -> StepOutcome:
    """Have the models answer, count the correct answers, and write what they show."""
    config, champion = work.request.config, _asked_champion(work.request)
    models = _with_champion(_models(work.request), champion)
    with work.step_run() as step_run, work.fresh_folder("evaluation") as folder:
        step_run.log_params(to_dict(config.evaluation))
        dataset = work.request.inputs["dataset"]
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="evaluation")
        _launch(work, models, step_run)
        _collect(work, models, champion, folder)
        result = read_evaluation(folder)
        step_run.log_metrics([(_number(config, model["name"]), _metrics(model)) for model in own_models(result)])
        reference = work.publish(folder, "evaluation", kind="evaluation")
        for name in (EVALUATION_FILE, EVIDENCE_FILE):
            step_run.log_text((fetch(reference) / name).read_text(encoding="utf-8"), name)
    work.clear()
    for model in own_models(result):
        log.info("%s: mean held-out accuracy %.3f", model["name"], model["mean_accuracy"])
    means = {model["name"]: model["mean_accuracy"] for model in own_models(result)}
    return StepOutcome(outputs={"evaluation": reference}, values={"mean_accuracy": means})


def _launch(work: Work, models: Models, step_run: "StepRun") -> None:
    """Run the job to its end; what is answered already is not asked again."""

    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "progress":
            work.progress(event["done"], event["total"], event["text"])
        elif event["type"] == "state":
            step_run.set_tags({"vl3.launch_state": event["state"], "vl3.launch_state_text": event["text"]})

    for kind in (EVALUATION, BENCHMARKS) if work.request.config.evaluation.benchmarks else (EVALUATION,):
        result = launch(_launch_job(work, models, kind), tell)
        numbers = {f"{kind}/attempts": result.attempts, f"{kind}/seconds_queued": result.seconds_queued}
        step_run.log_metrics([(0, numbers | {f"{kind}/seconds_running": result.seconds_running})])


def _launch_job(work: Work, models: Models, kind: str) -> LaunchJob:
    """The job of the held-out samples or of the benchmarks, by the name of its placement."""
    request, folder = work.request, work.work_folder() / kind
    folder.mkdir(exist_ok=True)
    settings, placement = request.config.launch, request.config.placements.get(kind)
    is_local = settings.backend == "local" or placement is None
    events_path, failure_path = folder / EVENTS_NAME, folder / FAILURE_NAME
    job = _evaluation_job(work, models, kind)
    if is_local:
        job = replace(job, commit=request.commit, events_path=str(events_path), failure_path=str(failure_path))
    return LaunchJob(
        name=request.task,
        backend="local" if is_local else settings.backend,
        run_id=request.run_id,
        stage=kind,
        module="vl3.evaluation.harness.worker" if kind == BENCHMARKS else "vl3.evaluation.worker",
        python=str(harness_python()) if kind == BENCHMARKS and is_local else "",
        document=asdict(job),
        processes_per_node=request.config.evaluation.processes,
        threads_per_process=settings.threads_per_process,
        placement=None if is_local else placement,
        packs_per_step=None,
        log_path=request.log_path,
        events_path=events_path,
        failure_path=failure_path,
        work_uri=job.work_uri,
        startup_seconds=max(STARTUP_SECONDS, settings.task_stall_seconds),
        stall_seconds=settings.task_stall_seconds,
        words=EVALUATING,
    )


def _evaluation_job(work: Work, models: Models, kind: str) -> EvaluationJob:
    """The job as pods get it: independent of this machine, so that a new launcher creates the same one."""
    request = work.request
    copies = benchmark_copies(request.config.evaluation) if kind == BENCHMARKS else {}
    return EvaluationJob(
        config=to_dict(request.config),
        stage_order=list(request.config.stages),
        models=[{"name": name, "checkpoint": None if one is None else one.to_dict()} for name, one in models],
        start=request.inputs["start"].to_dict(),
        dataset=request.inputs["dataset"].to_dict(),
        judging=judging_of(request),
        benchmarks=[{"name": name, "copy": copy.to_dict()} for name, copy in copies.items()],
        work_uri=join_uri(work.work_uri, kind),
        identity=work.key,
        code_version=work.code_version,
        commit="",
        events_path="",
        failure_path="",
    )


def _collect(work: Work, models: Models, champion: FoundChampion | None, folder: Path) -> None:
    """Score the answers that the processes have kept, and write what they can show."""
    from vl3.evaluation.asking import Questions
    from vl3.evaluation.candidates import EvaluatedModel
    from vl3.evaluation.dataset import HeldoutSamples
    from vl3.evaluation.journal import read_answers
    from vl3.evaluation.judging.rule import rules_by_dataset
    from vl3.evaluation.runner import write_evaluation
    from vl3.evaluation.shown_pictures import write_shown_pictures

    request = work.request
    answers = read_answers(join_uri(work.work_uri, EVALUATION), work.key)
    # The weights were verified by the processes that loaded them; here only their settings are read.
    evaluated = [
        EvaluatedModel(name=name, folder=None if one is None else fetch(one, verified=())) for name, one in models
    ]
    config = _with_imported_bases(request)
    with tempfile.TemporaryDirectory(prefix="vl3-heldout-") as scratch:
        samples = HeldoutSamples(request.inputs["dataset"], Path(scratch))
        questions = Questions.of_samples(samples, config, rules_by_dataset(judging_of(request)))
        write_evaluation(evaluated, answers, questions, config, out_folder=folder)
        if config.evaluation.benchmarks:
            bring_scores(join_uri(work.work_uri, BENCHMARKS), folder)
        _write_evidence(request, models, champion, folder)
        write_shown_pictures(evaluated, questions, config, folder)


def _models(request: Request) -> Models:
    """The run's own models that are asked, the candidate last; a run that trains nothing asks the one it was given."""
    start, checkpoint = request.inputs["start"], request.inputs["checkpoint"]
    given, wanted = start if start.kind == MODEL else None, evaluated_models(request.config.evaluation.models)
    if checkpoint.kind == MODEL:
        return [(GIVEN, given)]
    chain = trained_stages(checkpoint, request.artifacts_uri)
    before: Models = [(BEFORE, given)] if "before" in wanted else []
    stages = chain if "stages" in wanted else chain[-1:]
    return [*before, *((stage.name, stage.checkpoint) for stage in stages)]


def _asks_champion(request: Request) -> bool:
    return CHAMPION in evaluated_models(request.config.evaluation.models)


def _asked_champion(request: Request) -> FoundChampion | None:
    """The champion; without its checkpoint if the configuration does not have it asked."""
    champion = find_champion(request)
    if champion is None or _asks_champion(request):
        return champion
    why = "evaluation.models does not name it. Add champion there"
    return replace(champion, checkpoint=None, why=why)


def _with_champion(models: Models, champion: FoundChampion | None) -> Models:
    """The champion first, since the last model is the candidate, unless it is one of the models already."""
    if champion is None or champion.checkpoint is None or _name_of(champion, models) != CHAMPION:
        return models
    return [(CHAMPION, champion.checkpoint), *models]


def _name_of(champion: FoundChampion, models: Sequence[tuple[str, Reference | None]]) -> str:
    """The name under which a champion is evaluated: that of the model that a run started from, if it is the same."""
    same = [name for name, found in models if found is not None and found.sha256 == champion.sha256]
    return same[0] if same else CHAMPION


def _write_evidence(
    request: Request, models: Sequence[tuple[str, Reference | None]], champion: FoundChampion | None, folder: Path
) -> None:
    """Write what the item records in the folder can show: scores, and differences between stages and to the champion.

    Of before, a, b and a champion the pairs are before-a, a-b, before-b and champion-b.
    """
    from vl3.evaluation.evidence import make_evidence
    from vl3.evaluation.published import paper_groups
    from vl3.evaluation.records import read_records

    own = [name for name, _ in models if name != CHAMPION]
    facts = None
    pairs = [*itertools.pairwise(own), (own[0], own[-1])]
    if champion is not None:
        name = _name_of(champion, models) if champion.checkpoint else None
        facts = {"version": champion.version, "model": name, "why": champion.why}
        pairs += [(name, own[-1])] if name else []
    evidence = make_evidence(
        read_records(folder),
        pairs=[pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]],
        groups=paper_groups(),
        champion=facts,
        made_of={
            "dataset": request.inputs["dataset"].sha256,
            "checkpoints": {name: found.sha256 for name, found in models if found is not None},
            "asked": asked_items(folder),
            "partial": partial_copies(folder),
        },
        headlines=headlines(folder),
        submitted=submitted(folder),
    )
    atomic_write_json(folder / EVIDENCE_FILE, evidence)


def _with_imported_bases(request: Request) -> RunConfig:
    """The configuration with the bases where the run has them: the model before training is made of them."""
    start, config = request.inputs["start"], request.config
    if start.kind == MODEL:
        return config
    vision, language = fetch_base(start, VISION).as_uri(), fetch_base(start, LANGUAGE).as_uri()
    return replace(config, model=replace(config.model, vision_base=vision, language_base=language))


def _number(config: RunConfig, name: str) -> int:
    """The metric's step: the stage's number in the recipe, 0 for the model before training."""
    return config.stage_number(name) if name in config.stages else 0


def _metrics(model: dict[str, Any]) -> dict[str, float]:
    """Accuracy by category."""
    values = {f"accuracy/{name}": task["accuracy"] for name, task in model["tasks"].items()}
    return {
        name: value for name, value in {"accuracy/mean": model["mean_accuracy"], **values}.items() if value is not None
    }


def key_parts(request: Request) -> dict[str, Any]:
    """How media are prepared and answers generated, and the champion that is asked, too."""
    config = request.config
    evaluation, data = to_dict(config.evaluation), to_dict(config.data)
    for only_how in ("processes", "prepare_threads", "prepare_timeout_seconds"):
        evaluation.pop(only_how)
    data.pop("build_workers")
    stages = {
        name: [stage.image_merge_size, stage.video_merge_size, stage.difffp] for name, stage in config.stages.items()
    }
    champion = champion_digest(request) if _asks_champion(request) else ""
    copies = benchmark_copies(config.evaluation)
    evaluation["judging"] = judging_of(request)
    evaluation["benchmark_data"] = {name: copy.sha256 for name, copy in copies.items()}
    parts = {"evaluation": evaluation, "data": data, "stages": stages, "seed": config.seed, "champion": champion}
    return {**parts, **config.model.fixed_resolution}


STEP = Step(
    libraries=("torch", "transformers", "tokenizers", "av", "pillow"),
    run=run,
    key_parts=key_parts,
)
