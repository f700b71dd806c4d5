"""Answers to batches of prepared samples of unequal length.

Shapes: T packed text+vision tokens.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from vl3.inference.batch import Decoding, Prompt
from vl3.inference.continuous import Ask, Generation
from vl3.inference.sampling import GREEDY, Chooser, Sampling
from vl3.models.model import VideoLlama3

if TYPE_CHECKING:
    from vl3.data.sample.prepare import PreparedSample
    from vl3.data.sample.tokenizer import ChatTokenizer


def generate_answers(
    model: VideoLlama3,
    samples: Sequence["PreparedSample"],
    tokenizer: "ChatTokenizer",
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
) -> list[str]:
    """The model's answer to each sample's last question, in the samples' order.

    Args:
        model: the model, in evaluation mode.
        samples: prepared samples; the prompt is everything before `answer_start`.
        tokenizer: the model's tokenizer.
        max_new_tokens: maximum tokens of an answer.
        sampling: how tokens are chosen.
        batch_size: maximum number of samples generated together.

    Raises:
        DataError: a sample's `<image>` tokens do not match its media.
    """
    numbered = sorted(enumerate(samples), key=lambda one: -one[1].answer_start)
    asks = (
        Ask(
            number=number,
            prompt=Prompt(ids_T=sample.input_ids_T[: sample.answer_start], media=sample),
            max_new_tokens=max_new_tokens,
        )
        for number, sample in numbered
    )
    generation = Generation(
        model, stop_tokens(tokenizer), choose=Chooser(sampling, range(len(samples))), max_rows=batch_size
    )
    answers = [""] * len(samples)
    for generated in generation.run(asks):
        answers[generated.number] = tokenizer.decode(generated.tokens).strip()
    return answers


def stop_tokens(tokenizer: "ChatTokenizer") -> frozenset[int]:
    """The tokens that end an answer."""
    return frozenset({tokenizer.im_end_id, tokenizer.end_of_text_id})


def answer(
    decoding: Decoding, numbers: Sequence[int], tokenizer: "ChatTokenizer", max_new_tokens: int, choose: Chooser
) -> list[str]:
    """Add chosen tokens to every row until all have ended their messages; returns the texts without special tokens.

    Args:
        decoding: rows that end where an answer starts.
        numbers: the chooser's number of each row.
        tokenizer: the model's tokenizer.
        max_new_tokens: maximum tokens of an answer.
        choose: chooses the next tokens.
    """
    stops = stop_tokens(tokenizer)
    answers: list[list[int]] = [[] for _ in numbers]
    rows = list(range(len(numbers)))  # index in `answers` of each row of the decoding
    open_rows = set(rows)
    for step in range(max_new_tokens):
        chosen = choose(decoding.scores(), [numbers[row] for row in rows])
        for row, token in zip(rows, chosen, strict=True):
            if token in stops:
                open_rows.discard(row)
            elif row in open_rows:
                answers[row].append(token)
        if not open_rows or step == max_new_tokens - 1:
            break
        # Drop ended rows only when they are a quarter: copying the cache costs more than computing a few idle rows.
        if len(rows) - len(open_rows) >= max(1, len(rows) // 4):
            kept = [place for place, row in enumerate(rows) if row in open_rows]
            decoding.select(kept)
            rows, chosen = [rows[place] for place in kept], [chosen[place] for place in kept]
        decoding.add(chosen)
    return [tokenizer.decode(ids).strip() for ids in answers]


@torch.inference_mode()
def answer_tokens(
    decoding: Decoding, tokenizer: "ChatTokenizer", max_new_tokens: int, choose: Chooser
) -> Iterator[int]:
    """The tokens of the only row's answer as they are chosen; each is added to the row after it was yielded."""
    for _ in range(max_new_tokens):
        token = choose(decoding.scores())[0]
        if token in stop_tokens(tokenizer):
            return
        yield token
        decoding.add([token])
