"""Step: let the gates decide whether the last stage's checkpoint becomes champion. A refusal is a result, too."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.data import Category
from vl3.config.gates import HELDOUT
from vl3.config.mixture import MixtureKey
from vl3.config.run import RunConfig
from vl3.errors import GateError, StorageError
from vl3.evaluation.document import EVIDENCE_FILE, read_evidence
from vl3.steps.chain import TrainedStage, trained_stages
from vl3.steps.registry import candidate, open_registry
from vl3.steps.request import Request, Work, trained_by
from vl3.store.artifacts import fetch
from vl3.system.files import atomic_write_json
from vl3.system.secrets import without_account
from vl3.tracking.client import patiently
from vl3.tracking.evidence import Evidence, require_model
from vl3.tracking.gates import GateResult, evaluate_gates, gate_names, gate_table, is_promotable
from vl3.tracking.registry import Registry
from vl3.validation.result import RESULT_FILE
from vl3.workflow.record import record_of
from vl3.workflow.step import Step, StepOutcome

log = logging.getLogger(__name__)

PROMOTION_FILE = "promotion.json"
"""File with the decision and its evidence in the folder of a promotion."""


def run(work: Work) -> StepOutcome:
    """Collect the evidence, evaluate the gates, move the alias if all pass, and record decision and evidence."""
    request = work.request
    with work.step_run() as step_run, work.fresh_folder("promotion") as folder:
        step_run.log_params(to_dict(request.config.promotion))
        measured = _measure(request)
        decision = patiently(lambda: _promote(request, measured))
        step_run.set_tags(
            {"verdict": decision["state"], "model version": f"{decision['model']} v{decision['version']}"}
        )
        step_run.log_json(decision, PROMOTION_FILE)
        step_run.log_json(measured.document, EVIDENCE_FILE)
        atomic_write_json(folder / PROMOTION_FILE, decision)
        reference = work.publish(folder, "promotion", kind="promotion")
    work.clear()
    return StepOutcome(
        outputs={"promotion": reference}, values={name: decision[name] for name in ("state", "version", "reason")}
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measured:
    """What does not need the registry."""

    stages: list[TrainedStage]
    """The stages with their checkpoints."""
    document: dict[str, Any]
    """The evaluation's evidence."""
    validation_passed: bool | None
    """Whether the data passed."""
    trained_categories: tuple[str, ...]
    """Categories of the training samples."""
    checkpoint_verified: bool
    """Whether the last checkpoint is whole."""


def _measure(request: Request) -> _Measured:
    stages = trained_stages(request.inputs["checkpoint"], request.artifacts_uri)
    document = read_evidence(fetch(request.inputs["evaluation"]))
    require_model(document, stages[-1].name)
    validation = json.loads((fetch(request.inputs["validation"]) / RESULT_FILE).read_text(encoding="utf-8"))
    return _Measured(
        stages=stages,
        document=document,
        validation_passed=validation.get("passed"),
        trained_categories=tuple(validation.get("facts", {}).get("by_category", {}).get("train", ())),
        checkpoint_verified=_is_checkpoint_whole(request),
    )


def _promote(request: Request, measured: _Measured) -> dict[str, Any]:
    """Register, judge, decide. Each part may be repeated, so all of it may, when the tracking store fails in between.

    Every stage is registered here, in case the step that trained it could not reach the store, or had another one.
    """
    registry = open_registry(request)
    dataset = request.inputs["dataset"]
    versions = {
        stage.name: registry.register_candidate(
            **candidate(
                request,
                stage.name,
                stage.checkpoint,
                dataset,
                steps=record_of(stage.checkpoint).values.get("steps"),
            )
        )
        for stage in measured.stages
    }
    version = versions[measured.stages[-1].name]
    evidence = _gather(request, registry, measured)
    gates = request.config.promotion.gates
    results = evaluate_gates(evidence, gates)
    registry.record_evidence(version, evidence, results)
    decision = _decide(registry, version, results, gate_names(gates), request.run_id)
    log.info("%s version %d: %s\n%s", registry.model, version, decision["state"], gate_table(results))
    return decision | {
        "model": registry.model,
        "version": version,
        "versions": versions,
        "champion": _compared_with(evidence),
        "candidate": evidence.model,
        "gates": [result.to_dict() for result in results],
    }


def expected_categories(config: RunConfig, stages: Iterable[str], in_data: Iterable[str] = ()) -> tuple[str, ...]:
    """The categories that any of the run's stages trains on; each of them needs a score.

    A mixture that names a whole dataset may draw any category of the training data, `in_data`.
    """
    keys = [MixtureKey.parse(key) for stage in stages for key in config.stages[stage].mixture]
    named = {key.category for key in keys if key.category is not None}
    if any(key.category is None for key in keys):
        named |= {Category(name) for name in in_data}
    return tuple(category.value for category in Category if category in named)


def expected_items(config: RunConfig, stages: Iterable[str], in_data: Iterable[str] = ()) -> dict[str, dict[str, int]]:
    """Items that must have been asked, by benchmark and part."""
    samples = config.evaluation.samples_per_task
    return {HELDOUT: dict.fromkeys(expected_categories(config, stages, in_data), samples)}


def _gather(request: Request, registry: Registry, measured: _Measured) -> Evidence:
    inputs, last = request.inputs, measured.stages[-1]
    return Evidence(
        document=measured.document,
        model=last.name,
        expected={
            **{name: {"": int(items)} for name, items in measured.document["made_of"].get("asked", {}).items()},
            **expected_items(request.config, trained_by(request), measured.trained_categories),
        },
        champion=registry.champion_evidence(last.checkpoint.sha256),
        checkpoint_sha256=last.checkpoint.sha256,
        dataset_digest=inputs["dataset"].sha256,
        validation_passed=measured.validation_passed,
        checkpoint_verified=measured.checkpoint_verified,
    )


def _is_checkpoint_whole(request: Request) -> bool:
    try:
        fetch(request.inputs["checkpoint"])
    except StorageError as error:
        log.error("the checkpoint is missing or damaged: %s", error)
        return False
    return True


def _decide(
    registry: Registry, version: int, results: list[GateResult], required: list[str], holder: str
) -> dict[str, Any]:
    champion = registry.champion()
    if champion is not None and champion.version == version:
        return {"state": "champion", "reason": "an earlier attempt promoted it", "former_champion": None}
    if not is_promotable(results, required):
        failed = ", ".join(result.name for result in results if not result.passed)
        return {"state": "refused", "reason": f"gates not passed: {failed}", "former_champion": None}
    try:
        former = registry.set_champion(version, holder=holder)
    except GateError as error:  # the champion has changed meanwhile
        return {"state": "refused", "reason": str(error).splitlines()[0], "former_champion": None}
    return {"state": "champion", "reason": "every gate passed", "former_champion": former}


def _compared_with(evidence: Evidence) -> dict[str, Any] | None:
    """The champion that the gates compared the candidate with, for the report; None if there was none."""
    champion = evidence.champion
    if champion is None:
        return None
    evaluated = evidence.evaluated_champion
    is_same = evaluated.get("version") == champion.version
    return {
        "version": champion.version,
        "model": evaluated.get("model") if is_same else None,
        "why": str(evaluated.get("why") or "") if is_same else "the evaluation was made beside another champion",
    }


def key_parts(request: Request) -> dict[str, Any]:
    """The gates' thresholds."""
    config = request.config
    return {
        "promotion": to_dict(config.promotion),
        "expected": expected_items(config, trained_by(request)),
        "tracking_uri": without_account(request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri),
    }


STEP = Step(
    entries=("vl3.steps.promote", "vl3.tracking.gates", "vl3.tracking.evidence"),
    run=run,
    key_parts=key_parts,
)
