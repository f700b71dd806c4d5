"""Each gate passes on its evidence and refuses, with the reason, on weak, missing, stale or partial evidence."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.evidence import CHECKPOINT, answered, document, evidence, item
from vl3.config.gates import GateConfig
from vl3.errors import GateError
from vl3.proportions import one_sided, wilson_interval
from vl3.recipes.catalog import get_recipe
from vl3.tracking.evidence import Evidence, require_model
from vl3.tracking.gates import ALWAYS, GateResult, evaluate_gates, gate_names, gate_table, is_promotable

GATES = get_recipe("tiny").promotion.gates
NAMES = gate_names(GATES)


def gates(given: Evidence, rows: Mapping[str, GateConfig] = GATES) -> dict[str, GateResult]:
    return {result.name: result for result in evaluate_gates(given, rows)}


def one(given: Evidence, **row: Any) -> GateResult:
    """The result of a single gate."""
    return gates(given, {"it": GateConfig(**{"confidence": None, **row})})["it"]


def changed(given: Evidence, *path: str, value: Any) -> Evidence:
    """The evidence with one value of its document changed: `changed(e, "made_of", "dataset", value="x")`."""
    found = copy.deepcopy(dict(given.document))
    node = found
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    return replace(given, document=found)


def test_gates_pass_on_full_evidence() -> None:
    results = evaluate_gates(evidence(), GATES)
    assert [result.name for result in results] == NAMES
    assert [result.name for result in results if not result.passed] == []
    assert is_promotable(results, NAMES)
    found = gates(evidence())
    assert (found["mean_accuracy"].value, found["mean_accuracy"].threshold) == (0.85, 0.85)
    assert (found["task_accuracy"].value, found["task_accuracy"].detail) == (0.8, "lowest: heldout/streaming")
    bound = wilson_interval(80, 100, z=one_sided(0.975))[0]
    assert found["beats_chance"].value == pytest.approx(bound - 0.25)
    assert found["no_regression"].detail == "there is no champion yet"
    assert found["evidence"].detail == "all 2 expected scores are there"


@pytest.mark.parametrize("left_out", [*ALWAYS, "mean_accuracy"])
def test_a_promotion_needs_every_gate(left_out: str) -> None:
    results = evaluate_gates(evidence(), GATES)
    assert not is_promotable([result for result in results if result.name != left_out], NAMES)
    if left_out in ALWAYS:  # even if nobody asks for it
        names = [name for name in NAMES if name != left_out]
        assert not is_promotable([result for result in results if result.name != left_out], names)
    assert not is_promotable([], [])


def test_a_mean_below_its_threshold_is_refused() -> None:
    found = gates(evidence({"chart": 84, "streaming": 84}))["mean_accuracy"]
    assert (found.passed, found.value, found.detail) == (False, 0.84, "heldout 0.8400 is below 0.8500")


def test_each_weak_category_is_named() -> None:
    found = gates(evidence({"chart": 59, "streaming": 60, "document": 10}))["task_accuracy"]
    assert (found.passed, found.value) == (False, 0.1)
    assert found.detail == "heldout/chart 0.5900 is below 0.6000; heldout/document 0.1000 is below 0.6000"


def test_a_threshold_with_confidence_is_judged_by_the_bound() -> None:
    row = {"scope": "heldout/chart", "rule": "at_least", "threshold": 0.85}
    assert one(evidence(), **row).passed
    found = one(evidence(), **row, confidence=0.95)
    bound = wilson_interval(90, 100, z=one_sided(0.95))[0]
    assert found.detail == f"heldout/chart 0.9000 (at least {bound:.4f} with 95.0% confidence) is below 0.8500"


def test_what_is_missing_is_refused_by_name() -> None:
    expected = {"heldout": {"chart": 100, "streaming": 100, "document": 100}, "mvbench": {"": 1}}
    found = gates(evidence(expected=expected))
    assert found["evidence"].detail == "heldout/document was not evaluated; mvbench was not evaluated"
    assert found["task_accuracy"].detail == "heldout/document was not evaluated"
    assert found["answered"].detail == "mvbench was not evaluated"
    assert not found["evidence"].passed


def test_evidence_on_fewer_items_than_asked_for_is_partial() -> None:
    found = gates(evidence(expected={"heldout": {"chart": 101, "streaming": 100}}))["evidence"]
    assert (found.passed, found.detail) == (False, "heldout/chart has 100 of 101 items")


def test_an_evaluation_of_nothing_is_refused() -> None:
    found = gates(evidence(document={}, expected={}))
    assert {name for name, gate in found.items() if gate.passed} == {"data_validation", "checkpoint_digest", *()} | {
        "no_regression", "mean_not_worse", "benchmarks_not_worse", "answered", "judged"
    }  # fmt: skip
    assert found["evidence"].detail == "no benchmark was asked for"
    assert found["mean_accuracy"].detail == "heldout was not evaluated"
    with pytest.raises(GateError, match=r"does not include the model 'video' \(it has none\)"):
        require_model({}, "video")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (
            ("made_of", "checkpoints"),
            {"video": "f" * 64},
            "the scores are those of checkpoint ffffffffffff, the candidate is cccccccccccc",
        ),
        (("made_of", "checkpoints"), None, "the scores are those of checkpoint unknown"),
        (("made_of", "dataset"), "f" * 64, "they were measured on dataset ffffffffffff, the run's is dddddddddddd"),
        (("champion",), None, "the candidate was compared with no champion, and now v3 is champion"),
        (("champion", "version"), 2, "the candidate was compared with champion v2, and now v3 is champion"),
        (
            ("made_of", "checkpoints", "champion"),
            "f" * 64,
            "the champion was evaluated as checkpoint ffffffffffff and is registered as eeeeeeeeeeee",
        ),
    ],
    ids=["checkpoint", "no-checkpoint", "dataset", "no-champion", "old-champion", "champion-checkpoint"],
)  # fmt: skip
def test_stale_evidence_is_refused(path: tuple[str, ...], value: Any, reason: str) -> None:
    given = changed(evidence(champion={"chart": 90, "streaming": 80}), *path, value=value)
    found = gates(given)["fresh"]
    assert not found.passed
    assert reason in found.detail
    assert found.detail.endswith("Start the run again: it evaluates what has changed")


def test_open_answers_are_judged_against_the_best_constant_answer() -> None:
    """500 of 500 right was refused for ever, since open answers have no chance."""
    records = {"video": {"heldout": answered({"scene": 500}, 500, chance=None)}}
    found = gates(evidence(document=document(records, champion=False), expected={"heldout": {"scene": 500}}))
    assert found["beats_chance"].passed
    assert found["beats_chance"].value == pytest.approx(wilson_interval(500, 500)[0] - 63 / 500)
    constant = [item(number, float(number % 8 == 0), group="scene", chance=None) for number in range(80)]
    given = document({"video": {"heldout": constant}}, champion=False)
    refused = gates(evidence(document=given, expected={}))["beats_chance"]
    assert not refused.passed
    assert refused.detail.endswith("against 0.1250 by the best constant answer, since chance is unknown")


def test_a_gate_says_what_it_cannot_tell() -> None:
    captions = [item(number, 0.5 + number / 100, group="caption", chance=None) for number in range(40)]
    given = document({"video": {"heldout": captions}}, champion=False)
    given_evidence = evidence(document=given, expected={"heldout": {"caption": 40}})
    found = gates(given_evidence)["beats_chance"]
    assert (found.passed, found.value) == (True, None)
    assert found.detail == (
        "cannot tell: heldout/caption: chance is unknown, and a constant answer may be partly right"
    )
    alone = gates(given_evidence, {"beats_chance": GATES["beats_chance"]})["evidence"]
    assert (alone.passed, alone.detail) == (False, "no gate can judge heldout: add one of the rule at_least")


@pytest.mark.parametrize(
    ("right", "total", "chance", "passed"),
    [(40, 100, 0.30, True), (38, 100, 0.30, False), (2, 4, 0.25, False), (4, 4, 0.25, True), (99, 100, 1.0, False)],
    ids=["clear", "within-error", "few-samples", "few-but-all-right", "nothing-to-beat"],
)
def test_chance_is_beaten_by_more_than_sampling_error(right: int, total: int, chance: float, passed: bool) -> None:
    records = {"video": {"heldout": answered({"chart": right}, total, chance=chance)}}
    given = evidence(document=document(records, champion=False), expected={"heldout": {"chart": total}})
    assert gates(given)["beats_chance"].passed is passed


def test_no_regression_allows_up_to_the_limit() -> None:
    within = gates(evidence(champion={"chart": 95, "streaming": 80}))["no_regression"]
    assert within.passed
    assert within.value == pytest.approx(-0.05)
    beyond = gates(evidence(champion={"chart": 96, "streaming": 80}))["no_regression"]
    assert not beyond.passed
    assert beyond.detail == "heldout/chart changed by -0.0600 from 0.9600 to 0.9000"


def test_not_worse_with_confidence_needs_more_than_an_equal_score() -> None:
    """Equal on 100 questions of which none changed: with 95 % confidence at most some 3 points worse."""
    given = evidence(champion={"chart": 90, "streaming": 80})
    row = {"scope": "heldout/chart", "rule": "not_worse_than_champion", "confidence": 0.95}
    assert one(given, **row, threshold=0.05).passed
    found = one(given, **row, threshold=0.005)
    assert not found.passed
    assert found.detail.startswith("heldout/chart changed by +0.0000 (at least -0.0")


def test_a_champion_that_could_not_be_evaluated_refuses_with_the_reason() -> None:
    given = evidence(champion={"chart": 90, "streaming": 80})
    gone = changed(given, "champion", value={"version": 3, "model": None, "why": "its checkpoint at s3://b/c is gone"})
    found = gates(gone)["no_regression"]
    reason = "champion v3 was not evaluated beside the candidate: its checkpoint at s3://b/c is gone"
    assert (found.passed, found.detail) == (False, reason)


def test_a_comparison_on_other_questions_is_refused() -> None:
    records = {
        "video": {"heldout": answered({"chart": 90})},
        "champion": {"heldout": [*answered({"chart": 90})[:99], item(400, group="chart")], "gqa": [item(1)]},
    }
    given = evidence({"chart": 90}, document=document(records, champion=True), champion={"chart": 90})
    given = replace(given, document=document(records, champion=True))
    found = gates(given)
    assert found["no_regression"].detail == "heldout/chart: 2 questions were asked only of one of both"
    assert found["benchmarks_not_worse"].detail.startswith(
        "gqa was evaluated of only one of both; heldout: 2 questions"
    )


def test_failed_items_are_counted_and_bounded() -> None:
    items = [item(number, None if number < 2 else 1.0, group="chart") for number in range(100)]
    given = evidence(
        document=document({"video": {"heldout": items}}, champion=False), expected={"heldout": {"chart": 100}}
    )
    found = gates(given)
    assert found["answered"].value == pytest.approx(0.98)
    assert found["answered"].detail == "2 of 100 items of heldout failed (it cannot be decoded)"
    assert found["mean_accuracy"].value == pytest.approx(0.98)  # a failed item is wrong


def test_without_a_judge_there_is_no_number() -> None:
    waiting = [item(0, None, benchmark="activitynet_qa", why_no_score="not judged: no judge is set"), item(1)]
    given = document({"video": {"activitynet_qa": waiting}}, champion=False)
    found = gates(evidence(document=given, expected={"activitynet_qa": {"": 2}}))
    assert found["judged"].detail == "1 of 2 items of activitynet_qa were not judged (not judged: no judge is set)"
    row = {"scope": "activitynet_qa", "rule": "at_least", "threshold": 0.0}
    refused = one(evidence(document=given, expected={}), **row)
    assert refused.detail == "activitynet_qa has no score: 1 of 2 items are not judged"


def test_the_first_champion_needs_no_comparison_on_a_benchmark_without_a_threshold() -> None:
    own = {"heldout": answered({"chart": 90}), "mvbench": [item(number) for number in range(5)]}
    given = document({"video": own}, champion=False)
    first = evidence(document=given, expected={"heldout": {"chart": 100}, "mvbench": {"": 5}})
    assert is_promotable(evaluate_gates(first, GATES), NAMES)
    partial = gates(evidence(document=given, expected={"heldout": {"chart": 100}, "mvbench": {"": 6}}))["evidence"]
    assert (partial.passed, partial.detail) == (False, "mvbench has 5 of 6 items")


def test_a_group_is_judged_by_the_mean_of_its_benchmarks() -> None:
    own = {"gqa": [item(number, 1.0) for number in range(50)], "chartqa": [item(number, 0.5) for number in range(50)]}
    given = evidence(document=document({"video": own}, champion=False), expected={"gqa": {"": 50}, "chartqa": {"": 50}})
    rows = {"image": GateConfig(scope="image", rule="at_least", threshold=0.75)}
    found = gates(given, rows)
    assert (found["image"].passed, found["image"].value) == (True, 0.75)
    assert found["evidence"].passed  # the mean judges each of its benchmarks
    assert one(given, scope="image", rule="items", threshold=51).detail == (
        "chartqa has 50 of 51 items; gqa has 50 of 51 items"
    )
    assert one(given, scope="video", rule="at_least", threshold=0.1).detail == "video was not evaluated"


@pytest.mark.parametrize("score", [float("nan"), "0.9", True, None], ids=str)
def test_a_score_that_is_no_number_is_refused(score: Any) -> None:
    given = changed(evidence(), "models", "video", "benchmarks", "heldout", "parts", "chart", "score", value=score)
    found = gates(given)
    assert "heldout/chart has no score" in found["evidence"].detail
    assert "heldout/chart has no score" in found["task_accuracy"].detail


@pytest.mark.parametrize(("value", "word"), [(None, "left no result"), (False, "failed")], ids=["unknown", "failed"])
def test_verifications_refuse(value: bool | None, word: str) -> None:
    found = gates(evidence(validation_passed=value, checkpoint_verified=value))
    assert (found["data_validation"].passed, found["data_validation"].detail) == (False, f"the data validation {word}")
    assert found["checkpoint_digest"].detail == f"the verification of the checkpoint's digests {word}"


def test_gate_table_shows_every_gate_and_reason() -> None:
    lines = gate_table(evaluate_gates(evidence(validation_passed=None), GATES)).splitlines()
    assert lines[0].split() == ["gate", "result", "measured", "required", "detail"]
    assert lines[3].split(maxsplit=4) == [
        "data_validation",
        "REFUSED",
        "-",
        "yes",
        "the data validation left no result",
    ]
    assert lines[5].split() == ["mean_accuracy", "passed", "0.8500", "0.8500", "as", "required"]
    assert len(lines) == 1 + len(NAMES)


def test_the_tag_of_a_version_has_scores_in_short() -> None:
    scores = evidence().scores()
    assert list(scores) == ["heldout", "heldout/chart", "heldout/streaming"]
    assert scores["heldout/chart"] | {"low": 0, "high": 0, "digest": ""} == {
        "score": 0.9, "low": 0, "high": 0, "items": 100, "digest": ""
    }  # fmt: skip
    assert len(scores["heldout"]["digest"]) == 16
    assert evidence().mean_accuracy == 0.85
    assert CHECKPOINT in evidence().made_of["checkpoints"].values()


def test_a_part_of_a_benchmark_is_no_evidence() -> None:
    partial = {"heldout": ["it has 200 questions instead of 2500"]}
    found = gates(changed(evidence(), "made_of", "partial", value=partial))["evidence"]
    assert (found.passed, found.detail) == (
        False,
        "heldout was asked of a part (it has 200 questions instead of 2500)",
    )


def test_what_only_a_server_can_score_refuses_nothing_and_is_named() -> None:
    waiting = [item(number, None, why_no_score="not judged: scored by the benchmark's server") for number in range(5)]
    own = answered({"chart": 90, "streaming": 80})
    records = {name: {"heldout": own, "egoschema": waiting} for name in ("champion", "video")}
    expected = {"heldout": {"chart": 100, "streaming": 100}, "egoschema": {"": 5}}
    given = replace(
        evidence(champion={"chart": 90, "streaming": 80}, expected=expected),
        document=document(records, champion=True, submitted=["egoschema"]),
    )
    found = gates(given)
    assert [result.detail for result in found.values() if not result.passed] == []
    assert found["evidence"].detail == (
        "all 3 expected scores are there; cannot tell: only their own servers can score egoschema"
    )
    assert "egoschema has no score" in one(given, scope="egoschema", rule="at_least", threshold=0.5).detail
    partial = gates(replace(given, expected={**expected, "egoschema": {"": 6}}))["evidence"]
    assert partial.detail.startswith("egoschema has 5 of 6 items")
    unmarked = replace(given, document=document(records, champion=True))
    assert not gates(unmarked)["evidence"].passed
