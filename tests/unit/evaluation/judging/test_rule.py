"""What each rule reads in an answer, and what it is worth."""

import pytest

from vl3.errors import ConfigError
from vl3.evaluation.judging.captions import cider_scores
from vl3.evaluation.judging.rule import (
    AnswerKind,
    AnswerRule,
    JudgingRules,
    judge_answer,
    parse_rules,
    rules_by_dataset,
)

CASES = [
    ("exact", "Yes.", "yes", 1.0),
    ("exact", " Two  Dogs ", "two dogs", 1.0),
    ("exact", "two cats", "two dogs", 0.0),
    ("letter", "A.", "A", 1.0),
    ("letter", "(b) the dog", "B", 1.0),
    ("letter", "The correct answer is (C).", "C. a dog", 1.0),
    ("letter", "The answer is B, not (A).", "B", 1.0),
    ("letter", "I would take (D)", "D", 1.0),
    ("letter", "A dog and a cat", "A", 0.0),
    ("letter", "(A) or (B)", "A", 0.0),
    ("letter", "E", "A", 0.0),
    ("letter", "I do not know", "A", 0.0),
    ("yes_no", "Yes.", "yes", 1.0),
    ("yes_no", "No, it is not.", "no", 1.0),
    ("yes_no", "True", "yes", 1.0),
    ("yes_no", "maybe", "no", 0.0),
    ("number", "1,250 kg", "1250", 1.0),
    ("number", "It is 12 %.", "12", 1.0),
    ("number", "3 + 4 = 7", "7", 1.0),
    ("number", "\u22123", "-3", 1.0),
    ("number", "3 or 4", "3", 0.0),
    ("number", "three", "3", 0.0),
    ("anls", "hallo", "hello", 0.8),
    ("anls", "hat", "hello", 0.0),
    ("anls", "Hello.", "hello", 1.0),
    ("box_iou", "[[1, 0, 3, 2]]", "[0, 0, 2, 2]", 1 / 3),
    ("box_iou", "(0,0),(2,2)", "[0, 0, 2, 2]", 1.0),
    ("box_iou", "in the corner", "[0, 0, 2, 2]", 0.0),
    ("interval_iou", "4-9.5 s", "4.0-9.5 s", 1.0),
    ("interval_iou", "from 0:04 to 0:09.5", "4.0 - 9.5 seconds", 1.0),
    ("interval_iou", "2-6 s", "0-4 s", 1 / 3),
    ("interval_iou", "at the end", "0-4 s", 0.0),
    ("interval_iou", "0-4 s or 5-6 s", "0-4 s", 0.0),
]


@pytest.mark.parametrize(("kind", "answer", "reference", "score"), CASES)
def test_each_kind_gives_the_score_that_a_person_would(kind: str, answer: str, reference: str, score: float) -> None:
    found = judge_answer(AnswerRule(kind=AnswerKind(kind)), answer, reference)
    assert found.score == pytest.approx(score)


def test_what_was_understood_is_said_and_empty_if_nothing_was() -> None:
    assert judge_answer(AnswerRule(kind=AnswerKind.LETTER), "I think it is (C).", "C").understood == "C"
    assert judge_answer(AnswerRule(kind=AnswerKind.INTERVAL_IOU), "4 to 9.50 s", "0-4 s").understood == "4-9.5 s"
    assert judge_answer(AnswerRule(kind=AnswerKind.NUMBER), "no idea", "3").understood == ""


def test_tolerance_is_of_the_reference_or_in_its_unit() -> None:
    rule = AnswerRule(kind=AnswerKind.NUMBER, relative_tolerance=0.05)
    assert [judge_answer(rule, text, "100").score for text in ("105", "95", "105.1")] == [1.0, 1.0, 0.0]
    rule = AnswerRule(kind=AnswerKind.NUMBER, absolute_tolerance=2)
    assert [judge_answer(rule, text, "100").score for text in ("102", "103")] == [1.0, 0.0]


def test_a_threshold_makes_an_overlap_right_or_wrong() -> None:
    rule = AnswerRule(kind=AnswerKind.INTERVAL_IOU, iou_threshold=0.5)
    assert [judge_answer(rule, text, "0-4 s").score for text in ("0-2 s", "0-1.9 s")] == [1.0, 0.0]


def test_more_right_answers_are_accepted() -> None:
    rule = AnswerRule(accept=("colour",))
    assert judge_answer(rule, "Colour", "color").score == 1.0


def test_letters_beyond_the_options_are_no_answers() -> None:
    assert judge_answer(AnswerRule(kind=AnswerKind.LETTER, options=10), "J", "J").score == 1.0
    with pytest.raises(
        ConfigError, match=r"'J' is judged as letter but is not an option's letter.*Correct the annotation"
    ):
        judge_answer(AnswerRule(kind=AnswerKind.LETTER, options=4), "J", "J")


def test_a_caption_has_no_score_of_its_own() -> None:
    assert judge_answer(AnswerRule(kind=AnswerKind.CAPTION_JUDGE), "A dog.", "A cat.").score is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"options": 1}, "judging.options=1"),
        ({"relative_tolerance": -0.1}, "must not be negative"),
        ({"iou_threshold": 0.0}, "not above 0 and at most 1"),
        ({"chance": 2.0}, "not from 0 to 1"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnswerRule(**values)


def test_rules_are_by_source_then_category_then_default() -> None:
    content = b"""chartqa: {kind: number, relative_tolerance: 0.05}
temporal_grounding: {kind: interval_iou}
default: {kind: anls}
"""
    rules = rules_by_dataset({"": parse_rules(content, "judging.yaml")})[""]
    assert rules.rule_for("chartqa", "chart").kind == AnswerKind.NUMBER
    assert rules.rule_for("mine", "temporal_grounding").kind == AnswerKind.INTERVAL_IOU
    assert rules.rule_for("mine", "ocr").kind == AnswerKind.ANLS
    assert parse_rules(None, "judging.yaml") == {}
    assert JudgingRules(rules={}).rule_for("a", "b") == AnswerRule()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mine: {kind: guess}", r"data/judging\.yaml, mine: .*guess"),
        (b"- letter", r"data/judging\.yaml is not a mapping of sources or categories to rules"),
        (b"mine: [", r"data/judging\.yaml cannot be read"),
        (b"\xff", r"data/judging\.yaml cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_its_entry(content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rules(content, "data/judging.yaml")


def test_cider_needs_at_least_two_items() -> None:
    with pytest.raises(ConfigError, match="at least two items with a reference each, and there are 1 answers"):
        cider_scores(["a dog"], [["a dog"]])


def test_cider_ranks_a_right_description_over_a_wrong_one() -> None:
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed (extra `eval`)")
    references = [["a brown dog runs on the beach"], ["two people play chess in a park"], ["a red car at night"]]
    same = cider_scores([one[0] for one in references], references)
    mixed = cider_scores(["a brown dog runs on a beach", "a red car at night", "chess"], references)
    assert same == pytest.approx([1.0, 1.0, 1.0])
    assert 0.5 < mixed[0] < 1.0
    assert mixed[1] == pytest.approx(0.0, abs=0.05)
