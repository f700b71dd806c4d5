r"""Streaming video: after each frame the model decides whether to keep watching or to speak.

A stream message is `<|stream_start|>stream\nTime 1.0s: <image>\n<|stream_end|>`. The token after it is the model's
decision: `<|stream_start|>` (watch the next frame) or `<|im_start|>` (speak now). Attention is causal, so one pass over
all frames gives the same decisions as if the frames had come one by one.

Shapes: T text+vision tokens of a sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vl3.data.sample.chat import ASSISTANT_HEADER
from vl3.errors import DataError
from vl3.inference.batch import BATCH_TOKENS, Decoding, Prompt, similar_batches
from vl3.inference.generate import answer
from vl3.inference.sampling import GREEDY, Chooser
from vl3.models.model import VideoLlama3

if TYPE_CHECKING:
    from vl3.data.sample.prepare import PreparedSample
    from vl3.data.sample.tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResult:
    """What the model did with one stream."""

    frame_index: int | None
    """Index of the stream message (one frame each) after which it first spoke, or None if it never did."""
    text: str
    """What it said; empty if it never spoke."""


@dataclass(frozen=True, slots=True)
class WatchedStream:
    """A stream without its answers, and the positions at which the model decides."""

    prompt: Prompt
    """All frames and questions, no assistant message."""
    ends: tuple[int, ...]
    """Index in the prompt of the last token of each stream message at which the model decides."""
    frames: tuple[int, ...]
    """Index of each of these stream messages among all stream messages."""


@torch.inference_mode()
def watch_streams(
    model: VideoLlama3,
    samples: Sequence["PreparedSample"],
    tokenizer: "ChatTokenizer",
    *,
    max_new_tokens: int,
    batch_size: int = 64,
    on_batch: Callable[[Sequence[int], Sequence[StreamResult]], None] = lambda *_: None,
) -> list[StreamResult]:
    """When the model first speaks in each stream, and what it says, with greedy decoding; in the samples' order.

    Args:
        model: the model, in evaluation mode.
        samples: prepared streaming samples; their assistant messages are removed first.
        tokenizer: the model's tokenizer.
        max_new_tokens: maximum tokens of an answer.
        batch_size: maximum number of samples run together.
        on_batch: called after each batch with the samples' numbers and their results.

    Raises:
        DataError: a sample has no stream message, or its `<image>` tokens do not match its media.
    """
    watches = [find_decisions(sample, tokenizer) for sample in samples]
    results = [StreamResult(frame_index=None, text="")] * len(samples)
    for batch in similar_batches([len(watch.prompt.ids_T) for watch in watches], batch_size, BATCH_TOKENS):
        spoken = _watch_batch(model, [watches[index] for index in batch], tokenizer, max_new_tokens)
        for index, result in zip(batch, spoken, strict=True):
            results[index] = result
        on_batch(batch, spoken)
    return results


def find_decisions(sample: "PreparedSample", tokenizer: "ChatTokenizer") -> WatchedStream:
    """Remove the assistant's messages from a stream and find the ends of its stream messages.

    After a stream message that is followed by a user message, the model does not decide. Messages, F for a frame:

        user F0 F1 assistant F2 user F3    the model decides after F0, F1 and F3

    Raises:
        DataError: the sample has no stream message.
    """
    ids_T = np.asarray(sample.input_ids_T)
    starts = np.flatnonzero((ids_T == tokenizer.im_start_id) | (ids_T == tokenizer.stream_start_id))
    answer_head = np.asarray(tokenizer.encode(ASSISTANT_HEADER))
    messages = [message for message in np.split(ids_T, starts) if len(message) and not _begins(message, answer_head)]
    is_stream = [bool(message[0] == tokenizer.stream_start_id) for message in messages]
    if not any(is_stream):
        raise DataError(
            f"sample {sample.sample_id} has no <|stream_start|> message, so it is not a stream. Evaluate it with "
            "generate_answers, or give it a stream."
        )
    lasts = np.cumsum([len(message) for message in messages]) - 1
    numbers = np.cumsum(is_stream) - 1
    decides = [i for i, now in enumerate(is_stream) if now and (i + 1 == len(messages) or is_stream[i + 1])]
    return WatchedStream(
        prompt=Prompt(ids_T=np.concatenate(messages), media=sample),
        ends=tuple(int(lasts[i]) for i in decides),
        frames=tuple(int(numbers[i]) for i in decides),
    )


def _begins(message: np.ndarray, head: np.ndarray) -> bool:
    return len(message) >= len(head) and bool((message[: len(head)] == head).all())


def _watch_batch(
    model: VideoLlama3, watches: Sequence[WatchedStream], tokenizer: "ChatTokenizer", max_new_tokens: int
) -> list[StreamResult]:
    head = tokenizer.encode(ASSISTANT_HEADER)
    decoding = Decoding(model, [watch.prompt for watch in watches], len(head) + max_new_tokens)
    decisions = _first_spoken(model, decoding, watches, tokenizer)
    rows = [row for row, decision in enumerate(decisions) if decision is not None]
    results = [StreamResult(frame_index=None, text="")] * len(watches)
    if not rows:
        return results
    chosen = [decisions[row] or 0 for row in rows]
    decoding.restart(rows, [watches[row].ends[place] + 1 for row, place in zip(rows, chosen, strict=True)])
    for token in head:
        decoding.add([token] * len(rows))
    texts = answer(decoding, range(len(rows)), tokenizer, max_new_tokens, Chooser(GREEDY, range(len(rows))))
    for row, place, text in zip(rows, chosen, texts, strict=True):
        results[row] = StreamResult(frame_index=watches[row].frames[place], text=text)
    return results


def _first_spoken(
    model: VideoLlama3, decoding: Decoding, watches: Sequence[WatchedStream], tokenizer: "ChatTokenizer"
) -> list[int | None]:
    """For each stream, the index of its first decision to speak, or None."""
    places = [start + end for start, watch in zip(decoding.starts, watches, strict=True) for end in watch.ends]
    scores = model.logits(decoding.hidden_TD[torch.tensor(places, device=model.device)])
    speaks = iter((scores[:, tokenizer.im_start_id] > scores[:, tokenizer.stream_start_id]).tolist())
    decided = [[next(speaks) for _ in watch.ends] for watch in watches]
    return [flags.index(True) if True in flags else None for flags in decided]
