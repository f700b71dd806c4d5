"""Descriptions are scored when all of them are there."""

from collections.abc import Sequence

import pytest

from vl3.evaluation.items import ItemRecord
from vl3.evaluation.judges import JudgeVerdict, Message
from vl3.evaluation.judging.held_captions import score_captions


def item(name: str, kind: str, answer: str, reference: str = "a red cube on a table") -> ItemRecord:
    return ItemRecord(
        benchmark="heldout", group="scene_image", item_id=name, sha256="0", prompt="Describe it.", media=("a.png",),
        reference=reference, answer=answer, score=None, chance=None, why_no_score=f"not judged: {kind}", tokens=5,
        seconds=0.0,
    )  # fmt: skip


class _Judge:
    def __init__(self, word: str | None) -> None:
        self.word, self.asked = word, [""]

    def ask(self, messages: Sequence[Message]) -> JudgeVerdict:
        self.asked.append(messages[0]["content"])
        return JudgeVerdict(text=self.word, why="" if self.word else "the judge is gone")

    def ask_all(self, questions: Sequence[Sequence[Message]]) -> list[JudgeVerdict]:
        return [self.ask(messages) for messages in questions]

    def close(self) -> None:
        pass


def test_cider_weighs_all_descriptions_of_a_category() -> None:
    items = {
        "a": item("a", "caption_cider", "a red cube on a table"),
        "b": item("b", "caption_cider", "something else entirely", reference="two dogs run over wet grass"),
    }
    scored = score_captions(items, None)
    assert scored["a"].score == 1.0
    assert scored["b"].score == 0.0
    assert {one.why_no_score for one in scored.values()} == {""}


def test_a_single_description_has_no_weights_and_no_score() -> None:
    scored = score_captions({"a": item("a", "caption_cider", "a cube")}, None)["a"]
    assert scored.score is None
    assert scored.why_no_score.startswith("not judged: CIDEr weighs words")


@pytest.mark.parametrize(("word", "score"), [("Yes.", 1.0), ("no", 0.0)])
def test_a_judge_says_yes_or_no(word: str, score: float) -> None:
    judge = _Judge(word)
    scored = score_captions({"a": item("a", "caption_judge", "a cube")}, judge)["a"]
    assert (scored.score, scored.why_no_score) == (score, "")
    assert "Right description: a red cube on a table\nDescription to judge: a cube\n" in judge.asked[-1]


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (None, "not judged: no judge is configured (evaluation.judge)"),
        (_Judge(None), "not judged: the judge is gone"),
        (_Judge("maybe"), "not judged: the judge's words have no verdict: 'maybe'"),
    ],
)
def test_without_a_verdict_there_is_no_score_and_no_zero(judge: _Judge | None, why: str) -> None:
    scored = score_captions({"a": item("a", "caption_judge", "a cube")}, judge)["a"]
    assert (scored.score, scored.why_no_score) == (None, why)
