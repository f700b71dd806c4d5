"""The one function through which a benchmark's questions are answered, by the engine of the held-out evaluation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from vl3.errors import ConfigError, DataError
from vl3.evaluation.engine.engine import Engine
from vl3.evaluation.engine.request import Loaded, Request
from vl3.evaluation.harness.asks import TaskAsk
from vl3.inference.question import read_question

ASKS_A_CALL = 128
"""Questions that are in memory together, with the pixels of their images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswer:
    """What became of a question."""

    name: str
    text: str | None
    """The model's answer; None if the question failed."""
    failure: str = ""
    """Why it failed; empty if it did not."""
    tokens: int = 0
    seconds: float = 0.0


def answer_asks(engine: Engine, asks: Iterable[TaskAsk | TaskAnswer]) -> Iterator[TaskAnswer]:
    """Answer questions greedily; one whose media cannot be decoded fails alone, one that could not be asked passes by.

    Args:
        engine: answers.
        asks: the questions; they are taken as they are needed.
    """
    iterator = iter(asks)
    while portion := list(islice(iterator, ASKS_A_CALL)):
        yield from (one for one in portion if isinstance(one, TaskAnswer))
        by_name = {one.name: one for one in portion if isinstance(one, TaskAsk)}
        for reply in engine.answer_all([_request(ask) for ask in by_name.values()]):
            yield TaskAnswer(
                name=reply.name,
                text=None if reply.text is None else _cut(reply.text, by_name[reply.name].stops),
                failure=reply.failure,
                tokens=reply.tokens,
                seconds=round(reply.seconds, 6),
            )


def _request(ask: TaskAsk) -> Request:
    return Request(
        name=ask.name,
        load=partial(_load, ask),
        max_new_tokens=ask.max_new_tokens,
        group=ask.media_sha256,
        length_tokens=len(ask.text),
    )


def _load(ask: TaskAsk) -> Loaded:
    try:
        record, media = read_question(ask.question, system=ask.system)
    except ConfigError as error:  # a benchmark's own text or times, which no setting can mend
        raise DataError(f"{ask.name}: {error}") from error
    return Loaded(record=record, media=media)


def _cut(text: str, stops: Iterable[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text
