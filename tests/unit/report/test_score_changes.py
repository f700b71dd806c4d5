"""Which differences between two models are called better or worse."""

import pytest

from vl3.report.score_changes import Scores, score_changes, scores_of


def answers(text: str) -> dict[str, bool]:
    return {str(place): answer == "1" for place, answer in enumerate(text)}


def scores(**tasks: str) -> Scores:
    """Scores with the answers to single questions: chart="0110" is two of four."""
    counts = {task: (text.count("1"), len(text)) for task, text in tasks.items()}
    return Scores(counts=counts, items={task: answers(text) for task, text in tasks.items()})


def test_same_questions_are_compared_one_by_one() -> None:
    first, second = scores(chart="1" * 30 + "0" * 10), scores(chart="1" * 38 + "0" * 2)
    found = score_changes(first, second)["tasks"]["chart"]
    assert (found["verdict"], found["paired"], found["questions"]) == ("better", True, 40)
    assert found["difference"]["p_value"] == pytest.approx(2 / 2**8)
    without = score_changes(Scores(counts=first.counts), Scores(counts=second.counts))["tasks"]["chart"]
    assert (without["paired"], without["questions"]) == (False, None)
    assert without["difference"]["p_value"] > found["difference"]["p_value"]


def test_a_smaller_evaluation_of_the_same_questions_is_paired_on_those() -> None:
    found = score_changes(scores(chart="10" * 10), scores(chart="11" * 20))["tasks"]["chart"]
    assert (found["questions"], found["difference"]["value"]) == (20, 0.5)


def test_questions_that_only_partly_agree_are_two_samples() -> None:
    first, second = scores(chart="1" * 20), scores(chart="1" * 20)
    second.items["chart"].pop("0")  # type: ignore[attr-defined]
    second.items["chart"]["other"] = True  # type: ignore[index]
    assert score_changes(first, second)["tasks"]["chart"]["paired"] is False


def test_many_comparisons_are_corrected_for() -> None:
    """6 won and none lost has p = 0.031: enough for one task, not for the best of ten."""
    one = score_changes(scores(chart="0" * 6 + "1" * 20), scores(chart="1" * 26))
    assert one["tasks"]["chart"]["verdict"] == "better"
    others = {f"task{number}": "1" * 26 for number in range(9)}
    ten = score_changes(scores(chart="0" * 6 + "1" * 20, **others), scores(chart="1" * 26, **others))
    assert ten["tasks"]["chart"]["verdict"] == "within chance"
    assert ten["tasks"]["chart"]["difference"]["p_value"] == pytest.approx(10 * 2 / 2**6)


def test_worse_is_worse_and_equal_is_within_chance() -> None:
    found = score_changes(scores(chart="1" * 40, document="10" * 20), scores(chart="0" * 40, document="10" * 20))
    assert {task: one["verdict"] for task, one in found["tasks"].items()} == {
        "chart": "worse",
        "document": "within chance",
    }
    assert found["mean"]["verdict"] == "worse"
    assert found["mean"]["difference"]["value"] == pytest.approx(-0.5)


def test_a_task_of_only_one_side_or_without_questions_is_named() -> None:
    first = Scores(counts={"chart": (1, 2), "document": (0, 0), "only_first": (1, 1)})
    second = Scores(counts={"chart": (1, 2), "document": (0, 0), "only_second": (1, 1)})
    found = score_changes(first, second)
    assert list(found["tasks"]) == ["chart"]
    assert found["not_compared"] == ["document", "only_first", "only_second"]
    nothing = score_changes(Scores(counts={}), second)
    assert (nothing["tasks"], nothing["mean"]) == ({}, None)


def test_a_sample_that_was_changed_under_its_id_is_another_question() -> None:
    models = [{"name": name, "tasks": {"chart": {"correct": 1, "total": 2}}} for name in ("before", "video")]
    asked = {"ids": ["a", "b"], "sha256": ["1", "2"], "right": {"before": "01", "video": "10"}}
    first = scores_of(models, "before", {"chart": asked})
    second = scores_of(models, "video", {"chart": {**asked, "sha256": ["1", "3"]}})
    assert first.items["chart"] == {"a 1": False, "b 2": True}
    assert score_changes(first, second)["tasks"]["chart"]["paired"] is False
    assert score_changes(first, scores_of(models, "video", {"chart": asked}))["tasks"]["chart"]["paired"] is True
