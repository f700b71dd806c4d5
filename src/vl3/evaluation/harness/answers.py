"""The one function through which a benchmark's questions are answered; a faster engine is put in here."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from vl3.errors import DataError
from vl3.evaluation.harness.asks import TaskAsk
from vl3.inference.chat import Chat
from vl3.inference.generate import generate_answers
from vl3.inference.question import prepare_question

ASKS_A_CALL = 32
"""Questions that are prepared and in memory together."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLimits:
    """How media are shown and answers are made; the defaults are the paper's (sec. 4.2)."""

    fps: float = 1.0
    max_frames: int = 180
    batch_size: int = 16
    max_new_tokens: int | None = None
    """For every task; None takes each task's own."""


def generate(chat: Chat, asks: Iterable[TaskAsk], limits: AnswerLimits) -> Iterator[TaskAnswer]:
    """Answer questions greedily; a question whose media cannot be decoded fails alone.

    Args:
        chat: the model.
        asks: the questions; they are taken as they are needed.
        limits: how media are shown, and how many questions are computed together.
    """
    iterator = iter(asks)
    while portion := list(islice(iterator, ASKS_A_CALL)):
        prepared = []
        for ask in portion:
            try:
                question = ask.question(limits.fps, limits.max_frames)
                sample = prepare_question(question, chat.tokenizer, chat.settings, system=ask.system)
            except DataError as error:
                yield TaskAnswer(name=ask.name, text=None, failure=str(error))
                continue
            prepared.append((ask, sample))
        # Answers of equal limits are generated together: one with 16384 tokens would hold up one with 16.
        for most in sorted({ask.max_new_tokens for ask, _ in prepared}):
            group = [(ask, sample) for ask, sample in prepared if ask.max_new_tokens == most]
            start = time.perf_counter()
            texts = generate_answers(
                chat.model,
                [sample for _, sample in group],
                chat.tokenizer,
                max_new_tokens=most,
                batch_size=limits.batch_size,
            )
            seconds = (time.perf_counter() - start) / len(group)
            for (ask, _), text in zip(group, texts, strict=True):
                yield TaskAnswer(
                    name=ask.name, text=_cut(text, ask.stops), tokens=len(chat.tokenizer.encode(text)), seconds=seconds
                )


def _cut(text: str, stops: Iterable[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text
