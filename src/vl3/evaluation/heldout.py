"""Held-out samples as requests of the engine, and its replies as records with their scores."""

from typing import Protocol

from vl3.config.gates import HELDOUT
from vl3.data.sample.media import MediaContent
from vl3.data.sample.records import Record
from vl3.errors import ConfigError, DataError
from vl3.evaluation.engine.request import EngineReply, Loaded, Request
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.judging.rule import AnswerRule, JudgingRules, judge_answer
from vl3.evaluation.records import NOT_JUDGED
from vl3.evaluation.tasks import is_right_moment, question_prompt, right_moment, spoken
from vl3.evaluation.units import HeldoutRow


class SampleReader(Protocol):
    """Reads the samples of an index."""

    def read(self, row: int) -> tuple[Record, dict[str, MediaContent]]:
        """The record and the media by path. DataError if it is damaged."""


def heldout_request(row: HeldoutRow, reader: SampleReader, max_new_tokens: int) -> Request:
    """A sample as a request, which is read when its turn comes."""

    def load() -> Loaded:
        record, media = reader.read(row.row)
        return Loaded(record=record, media=media)

    return Request(
        name=row.sample_id,
        load=load,
        max_new_tokens=max_new_tokens,
        group=row.group,
        length_tokens=row.length_tokens,
    )


def heldout_item(row: HeldoutRow, reply: EngineReply, rules: JudgingRules) -> ItemRecord:
    """The record of a reply: judged by its dataset's rules, a stream also by the moment at which the model spoke.

    Raises:
        DataError: the right answer is none that its rule can read.
    """
    record = reply.record
    if reply.text is None or record is None:
        return _failed(row, reply)
    if record.is_stream:
        right = right_moment(record, reply.clip_times[0])
        clock = (reply.clip_times[0], record.start_seconds)
        reference = spoken(right.frame_index, right.text, *clock)
        answer = spoken(reply.frame_index, reply.text, *clock)
        score: float | None = float(is_right_moment(reply.frame_index, reply.text, right))
        rule = AnswerRule()
    else:
        reference, answer = record.answer, reply.text
        rule = rules.rule_for(record.source, row.category)
        try:
            score = judge_answer(rule, answer, reference).score
        except ConfigError as error:
            raise DataError(f"{row.where}: {error}") from error
    return ItemRecord(
        benchmark=HELDOUT,
        group=row.category,
        item_id=row.sample_id,
        sha256=row.sha256,
        prompt=question_prompt(record),
        media=tuple(dict.fromkeys(record.media_paths)),
        reference=reference,
        answer=answer,
        score=score,
        chance=record.chance if rule.chance is None else rule.chance,
        why_no_score="" if score is not None else f"{NOT_JUDGED}: {rule.kind}",
        tokens=reply.tokens,
        seconds=round(reply.seconds, 6),
    )


def _failed(row: HeldoutRow, reply: EngineReply) -> ItemRecord:
    """The record of a sample that could not be asked."""
    return ItemRecord(
        benchmark=HELDOUT,
        group=row.category,
        item_id=row.sample_id,
        sha256=row.sha256,
        prompt="",
        media=(),
        reference="",
        answer=None,
        score=None,
        chance=None,
        why_no_score=reply.failure,
        tokens=0,
        seconds=0.0,
    )
