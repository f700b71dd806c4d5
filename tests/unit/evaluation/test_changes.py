"""What changed between two models item by item, and a model's best and worst items."""

from tests.support.evidence import item
from vl3.evaluation.changes import MAX_CHANGED, changed_items, extreme_items, shown_items


def test_lost_and_won_are_told_apart_by_the_same_question() -> None:
    first = [item(0), item(1), item(2, 0.0), item(3), item(4, None, why_no_score="not judged: no judge")]
    second = [item(0, 0.0), item(1), item(2, 0.5), item(3, 0.0, sha256="other"), item(4)]
    found = changed_items(first, second)
    assert [(row["item_id"], row["change"]) for row in found["lost"]] == [("-0000", -1.0)]
    assert [(row["item_id"], row["change"]) for row in found["won"]] == [("-0002", 0.5)]
    assert found["lost"][0]["first"] == {"answer": "a", "score": 1.0, "why": ""}
    assert found["lost"][0]["prompt"] == "Question 0?"


def test_the_largest_changes_stand_first_and_a_failure_is_a_loss() -> None:
    first = [item(number, 1.0) for number in range(3)]
    second = [item(0, 0.6), item(1, 0.1), item(2, None)]
    lost = changed_items(first, second)["lost"]
    assert [row["item_id"] for row in lost] == ["-0002", "-0001", "-0000"]
    assert lost[0]["second"] == {"answer": None, "score": None, "why": "it cannot be decoded"}


def test_best_and_worst_are_those_that_others_answered_the_other_way() -> None:
    """The worked example of the docstring."""
    own = [item(0), item(1), item(2, 0.0), item(3, 0.0)]
    before = [item(0), item(1, 0.0), item(2), item(3, 0.0)]
    found = extreme_items(own, [before])
    assert [one.item_id for one in found["best"]] == ["-0001", "-0000"]
    assert [one.item_id for one in found["worst"]] == ["-0002", "-0003"]


def test_a_model_without_mistakes_has_no_worst_items() -> None:
    assert extreme_items([item(0), item(1)], [])["worst"] == []


def test_the_report_gets_a_bounded_number_of_each() -> None:
    champion = [item(number, float(number % 2), group="chart") for number in range(100)]
    video = [item(number, float((number + 1) % 2), group="chart") for number in range(100)]
    found = shown_items({"champion": {"heldout": champion}, "video": {"heldout": video}}, "video", "champion")
    changes = found["changes"]["heldout"]
    assert (changes["won"], changes["lost"], len(changes["items"])) == (50, 50, 2 * MAX_CHANGED)
    assert [one["side"] for one in changes["items"]] == ["lost"] * MAX_CHANGED + ["won"] * MAX_CHANGED
    (part,) = found["extremes"]
    assert (part["part"], len(part["best"]), len(part["worst"])) == ("chart", 3, 3)
    assert shown_items({"video": {"heldout": video}}, "video", None)["changes"] == {}
