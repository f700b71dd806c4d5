"""Scores of held-out descriptions, which cannot be judged one by one as they come: by CIDEr over all, or by a judge."""

from collections.abc import Mapping
from dataclasses import replace

from vl3.errors import ConfigError
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.judges import AnswerJudge, JudgeVerdict
from vl3.evaluation.judging.captions import cider_scores
from vl3.evaluation.judging.rule import AnswerKind
from vl3.evaluation.records import NOT_JUDGED

_CIDER = f"{NOT_JUDGED}: {AnswerKind.CAPTION_CIDER}"
_JUDGE = f"{NOT_JUDGED}: {AnswerKind.CAPTION_JUDGE}"
_PROMPT = """Question about a picture or video: {prompt}
Right description: {reference}
Description to judge: {answer}

Does the description to judge say the same, without anything that contradicts the right one?
Reply with one word: yes or no.
"""


def score_captions(items: Mapping[str, ItemRecord], judge: AnswerJudge | None) -> dict[str, ItemRecord]:
    """The records of a model with the scores of its descriptions; what gets none keeps the reason.

    Args:
        items: all of a model's records.
        judge: None if there is none.
    """
    by_group: dict[str, list[ItemRecord]] = {}
    for item in items.values():
        if item.why_no_score == _CIDER:
            by_group.setdefault(item.group, []).append(item)
    scored = {item.item_id: item for group in by_group.values() for item in _by_cider(group)}
    to_judge = [item for item in items.values() if item.why_no_score == _JUDGE]
    scored |= {item.item_id: item for item in _by_judge(to_judge, judge)}
    return {name: scored.get(name, item) for name, item in items.items()}


def _by_cider(items: list[ItemRecord]) -> list[ItemRecord]:
    try:
        scores = cider_scores([item.answer or "" for item in items], [[item.reference] for item in items])
    except ConfigError as error:
        return [replace(item, why_no_score=f"{NOT_JUDGED}: {error}") for item in items]
    # CIDEr is not bounded, but an item's score is.
    return [replace(item, score=min(score, 1.0), why_no_score="") for item, score in zip(items, scores, strict=True)]


def _by_judge(items: list[ItemRecord], judge: AnswerJudge | None) -> list[ItemRecord]:
    if judge is None:
        why = f"{NOT_JUDGED}: no judge is configured (evaluation.judge)"
        return [replace(item, why_no_score=why) for item in items]
    questions = [[{"role": "user", "content": _question(item)}] for item in items]
    return [_judged(item, verdict) for item, verdict in zip(items, judge.ask_all(questions), strict=True)]


def _question(item: ItemRecord) -> str:
    return _PROMPT.format(prompt=item.prompt, reference=item.reference, answer=item.answer)


def _judged(item: ItemRecord, verdict: JudgeVerdict) -> ItemRecord:
    word = "" if verdict.text is None else verdict.text.strip().strip(".!").casefold()
    if word not in ("yes", "no"):
        why = verdict.why or f"the judge's words have no verdict: {(verdict.text or '')[:80]!r}"
        return replace(item, why_no_score=f"{NOT_JUDGED}: {why}")
    return replace(item, score=float(word == "yes"), why_no_score="")
