"""Step: let the gates decide whether the last stage's checkpoint becomes champion. A refusal is a result, too."""

import dataclasses
import json
import logging
from typing import Any

from vl3.config.codec import to_dict
from vl3.config.data import Category
from vl3.config.run import RunConfig
from vl3.errors import GateError, StorageError
from vl3.evaluation.document import read_evaluation
from vl3.steps.chain import trained_stages
from vl3.steps.registry import open_registry, register_checkpoint
from vl3.steps.request import Request, Work
from vl3.store.artifacts import fetch
from vl3.system.files import atomic_write_json
from vl3.tracking.evidence import Evidence, scores_from_evaluation
from vl3.tracking.gates import GateResult, evaluate_gates, gate_table, is_promotable
from vl3.tracking.registry import Registry
from vl3.validation.result import RESULT_FILE
from vl3.workflow.step import Step, StepOutcome

log = logging.getLogger(__name__)

PROMOTION_FILE = "promotion.json"
"""File with the decision and its evidence in the folder of a promotion."""


def run(work: Work) -> StepOutcome:
    """Collect the evidence, evaluate the gates, move the alias if all pass, and record decision and evidence."""
    request = work.request
    inputs = request.inputs
    with work.step_run() as step_run, work.fresh_folder("promotion") as folder:
        registry = open_registry(request)
        stage = trained_stages(inputs["checkpoint"], request.artifacts_uri)[-1].name
        version = register_checkpoint(request, stage, inputs["checkpoint"], inputs["dataset"])
        evidence = _gather(request, registry, stage, version)
        results = evaluate_gates(evidence, request.config.promotion)
        registry.record_evidence(version, evidence, results)
        decision = _decide(registry, version, results, request.run_id)
        decision |= {"model": registry.model, "version": version, "gates": [result.to_dict() for result in results]}
        decision["champion"] = _compared_with(evidence)
        log.info("%s version %d: %s\n%s", registry.model, version, decision["state"], gate_table(results))
        step_run.set_tags({"vl3.promotion": decision["state"], "vl3.model_version": version})
        step_run.log_json(decision, PROMOTION_FILE)
        atomic_write_json(folder / PROMOTION_FILE, decision)
        reference = work.publish(folder, "promotion", kind="promotion")
    work.clear()
    return StepOutcome(
        outputs={"promotion": reference}, values={name: decision[name] for name in ("state", "version", "reason")}
    )


def expected_categories(config: RunConfig) -> tuple[str, ...]:
    """The categories that any stage trains on; each of them needs a score."""
    named = {kind.partition(":")[0] for stage in config.stages.values() for kind in stage.mixture}
    return tuple(category.value for category in Category if category.value in named)


def _gather(request: Request, registry: Registry, stage: str, version: int) -> Evidence:
    inputs, config = request.inputs, request.config
    tasks, mean = scores_from_evaluation(read_evaluation(fetch(inputs["evaluation"])), stage)
    champion = registry.champion()
    is_champion = champion is not None and champion.version == version  # an interrupted attempt has promoted it
    return Evidence(
        tasks=tasks,
        mean_accuracy=mean,
        expected_categories=expected_categories(config),
        samples_per_task=config.evaluation.samples_per_task,
        champion=None if is_champion else registry.champion_evidence(),
        validation_passed=_validation_passed(request),
        checkpoint_verified=_is_checkpoint_whole(request),
        dataset_digest=inputs["dataset"].sha256,
    )


def _validation_passed(request: Request) -> bool | None:
    path = fetch(request.inputs["validation"]) / RESULT_FILE
    return json.loads(path.read_text(encoding="utf-8")).get("passed")


def _is_checkpoint_whole(request: Request) -> bool:
    try:
        fetch(request.inputs["checkpoint"])
    except StorageError as error:
        log.error("the checkpoint is missing or damaged: %s", error)
        return False
    return True


def _decide(registry: Registry, version: int, results: list[GateResult], holder: str) -> dict[str, Any]:
    champion = registry.champion()
    if champion is not None and champion.version == version:
        return {"state": "champion", "reason": "an earlier attempt promoted it", "former_champion": None}
    if not is_promotable(results):
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
    is_comparable = champion.dataset_digest is not None and champion.dataset_digest == evidence.dataset_digest
    tasks = {category: dataclasses.asdict(score) for category, score in champion.tasks.items()}
    return {"version": champion.version, "is_comparable": is_comparable, "tasks": tasks}


def key_parts(request: Request) -> dict[str, Any]:
    """The gates' thresholds."""
    config = request.config
    return {
        "promotion": to_dict(config.promotion),
        "samples_per_task": config.evaluation.samples_per_task,
        "categories": list(expected_categories(config)),
        "tracking_uri": request.injected.get("MLFLOW_TRACKING_URI") or request.tracking_uri,
    }


STEP = Step(
    entries=("vl3.steps.promote", "vl3.tracking.gates", "vl3.tracking.evidence"),
    run=run,
    key_parts=key_parts,
)
