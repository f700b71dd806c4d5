"""How an answer is judged, as data: a dataset names a rule for each kind of question, and the rule gives the score.

kind: letter        "The answer is (B)."  is  "B"
kind: yes_no        "Yes, it is."         is  "yes"
kind: number        "about 1,250 kg"      is  "1250"       within a tolerance
kind: interval_iou  "4-9.5 s"             is  "4.0-9.5 s"  and half of it is 0.5
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vl3.config.codec import from_dict
from vl3.errors import ConfigError
from vl3.evaluation.judging import regions, text
from vl3.system.strict_yaml import parse_yaml

JUDGING_FILE = "judging.yaml"
"""In a data folder: the rules of its sources and categories."""


class AnswerKind(StrEnum):
    """What an answer is, and so how it is judged."""

    EXACT = "exact"
    """The reference's words, without case, outer spaces and a full stop at the end."""
    LETTER = "letter"
    """The letter of an option, in a sentence or alone."""
    YES_NO = "yes_no"
    NUMBER = "number"
    """A number within a tolerance."""
    ANLS = "anls"
    """Text read from a picture: 1 minus the edit distance, 0 if less than half is right."""
    BOX_IOU = "box_iou"
    """A box `[x1, y1, x2, y2]`."""
    INTERVAL_IOU = "interval_iou"
    """A time interval in seconds."""
    CAPTION_CIDER = "caption_cider"
    """A description, by CIDEr over all of the benchmark's answers."""
    CAPTION_JUDGE = "caption_judge"
    """A description, by a judge model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRule:
    """How the answers of one kind of question are judged."""

    kind: AnswerKind = AnswerKind.EXACT
    options: int = 4
    """Number of options of a `letter` question; later letters are no answers."""
    relative_tolerance: float = 0.0
    """Of a `number`: how far off it may be, as a share of the reference."""
    absolute_tolerance: float = 0.0
    """Of a `number`: how far off it may be, in its own unit."""
    iou_threshold: float | None = None
    """Of a box or interval: the overlap from which on it is right; None scores the overlap itself."""
    accept: tuple[str, ...] = ()
    """More right answers of an `exact` or `anls` question, for all its items."""
    chance: float | None = None
    """Score of guessing; None if it is unknown, as for open answers. Gates then say what they cannot show."""

    def __post_init__(self) -> None:
        """Refuse a rule that cannot be applied."""
        if not 2 <= self.options <= 26:
            raise ConfigError(f"judging.options={self.options}: letters are A to Z. Set 2 to 26.")
        if self.relative_tolerance < 0 or self.absolute_tolerance < 0:
            raise ConfigError(
                f"judging tolerances {self.relative_tolerance:g} and {self.absolute_tolerance:g} must not be negative. "
                "Use 0 for exactly equal numbers."
            )
        if self.iou_threshold is not None and not 0 < self.iou_threshold <= 1:
            raise ConfigError(f"judging.iou_threshold={self.iou_threshold:g} is not above 0 and at most 1. Correct it.")
        if self.chance is not None and not 0 <= self.chance <= 1:
            raise ConfigError(f"judging.chance={self.chance:g} is not from 0 to 1. Correct it, or leave it out.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a rule makes of one answer."""

    score: float | None
    """From 0 to 1; None if this rule needs all answers together, or a judge."""
    understood: str
    """The answer as it was read, such as the letter; empty if there was nothing to read."""


def judge_answer(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    """The score of one answer.

    >>> judge_answer(AnswerRule(kind="letter"), "I think it is (C).", "C. a dog")
    Judgement(score=1.0, understood='C')

    Args:
        rule: how to judge.
        answer: what the model said.
        reference: the right answer as the data has it.

    Raises:
        ConfigError: the reference cannot be read by the rule, so that no answer could be right.
    """
    kind = AnswerKind(rule.kind)
    if kind in (AnswerKind.CAPTION_CIDER, AnswerKind.CAPTION_JUDGE):
        return Judgement(score=None, understood=answer.strip())
    return _JUDGES[kind](rule, answer, reference)


def _exact(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    is_right = any(is_same(answer, one) for one in (reference, *rule.accept))
    return Judgement(score=float(is_right), understood=text.plain(answer))


def is_same(answer: str, reference: str) -> bool:
    """Whether two texts say the same: "A." and "A", "4-9.5 s" and "4.0-9.5 s" do, "a dog" and "dog" do not."""
    if text.plain(answer) == text.plain(reference):
        return True
    said, right = regions.only_interval(answer), regions.only_interval(reference)
    return said is not None and said == right


def _letter(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    right = text.option_letter(reference, rule.options)
    if right is None:
        raise _unreadable(rule, reference, "an option's letter")
    said = text.option_letter(answer, rule.options)
    return Judgement(score=float(said == right), understood=said or "")


def _yes_no(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    right = text.yes_or_no(reference)
    if right is None:
        raise _unreadable(rule, reference, "yes or no")
    said = text.yes_or_no(answer)
    return Judgement(score=float(said == right), understood=said or "")


def _number(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    right = text.number(reference)
    if right is None:
        raise _unreadable(rule, reference, "a number")
    said = text.number(answer)
    if said is None:
        return Judgement(score=0.0, understood="")
    allowed = max(rule.relative_tolerance * abs(right), rule.absolute_tolerance)
    # 0.1 + 0.2 is not 0.3 in binary: a hair of the size is no difference.
    is_right = abs(said - right) <= allowed + 1e-9 * max(abs(right), 1.0)
    return Judgement(score=float(is_right), understood=f"{said:g}")


def _anls(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    said = text.plain(answer)
    return Judgement(score=max(text.anls(said, text.plain(one)) for one in (reference, *rule.accept)), understood=said)


def _box(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    right = regions.box(reference)
    if right is None:
        raise _unreadable(rule, reference, "a box [x1, y1, x2, y2]")
    said = regions.box(answer)
    overlap = regions.box_iou(said, right) if said else 0.0
    return Judgement(score=_passed(rule, overlap), understood=str(list(said)) if said else "")


def _interval(rule: AnswerRule, answer: str, reference: str) -> Judgement:
    right = regions.interval(reference)
    if right is None:
        raise _unreadable(rule, reference, "an interval such as 4.0-9.5 s")
    said = regions.interval(answer)
    overlap = regions.interval_iou(said, right) if said else 0.0
    return Judgement(score=_passed(rule, overlap), understood=f"{said[0]:g}-{said[1]:g} s" if said else "")


def _passed(rule: AnswerRule, overlap: float) -> float:
    return overlap if rule.iou_threshold is None else float(overlap >= rule.iou_threshold)


def _unreadable(rule: AnswerRule, reference: str, wanted: str) -> ConfigError:
    return ConfigError(
        f"the right answer {reference[:80]!r} is judged as {rule.kind} but is not {wanted}, so that no answer could be "
        f"right. Correct the annotation, or give its source another kind in {JUDGING_FILE}."
    )


_JUDGES: dict[AnswerKind, Callable[[AnswerRule, str, str], Judgement]] = {
    AnswerKind.EXACT: _exact,
    AnswerKind.LETTER: _letter,
    AnswerKind.YES_NO: _yes_no,
    AnswerKind.NUMBER: _number,
    AnswerKind.ANLS: _anls,
    AnswerKind.BOX_IOU: _box,
    AnswerKind.INTERVAL_IOU: _interval,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgingRules:
    """The rules of a dataset."""

    rules: Mapping[str, AnswerRule]
    """By source, by category, or `default`."""

    def rule_for(self, source: str, category: str) -> AnswerRule:
        """The rule of a sample: its source's, else its category's, else the default one, else `exact`."""
        for name in (source, category, "default"):
            if name in self.rules:
                return self.rules[name]
        return AnswerRule()


def parse_rules(content: bytes | None, where: str) -> dict[str, Any]:
    """The rules of a data folder's judging.yaml as plain data; each of them can be built.

    Args:
        content: the file; None if there is none, and everything is judged as `exact`.
        where: its place, for errors.

    Raises:
        ConfigError: the file is not a mapping of names to rules, or a rule contradicts itself.
    """
    if content is None:
        return {}
    try:
        data = parse_yaml(content.decode())
    except ValueError as error:
        raise ConfigError(f"{where} cannot be read ({error}), so judging would be wrong. Correct it.") from error
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise ConfigError(
            f"{where} is not a mapping of sources or categories to rules. Write `source: {{kind: letter}}`."
        )
    for name, values in data.items():
        try:
            from_dict(AnswerRule, values)
        except ConfigError as error:
            raise ConfigError(f"{where}, {name}: {error}") from error
    return data


def rules_by_dataset(data: Mapping[str, Mapping[str, Any]]) -> dict[str, JudgingRules]:
    """The rules of each dataset from plain data."""
    return {
        dataset: JudgingRules(rules={name: from_dict(AnswerRule, dict(values)) for name, values in rules.items()})
        for dataset, rules in data.items()
    }
