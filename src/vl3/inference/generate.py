"""Answers to batches of prepared samples of unequal length.

Shapes: B samples · T packed text+vision tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from vl3.inference.batch import BATCH_TOKENS, Decoding, Prompt, similar_batches
from vl3.inference.sampling import GREEDY, Chooser, Sampling
from vl3.models.model import VideoLlama3

if TYPE_CHECKING:
    from vl3.data.sample.prepare import PreparedSample
    from vl3.data.sample.tokenizer import ChatTokenizer


@torch.inference_mode()
def generate_answers(
    model: VideoLlama3,
    samples: Sequence["PreparedSample"],
    tokenizer: "ChatTokenizer",
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    on_batch: Callable[[Sequence[int], Sequence[str]], None] = lambda *_: None,
) -> list[str]:
    """The model's answer to each sample's last question, in the samples' order.

    Args:
        model: the model, in evaluation mode.
        samples: prepared samples; the prompt is everything before `answer_start`.
        tokenizer: the model's tokenizer.
        max_new_tokens: maximum tokens of an answer.
        sampling: how tokens are chosen.
        batch_size: maximum number of samples generated together.
        on_batch: called after each batch with the samples' numbers and their answers.

    Raises:
        DataError: a sample's `<image>` tokens do not match its media.
    """
    prompts = [Prompt(ids_T=sample.input_ids_T[: sample.answer_start], media=sample) for sample in samples]
    choose = Chooser(sampling, range(len(samples)))
    answers = [""] * len(samples)
    for batch in similar_batches([len(prompt.ids_T) for prompt in prompts], batch_size, BATCH_TOKENS):
        decoding = Decoding(model, [prompts[index] for index in batch], max_new_tokens)
        texts = answer(decoding, batch, tokenizer, max_new_tokens, choose)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
        on_batch(batch, texts)
    return answers


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
    stops = {tokenizer.im_end_id, tokenizer.end_of_text_id}
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
        if token in (tokenizer.im_end_id, tokenizer.end_of_text_id):
            return
        yield token
        decoding.add([token])
