"""Answers any number of questions with one model as fast as it can: `Engine.answer_all`.

    for reply in Engine(model, tokenizer, settings).answer_all(requests):
        ...

Requests are sorted by length, those about the same media next to each other. Media are decoded once, in threads beside
generation; encoded once; what the decoder made of them is kept for the next question about them; and prompts of unequal
length are generated together, each place being taken by the next one as soon as its answer ends
(vl3.inference.continuous). Greedy answers are those that each question gets alone.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from vl3.data.sample.prepare import PrepareSettings
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError
from vl3.evaluation.engine.preparing import MediaCache, Prepared, Preparing, Unprepared
from vl3.evaluation.engine.request import EngineReply, Request
from vl3.inference.batch import Prompt
from vl3.inference.continuous import Ask, Generation
from vl3.inference.features import FeatureCache
from vl3.inference.generate import stop_tokens
from vl3.inference.streaming import watch_streams
from vl3.models.model import VideoLlama3

TIMEOUT_SECONDS = 300.0
"""Default for the time that media may take to be decoded."""


class Engine:
    """One model, and what it keeps from one call to the next: decoded media, which other engines may share."""

    def __init__(
        self,
        model: VideoLlama3,
        tokenizer: ChatTokenizer,
        settings: PrepareSettings,
        *,
        max_rows: int = 64,
        threads: int = 2,
        timeout_seconds: float = TIMEOUT_SECONDS,
        media: MediaCache | None = None,
    ) -> None:
        """Use a loaded model.

        Args:
            model: the model, in evaluation mode, on its device.
            tokenizer: its tokenizer.
            settings: how its media become tokens.
            max_rows: answers that are generated at the same time.
            threads: requests that are prepared at the same time.
            timeout_seconds: how long the preparation of one request may take before it fails.
            media: keeps decoded media, also for other models.
        """
        self._model, self._tokenizer = model, tokenizer
        self._max_rows = max_rows
        self._media = media or MediaCache()
        self._preparing = Preparing(
            tokenizer, settings, cache=self._media, threads=threads, timeout_seconds=timeout_seconds
        )

    def answer_all(self, requests: Sequence[Request]) -> Iterator[EngineReply]:
        """The replies as they come, which is not the order of the requests; one for each of them.

        Replies depend on the requests of the call alone, not on other calls or on time.

        Raises:
            ConfigError: two requests have the same name.
        """
        _check_names(requests)
        yield from _Call(self._model, self._tokenizer, self._preparing, self._max_rows).run(in_order(requests))


class _Call:
    """One call: which requests are open, and replies that wait to be passed on."""

    def __init__(self, model: VideoLlama3, tokenizer: ChatTokenizer, preparing: Preparing, max_rows: int) -> None:
        self._model, self._tokenizer, self._preparing, self._max_rows = model, tokenizer, preparing, max_rows
        self._open: dict[int, Prepared] = {}
        self._shared: frozenset[str] = frozenset()
        self._streams: list[Prepared] = []
        self._ready: list[EngineReply] = []

    def run(self, requests: Sequence[Request]) -> Iterator[EngineReply]:
        counts = Counter(request.group for request in requests if request.group)
        self._shared = frozenset(group for group, count in counts.items() if count > 1)
        generation = Generation(
            self._model,
            stop_tokens(self._tokenizer),
            max_rows=self._max_rows,
            features=FeatureCache(self._model),  # of this call: what is encoded together must not depend on others
        )
        for generated in generation.run(self._asks(requests)):
            text = self._tokenizer.decode(generated.tokens).strip()
            prepared = self._open.pop(generated.number)
            yield _reply(prepared, text=text, tokens=len(generated.tokens), seconds=generated.seconds)
            yield from self._take_ready()
        self._watch()
        yield from self._take_ready()

    def _asks(self, requests: Sequence[Request]) -> Iterator[Ask]:
        for number, found in enumerate(self._preparing.each(requests)):
            if isinstance(found, Unprepared):
                self._ready.append(EngineReply(name=found.request.name, text=None, failure=found.failure))
            elif found.loaded.record.is_stream:
                self._streams.append(found)
                if len(self._streams) == self._max_rows:
                    self._watch()
            else:
                self._open[number] = found
                yield Ask(
                    number=number,
                    prompt=Prompt(ids_T=found.sample.input_ids_T[: found.sample.answer_start], media=found.sample),
                    media_key=found.media_key,
                    is_shared=found.request.group in self._shared,
                    max_new_tokens=found.request.max_new_tokens,
                )

    def _watch(self) -> None:
        """Answer the streams so far: the model decides after each frame whether it speaks."""
        streams, self._streams = self._streams, []
        for limit in sorted({one.request.max_new_tokens for one in streams}):
            same = [one for one in streams if one.request.max_new_tokens == limit]
            began = time.monotonic()
            samples = [one.sample for one in same]
            results = watch_streams(
                self._model, samples, self._tokenizer, max_new_tokens=limit, batch_size=self._max_rows
            )
            seconds = (time.monotonic() - began) / sum(len(sample.input_ids_T) for sample in samples)
            for one, result in zip(same, results, strict=True):
                self._ready.append(
                    _reply(
                        one,
                        text=result.text,
                        frame_index=result.frame_index,
                        tokens=len(self._tokenizer.encode_text(result.text)),
                        seconds=seconds * len(one.sample.input_ids_T),
                    )
                )

    def _take_ready(self) -> Iterator[EngineReply]:
        while self._ready:
            yield self._ready.pop(0)


def in_order(requests: Sequence[Request]) -> list[Request]:
    """The requests in the order in which they are answered: the group with the longest one first, groups whole.

    Groups a (9 and 4 tokens), b (7): a9 a4 b7. Requests without a group are groups of their own; equal lengths keep
    the order of their names, so that the order of the requests does not matter.
    """
    longest: dict[str, int] = {}
    for request in requests:
        group = request.group or f"#{request.name}"
        longest[group] = max(longest.get(group, 0), request.length_tokens)

    def place(request: Request) -> tuple[int, str, int, str]:
        group = request.group or f"#{request.name}"
        return -longest[group], group, -request.length_tokens, request.name

    return sorted(requests, key=place)


def _reply(
    prepared: Prepared, *, text: str, tokens: int, seconds: float, frame_index: int | None = None
) -> EngineReply:
    return EngineReply(
        name=prepared.request.name,
        text=text,
        frame_index=frame_index,
        record=prepared.loaded.record,
        clip_times=prepared.media.clip_times,
        tokens=tokens,
        seconds=seconds,
    )


def _check_names(requests: Sequence[Request]) -> None:
    names = [request.name for request in requests]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"two requests are named {twice!r}, so their replies could not be told apart. Give each its own name."
        )
