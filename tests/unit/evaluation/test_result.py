"""Scores and confusions from single answers."""

from vl3.evaluation.result import Answer, Evaluation, count_confusions, list_items, score_answers
from vl3.proportions import wilson_interval


def answer(category: str, right: str, said: str, chance: float | None = 0.25) -> Answer:
    return Answer(
        sample_id=f"{category}-{right}-{said}",
        category=category,
        prompt="Which?",
        answer=right,
        prediction=said,
        correct=right == said,
        chance=chance,
    )


def test_scores_are_counted_by_category_and_averaged_with_equal_weight() -> None:
    answers = [answer("chart", "red", "red"), *(answer("chart", "red", "blue") for _ in range(3))]
    answers += [answer("document", "cat", "cat", chance=None)]
    score = score_answers("video", answers)
    assert score.to_dict() == {
        "name": "video",
        "tasks": {
            "chart": {
                "accuracy": 0.25,
                "correct": 1,
                "total": 4,
                "chance": 0.25,
                "low": wilson_interval(1, 4)[0],
                "high": wilson_interval(1, 4)[1],
                "failed": 0,
            },
            "document": {
                "accuracy": 1.0,
                "correct": 1,
                "total": 1,
                "chance": None,
                "low": wilson_interval(1, 1)[0],
                "high": wilson_interval(1, 1)[1],
                "failed": 0,
            },
        },
        "mean_accuracy": 0.625,
    }


def test_confusions_name_the_three_most_frequent_wrong_answers() -> None:
    wrong = [("red", "blue")] * 2 + [("red", "green")] * 3 + [("blue", "")] + [("green", "white")]
    answers = [answer("chart", right, said) for right, said in wrong] + [answer("chart", "red", "red")]
    assert count_confusions(answers) == {
        "chart": [
            {"answer": "red", "prediction": "green", "count": 3},
            {"answer": "red", "prediction": "blue", "count": 2},
            {"answer": "blue", "prediction": "", "count": 1},
        ]
    }


def test_an_evaluation_without_mistakes_has_no_confusions() -> None:
    score = score_answers("video", [answer("chart", "red", "red")])
    data = Evaluation(models=[score], predictions=[], confusions={"video": count_confusions([])}).to_dict()
    assert data["confusions"] == {"video": {}}
    assert data["models"][0]["mean_accuracy"] == 1.0


def test_items_say_of_every_question_who_answered_it_rightly() -> None:
    asked = {7: ("chart", "a"), 3: ("document", "b"), 9: ("chart", "c")}
    answers = {
        name: {row: answer(category, right, right if row in known else "") for row, (category, right) in asked.items()}
        for name, known in (("before", ()), ("video", (9, 3)))
    }
    assert list_items(answers, {7: "x", 3: "y", 9: "z"}) == {
        "chart": {"ids": ["chart-a-", "chart-c-"], "sha256": ["x", "z"], "right": {"before": "00", "video": "01"}},
        "document": {"ids": ["document-b-"], "sha256": ["y"], "right": {"before": "0", "video": "1"}},
    }
