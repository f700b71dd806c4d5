"""Pairs as a model writes them."""

import json

import pytest

from vl3.curation.video.pairs import is_unsure, pairs_problem, parse_pairs, says_the_same, verdict_of
from vl3.curation.video.rules import Aspect, read_video_rules

RULES = read_video_rules()
GOOD = {"aspect": "order", "question": "What does the man do before he sits down?", "answer": "He opens the window."}


def written(*pairs: object) -> str:
    return json.dumps({"pairs": list(pairs)})


def test_pairs_are_read_with_and_without_a_fence() -> None:
    for text in (written(GOOD), f"```json\n{written(GOOD)}\n```"):
        (pair,), dropped = parse_pairs(text, RULES)
        assert (pair.aspect, pair.question, pair.answer) == (Aspect.ORDER, GOOD["question"], "He opens the window.")
        assert dropped == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aspect": "mood"}, "no aspect: 'mood'"),
        ({"answer": ""}, "incomplete: "),
        ({"question": None}, "incomplete: "),
        ({"question": "Why? " * 100}, "too long: "),
        ({"answer": "See <video> again."}, "forbidden words: '<video>'"),
        ({"question": "What is in frame 3?"}, "forbidden words: 'frame 3'"),
        ({"answer": "It cannot be determined."}, "unsure: "),
        ({"question": "Is it a man who opens the window?", "answer": "Opens the window."}, "given away: "),
        ({"answer": "a\x07b c"}, "unprintable characters"),
    ],
)
def test_a_useless_pair_is_dropped_with_its_reason(changes: dict[str, object], reason: str) -> None:
    kept, (dropped,) = parse_pairs(written(GOOD, {**GOOD, "question": "Who is it?", **changes}), RULES)
    assert len(kept) == 1
    assert dropped.reason.startswith(reason)


def test_the_same_question_and_too_many_are_dropped() -> None:
    more = [{**GOOD, "question": f"What is thing {index}?"} for index in range(9)]
    kept, dropped = parse_pairs(written(GOOD, GOOD, *more), RULES)
    assert len(kept) == RULES.max_pairs
    assert [one.reason.partition(":")[0] for one in dropped] == ["repeated", "too many", "too many"]


@pytest.mark.parametrize(
    "text", ["", "no", "[]", '{"pairs": []}', '{"pairs": {}}', "[" * 99999, '{"pairs": [{"aspect"']
)
def test_what_is_no_list_of_pairs_is_said(text: str) -> None:
    assert pairs_problem(text, RULES).startswith("no JSON of pairs (")


def test_a_list_without_a_usable_pair_is_none() -> None:
    assert pairs_problem(written(7, {**GOOD, "aspect": "x"}), RULES).startswith(
        "no pair can be used; the first: no aspect"
    )
    assert pairs_problem(written(GOOD), RULES) == ""


def test_answers_are_compared_by_their_words() -> None:
    assert says_the_same("A brown dog.", "the brown dog")
    assert not says_the_same("a brown dog", "a dog that is brown")
    assert not says_the_same("the", "a")
    assert is_unsure("That cannot be seen.", RULES.unsure_answers)
    assert not is_unsure("A brown dog.", RULES.unsure_answers)
    assert [verdict_of(text) for text in ("Same.", " different, because", "")] == ["same", "different", ""]
