"""Each gate passes on its evidence and refuses, with the reason, on weak or missing evidence."""

import math
from collections.abc import Callable

import pytest

from vl3.config.run import PromotionConfig
from vl3.errors import GateError
from vl3.proportions import wilson_interval
from vl3.tracking.evidence import ChampionEvidence, Evidence, ScoreEvidence, scores_from_evaluation
from vl3.tracking.gates import GATE_NAMES, GateResult, evaluate_gates, gate_table, is_promotable

CONFIG = PromotionConfig(
    registered_model="vl3-tiny", min_mean_accuracy=0.85, min_task_accuracy=0.6, max_regression=0.05
)
Make = Callable[..., Evidence]


def _score(
    correct: int | None, total: int | None = 100, chance: float | None = 0.25, **changes: object
) -> ScoreEvidence:
    accuracy = correct / total if correct is not None and total else None
    return ScoreEvidence(**{"accuracy": accuracy, "correct": correct, "total": total, "chance": chance, **changes})


def _gates(evidence: Evidence) -> dict[str, GateResult]:
    return {result.name: result for result in evaluate_gates(evidence, CONFIG)}


def _champion(digest: str | None = "d" * 64, **tasks: ScoreEvidence) -> ChampionEvidence:
    return ChampionEvidence(version=3, tasks=tasks, dataset_digest=digest)


def test_gates_pass_on_full_evidence(make_evidence: Make) -> None:
    results = evaluate_gates(make_evidence(), CONFIG)
    assert [result.name for result in results] == list(GATE_NAMES)
    assert all(result.passed for result in results)
    assert is_promotable(results)
    gates = _gates(make_evidence())
    assert (gates["mean_accuracy"].value, gates["mean_accuracy"].threshold) == (0.85, 0.85)
    assert (gates["task_accuracy"].value, gates["task_accuracy"].detail) == (0.8, "lowest: streaming")
    assert gates["beats_chance"].value == pytest.approx(wilson_interval(80, 100)[0] - 0.3)
    assert gates["no_regression"].detail == "there is no champion yet"
    assert gates["samples_per_task"].value == 100


def test_is_promotable_needs_every_gate(make_evidence: Make) -> None:
    results = evaluate_gates(make_evidence(), CONFIG)
    assert not is_promotable(results[:-1])
    assert not is_promotable([])


def test_mean_accuracy_refuses_below_threshold(make_evidence: Make) -> None:
    evidence = make_evidence(tasks={"chart": _score(84), "streaming": _score(84)}, mean_accuracy=0.84)
    gate = _gates(evidence)["mean_accuracy"]
    assert not gate.passed
    assert gate.detail == "0.8400 is below 0.8500"


@pytest.mark.parametrize("mean", [None, math.nan, math.inf], ids=str)
def test_mean_accuracy_refuses_when_missing(make_evidence: Make, mean: float | None) -> None:
    gate = _gates(make_evidence(mean_accuracy=mean))["mean_accuracy"]
    assert (gate.passed, gate.value, gate.detail) == (False, None, "the mean accuracy was not measured")


def test_mean_accuracy_refuses_one_that_contradicts_its_categories(make_evidence: Make) -> None:
    gate = _gates(make_evidence(mean_accuracy=0.95))["mean_accuracy"]
    assert not gate.passed
    assert gate.detail == "the reported mean 0.9500 is not the mean 0.8500 of its categories"


def test_task_accuracy_names_every_weak_category(make_evidence: Make) -> None:
    tasks = {"chart": _score(59), "streaming": _score(60), "document": _score(10)}
    gate = _gates(make_evidence(tasks=tasks))["task_accuracy"]
    assert not gate.passed
    assert gate.value == 0.1
    assert gate.detail == "chart 0.5900 is below 0.6000; document 0.1000 is below 0.6000"


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (_score(None), "chart: accuracy is missing"),
        (_score(90, accuracy=math.nan), "chart: accuracy is missing"),
        (_score(90, total=None, accuracy=0.9), "chart: the number of samples or of right answers is missing"),
        (_score(0, total=0, accuracy=0.0), "chart: no sample was evaluated"),
        (_score(50, accuracy=0.9), "chart: accuracy 0.9000 is not 50/100"),
    ],
    ids=["no-accuracy", "nan", "no-count", "no-sample", "contradiction"],
)
def test_gates_refuse_flawed_score(make_evidence: Make, score: ScoreEvidence, reason: str) -> None:
    gates = _gates(make_evidence(tasks={"chart": score, "streaming": _score(80)}))
    refused = [name for name, gate in gates.items() if not gate.passed]
    assert refused == ["mean_accuracy", "task_accuracy", "beats_chance", "samples_per_task"]
    assert all(reason in gates[name].detail for name in refused)


def test_gates_refuse_absent_category(make_evidence: Make) -> None:
    gates = _gates(make_evidence(expected_categories=("chart", "streaming", "document")))
    assert not gates["task_accuracy"].passed
    assert gates["task_accuracy"].detail == "document was not evaluated"
    assert not gates["mean_accuracy"].passed


def test_gates_refuse_empty_evaluation(make_evidence: Make) -> None:
    gates = _gates(make_evidence(tasks={}, expected_categories=(), mean_accuracy=1.0))
    assert not gates["mean_accuracy"].passed
    assert not gates["task_accuracy"].passed


@pytest.mark.parametrize(
    ("score", "passed"),
    [
        (_score(40, chance=0.30), True),
        (_score(38, chance=0.30), False),
        (_score(35, chance=0.30), False),
        (_score(2, total=4, chance=0.25), False),
        (_score(4, total=4, chance=0.25), True),
    ],
    ids=["clear", "within-error", "barely", "few-samples", "few-but-all-right"],
)
def test_beats_chance_needs_margin_above_sampling_error(
    make_evidence: Make, score: ScoreEvidence, passed: bool
) -> None:
    gate = _gates(make_evidence(tasks={"chart": score}, expected_categories=("chart",)))["beats_chance"]
    assert gate.passed is passed
    assert gate.value == pytest.approx(wilson_interval(score.correct, score.total)[0] - score.chance)


def test_beats_chance_refuses_unknown_chance(make_evidence: Make) -> None:
    gate = _gates(make_evidence(tasks={"chart": _score(99, chance=None)}, expected_categories=("chart",)))[
        "beats_chance"
    ]
    assert (gate.passed, gate.detail) == (False, "chart: chance is unknown")


def test_no_regression_allows_up_to_the_limit(make_evidence: Make) -> None:
    within = _gates(make_evidence(champion=_champion(chart=_score(95), streaming=_score(80))))["no_regression"]
    assert within.passed
    assert within.value == pytest.approx(-0.05)
    beyond = _gates(make_evidence(champion=_champion(chart=_score(96), streaming=_score(80))))["no_regression"]
    assert not beyond.passed
    assert beyond.detail == "chart fell from 0.9600 to 0.9000"


@pytest.mark.parametrize(
    ("champion", "reason"),
    [
        (_champion(chart=_score(90)), "streaming: the champion's accuracy is unknown"),
        (
            _champion(chart=_score(90), streaming=_score(80), document=_score(50)),
            "document: the champion has a score and the candidate has none",
        ),
        (_champion(digest="e" * 64), "champion v3 was measured on dataset eeeeeeeeeeee, the candidate on dddddddddddd"),
        (_champion(digest=None), "champion v3 was measured on dataset unknown"),
    ],
    ids=["no-score", "dropped-category", "other-data", "unknown-data"],
)
def test_no_regression_refuses_without_comparison(make_evidence: Make, champion: ChampionEvidence, reason: str) -> None:
    gate = _gates(make_evidence(champion=champion))["no_regression"]
    assert not gate.passed
    assert reason in gate.detail


def test_samples_per_task_refuses_small_samples(make_evidence: Make) -> None:
    gate = _gates(make_evidence(samples_per_task=101))["samples_per_task"]
    assert (gate.passed, gate.value, gate.threshold) == (False, 100, 101)
    assert gate.detail == "chart has 100 of 101 samples; streaming has 100 of 101 samples"


@pytest.mark.parametrize(("value", "word"), [(None, "left no result"), (False, "failed")], ids=["unknown", "failed"])
def test_verifications_refuse(make_evidence: Make, value: bool | None, word: str) -> None:
    gates = _gates(make_evidence(validation_passed=value, checkpoint_verified=value))
    assert not gates["data_validation"].passed
    assert gates["data_validation"].detail == f"the data validation {word}"
    assert not gates["checkpoint_digest"].passed
    assert gates["checkpoint_digest"].detail == f"the verification of the checkpoint's digests {word}"


def test_gate_table_shows_every_gate_and_reason(make_evidence: Make) -> None:
    lines = gate_table(evaluate_gates(make_evidence(validation_passed=None), CONFIG)).splitlines()
    assert lines[0].split() == ["gate", "result", "measured", "required", "detail"]
    assert lines[1].split() == ["mean_accuracy", "passed", "0.8500", "0.8500", "over", "2", "categories"]
    assert lines[6].split(maxsplit=4) == [
        "data_validation",
        "REFUSED",
        "-",
        "yes",
        "the data validation left no result",
    ]
    assert len(lines) == 1 + len(GATE_NAMES)


def test_scores_from_evaluation_reads_and_cleans() -> None:
    entry = {"name": "video", "mean_accuracy": float("nan"), "tasks": {"chart": {"accuracy": "0.9", "total": 10.0}}}
    tasks, mean = scores_from_evaluation({"models": [entry]}, "video")
    assert mean is None
    assert tasks == {"chart": ScoreEvidence(accuracy=None, correct=None, total=10, chance=None)}
    with pytest.raises(GateError, match=r"does not include the model 'alignment' \(it has video\)"):
        scores_from_evaluation({"models": [entry]}, "alignment")
