"""Question-answer pairs as a model writes them: read, bounded, and compared with what they were made from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vl3.curation.captions.foreign import hostile_part
from vl3.curation.video.rules import Aspect, VideoRules
from vl3.data.sample.problems import shown
from vl3.system.documents import parse_object

PAIRS_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["pairs"],
    "properties": {
        "pairs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["aspect", "question", "answer"],
                "properties": {
                    "aspect": {"type": "string", "enum": [aspect.value for aspect in Aspect]},
                    "question": {"type": "string"},
                    "answer": {"type": "string"},
                },
            },
        }
    },
}
"""For servers that enforce a schema; the others are asked for the same in words."""
_FENCE = re.compile(r"^```[a-z]*\s*(.*?)\s*```$", re.DOTALL)
_WORD = re.compile(r"\w+")
_EMPTY_WORDS = frozenset({"a", "an", "the", "is", "are", "it", "its", "of", "in", "on", "to", "and", "there"})


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionPair:
    """A question about a video and its answer."""

    aspect: Aspect
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedPair:
    """What a model wrote that is not kept."""

    aspect: str
    """Empty if it has none."""
    question: str
    reason: str
    """A few words, to count by; then what they refer to."""


def parse_pairs(text: str, rules: VideoRules) -> tuple[list[QuestionPair], list[DroppedPair]]:
    """The pairs of an answer, and those that are of no use.

    Raises:
        ValueError: the text has no list of pairs.
    """
    fence = _FENCE.match(text.strip())
    pairs = parse_object((fence[1] if fence else text).encode()).get("pairs")
    if not isinstance(pairs, list) or not pairs:
        raise ValueError(f"it has {shown(pairs)} for a list of pairs")
    kept: list[QuestionPair] = []
    dropped: list[DroppedPair] = []
    for entry in pairs:
        aspect, question, answer = _fields(entry)
        reason = _problem(aspect, question, answer, rules)
        if not reason and any(_words(question) == _words(other.question) for other in kept):
            reason = "repeated: the question was asked before"
        if not reason and len(kept) == rules.max_pairs:
            reason = f"too many: {rules.max_pairs} pairs are kept"
        if reason:
            dropped.append(
                DroppedPair(aspect=aspect, question=question[: rules.max_question_characters], reason=reason)
            )
        else:
            kept.append(QuestionPair(aspect=Aspect(aspect), question=question, answer=answer))
    return kept, dropped


def pairs_problem(text: str, rules: VideoRules) -> str:
    """Why a text is no list of pairs; empty if it has at least one that can be used."""
    try:
        kept, dropped = parse_pairs(text, rules)
    except ValueError as error:
        return f"no JSON of pairs ({error})"
    return "" if kept else f"no pair can be used; the first: {dropped[0].reason}"


def says_the_same(first: str, second: str) -> bool:
    """Whether two answers have the same words, apart from articles and the like.

    >>> says_the_same("The dog is brown.", "a brown dog")
    False
    >>> says_the_same("A brown dog.", "brown dog")
    True
    """
    words = _words(first)
    return bool(words) and words == _words(second)


def is_unsure(answer: str, patterns: Sequence[str]) -> bool:
    """Whether an answer says that it cannot be told."""
    return bool(hostile_part(answer, patterns))


def verdict_of(text: str) -> str:
    """The first word of a comparison, in small letters."""
    found = _WORD.search(text.lower())
    return found[0] if found else ""


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _EMPTY_WORDS]


def _fields(entry: object) -> tuple[str, str, str]:
    """Aspect, question and answer; empty where they are no text."""
    values = entry if isinstance(entry, dict) else {}
    texts = (values.get(name) for name in ("aspect", "question", "answer"))
    aspect, question, answer = (" ".join(text.split()) if isinstance(text, str) else "" for text in texts)
    return aspect, question, answer


def _problem(aspect: str, question: str, answer: str, rules: VideoRules) -> str:
    if aspect not in tuple(Aspect):
        return f"no aspect: {shown(aspect)}"
    if not question or not answer:
        return "incomplete: question or answer is empty"
    if len(question) > rules.max_question_characters or len(answer) > rules.max_answer_characters:
        return f"too long: {len(question)} and {len(answer)} characters"
    if found := hostile_part(f"{question}\n{answer}", rules.forbidden):
        return f"forbidden words: {shown(found)}"
    if not (question + answer).isprintable():
        return "unprintable characters"
    if is_unsure(answer, rules.unsure_answers):
        return f"unsure: {shown(answer)}"
    if len(_words(answer)) > 1 and " ".join(_words(answer)) in " ".join(_words(question)):
        return "given away: the question contains the answer"
    return ""
