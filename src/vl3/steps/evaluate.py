"""Step: held-out accuracy of every task, before training and after each stage."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.run import RunConfig
from vl3.evaluation.document import CHAMPION, EVALUATION_FILE, EVIDENCE_FILE, own_models, read_evaluation
from vl3.steps.chain import MODEL, trained_stages
from vl3.steps.champion import FoundChampion, champion_digest, find_champion
from vl3.steps.datasets import fetch_heldout
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch
from vl3.store.bases import LANGUAGE, VISION, fetch_base
from vl3.store.reference import Reference
from vl3.system.files import atomic_write_json
from vl3.workflow.step import Step, StepOutcome
from vl3.workflow.tracking import dataset_name

log = logging.getLogger("vl3.step")

GIVEN = "model"
"""Name of the model of a run that trains nothing."""


def run(work: Work) -> StepOutcome:
    """Generate answers with each model and count the correct ones."""
    from vl3.evaluation.runner import EvaluatedModel, evaluate_models
    from vl3.evaluation.shown_pictures import write_shown_pictures

    inputs, config = work.request.inputs, work.request.config
    champion = find_champion(work.request)
    asked = _with_champion(_models(work.request), champion)
    models = [EvaluatedModel(name=name, folder=None if found is None else fetch(found)) for name, found in asked]
    with (
        work.step_run() as step_run,
        work.fresh_folder("evaluation") as folder,
        work.fresh_folder("heldout") as heldout,
    ):
        step_run.log_params(to_dict(config.evaluation))
        dataset = inputs["dataset"]
        step_run.log_dataset(dataset_name(work.request), dataset.sha256, dataset.uri, context="evaluation")
        samples, with_bases = fetch_heldout(dataset, heldout), _with_imported_bases(work.request)
        evaluate_models(models, samples, with_bases, out_folder=folder, progress=work.progress)
        _write_evidence(work.request, asked, champion, folder)
        write_shown_pictures(models, samples, with_bases, folder)
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


def _models(request: Request) -> list[tuple[str, Reference | None]]:
    """Name and artifact of each model; None for the one that is assembled from the bases.

    A run that trains nothing evaluates the model that it was given, and nothing else.
    """
    start, checkpoint = request.inputs["start"], request.inputs["checkpoint"]
    given = start if start.kind == MODEL else None
    if checkpoint.kind == MODEL:
        return [(GIVEN, given)]
    chain = trained_stages(checkpoint, request.artifacts_uri)
    return [("before", given), *((stage.name, stage.checkpoint) for stage in chain)]


def _with_champion(
    models: list[tuple[str, Reference | None]], champion: FoundChampion | None
) -> list[tuple[str, Reference | None]]:
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
        },
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
    evaluation.pop("processes")
    data.pop("build_workers")
    stages = {
        name: [stage.image_merge_size, stage.video_merge_size, stage.difffp] for name, stage in config.stages.items()
    }
    parts = {"evaluation": evaluation, "data": data, "stages": stages, "seed": config.seed}
    return {**parts, "champion": champion_digest(request)}


STEP = Step(
    libraries=("torch", "transformers", "tokenizers", "av", "pillow"),
    run=run,
    key_parts=key_parts,
)
