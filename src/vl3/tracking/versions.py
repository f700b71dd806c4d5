"""One model version as a row: what its few tags hold, and its description in words.

Tags for people are words (`stage`, `mean accuracy`, `verdict`); what the gates need again is JSON in three tags of
ours. A tag that is not as we write it counts as missing, and the gates refuse what is missing.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vl3.errors import GateError
from vl3.tracking.evidence import Evidence, number
from vl3.tracking.gates import ALWAYS, GateResult, gate_table, is_promotable

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

STAGE, MEAN, VERDICT = "stage", "mean accuracy", "verdict"
MADE_FROM, EVIDENCE, PROMOTION = "vl3.made_from", "vl3.evidence", "vl3.promotion"
PASSED, REFUSED = "passed", "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRow:
    """One model version as a row of a table."""

    version: int
    """Number of the version."""
    aliases: tuple[str, ...]
    """Aliases that point to it."""
    stage: str
    """Training stage that created the checkpoint."""
    source: str
    """URI of the checkpoint."""
    decision: str
    """`passed` or `refused` by the gates; empty if never evaluated."""
    mean_accuracy: float | None
    """Mean held-out accuracy; None if never evaluated."""
    created_at: float
    """Unix time of registration."""
    made_from: Mapping[str, Any]
    """Digests of checkpoint, dataset and configuration, number of steps, id of the run."""
    evidence: Mapping[str, Any]
    """Scores, results of the gates, the dataset, and the champion that it was compared with; empty if not judged."""
    promotion: Mapping[str, Any]
    """The previous champion, who promoted it and when, and who rolled it back; empty if it was never champion."""

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Its scores by benchmark and BENCHMARK/PART."""
        scores = self.evidence.get("scores")
        found = scores.items() if isinstance(scores, dict) else ()
        return {name: score for name, score in found if isinstance(score, dict)}

    @property
    def required(self) -> list[str]:
        """Names of the gates that its evidence was judged by; empty if that is not recorded."""
        names = self.evidence.get("required")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    @property
    def gates(self) -> list[GateResult]:
        """The results of the gates that were recorded, in their order."""
        recorded = self.evidence.get("gates")
        by_name = recorded if isinstance(recorded, dict) else {}
        fields = set(GateResult.__dataclass_fields__)
        return [
            GateResult(**by_name[name])
            for name in self.required
            if isinstance(by_name.get(name), dict) and set(by_name[name]) == fields
        ]


def row_of(found: "ModelVersion", aliases: Mapping[str, int]) -> VersionRow:
    """The row of MLflow's version."""
    tags, version = dict(found.tags), int(found.version)
    evidence = _read(tags, EVIDENCE)
    mean = number(evidence.get("mean_accuracy"))
    return VersionRow(
        version=version,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == version)),
        stage=tags.get(STAGE, ""),
        source=found.source or "",
        decision=tags.get(VERDICT, ""),
        mean_accuracy=mean,
        created_at=found.creation_timestamp / 1000,
        made_from=_read(tags, MADE_FROM),
        evidence=evidence,
        promotion=_read(tags, PROMOTION),
    )


def evidence_tags(evidence: Evidence, results: Sequence[GateResult]) -> dict[str, str]:
    """The tags of a version that was judged: its scores in short; all of the evidence is an artifact of the run."""
    required = [result.name for result in results]
    facts = {
        "mean_accuracy": evidence.mean_accuracy,
        "dataset_digest": evidence.dataset_digest,
        "judged_against": evidence.champion.version if evidence.champion else None,
        "scores": evidence.scores(),
        "required": required,
        "gates": {result.name: result.to_dict() for result in results},
    }
    return {
        MEAN: "unknown" if evidence.mean_accuracy is None else f"{evidence.mean_accuracy:.4f}",
        VERDICT: PASSED if is_promotable(results, required) else REFUSED,
        EVIDENCE: json.dumps(facts),
    }


def require_passed(model: str, row: VersionRow) -> None:
    """Raise GateError unless the version's tags have a passing result of every gate."""
    results = row.gates
    if row.decision == PASSED and is_promotable(results, row.required):
        return
    if not results:
        raise GateError(
            f"{model} v{row.version} was never evaluated, so there is no evidence that it can be champion. Evaluate "
            "it: the workflow's evaluate and promote steps record the evidence."
        )
    missing = [name for name in (*ALWAYS, *row.required) if name not in {result.name for result in results}]
    note = f"\nWithout a result: {', '.join(dict.fromkeys(missing))}." if missing else ""
    raise GateError(f"{model} v{row.version} is refused by the gates:\n{gate_table(results)}{note}")


def describe(row: VersionRow) -> str:
    """What a person wants to know of a version. Plain text, whose first words a table of versions shows."""
    steps, run_id = row.made_from.get("step"), row.made_from.get("run_id")
    facts = ", ".join([f"{steps} steps"] * bool(steps) + [f"run {run_id}"] * bool(run_id))
    trained = f"Stage {row.stage}{f' ({facts})' if facts else ''}."
    return "\n\n".join([*_promotions(row), *_judgement(row), trained])


def promotion_note(row: VersionRow) -> str:
    """Who promoted a version and when."""
    return f"promoted by {row.promotion.get('by') or 'unknown'} at {row.promotion.get('at') or 'an unknown time'}"


def version_table(rows: Sequence[VersionRow]) -> list[dict[str, str]]:
    """Rows for the terminal: version, aliases, stage, mean accuracy, gates, registration time, source."""
    return [
        {
            "version": str(row.version),
            "aliases": ", ".join(row.aliases),
            "stage": row.stage,
            "mean accuracy": "" if row.mean_accuracy is None else f"{row.mean_accuracy:.4f}",
            "gates": row.decision,
            "registered": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(row.created_at)),
            "source": row.source,
        }
        for row in rows
    ]


def _judgement(row: VersionRow) -> list[str]:
    """Nothing for a version that was never judged: a stage on the way to the last one."""
    if not row.evidence:
        return []
    mean = "unknown" if row.mean_accuracy is None else f"{row.mean_accuracy:.3f}"
    against = row.evidence.get("judged_against")
    compared = f"Compared with champion v{against}." if against else "There was no champion to compare with."
    failed = [f"\n- {result.name}: {result.detail}" for result in row.gates if not result.passed]
    gates = f"Refused by:{''.join(failed)}" if failed else "Every gate passed."
    benchmarks = [name for name in row.scores if "/" not in name]
    return [f"Score {mean} on {', '.join(benchmarks) or 'nothing'}. {compared} {gates}"]


def _promotions(row: VersionRow) -> list[str]:
    if not row.promotion.get("at"):
        return []
    previous = row.promotion.get("previous")
    lines = [f"Champion, {promotion_note(row)}, " + (f"after v{previous}." if previous else "the first one.")]
    if row.promotion.get("rolled_back_at"):
        lines.append(
            f"Rolled back by {row.promotion.get('rolled_back_by') or 'unknown'} at {row.promotion['rolled_back_at']}."
        )
    return lines


def _read(tags: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        data = json.loads(tags.get(name) or "{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
