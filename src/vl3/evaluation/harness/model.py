"""The model `vl3` of lmms-eval: its tasks' chat messages, answered by vl3's own inference.

lmms-eval --model vl3 --model_args checkpoint=runs/tiny/artifacts/.../model --tasks mme,videomme
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms

from vl3.errors import ConfigError, DataError
from vl3.evaluation.engine.engine import Engine
from vl3.evaluation.harness.answers import TaskAnswer, answer_asks
from vl3.evaluation.harness.asks import TaskAsk, read_messages
from vl3.evaluation.harness.protocol import FPS, MAX_FRAMES, VISUAL_TOKENS, as_published
from vl3.inference.chat import Chat

TASK_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a task's own code raises for a document that it cannot read; SystemExit comes besides."""
DEFAULT_ROWS = 16
"""Answers that are generated at the same time."""
_log = logging.getLogger(__name__)
_DTYPES = ("float32", "bfloat16", "float16")


class Vl3(lmms):
    """A VideoLLaMA3 checkpoint: a folder that vl3 has written, or the released one."""

    is_simple = False

    def __init__(
        self,
        checkpoint: str,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = DEFAULT_ROWS,
        max_visual_tokens: int = VISUAL_TOKENS,
        max_frames: int = MAX_FRAMES,
        fps: float = FPS,
        max_new_tokens: int | None = None,
        max_failed_share: float = 0.01,
        **unknown: Any,
    ) -> None:
        """Load the model.

        Args:
            checkpoint: folder of the model.
            device: such as `cuda:1`; None uses a GPU if there is one.
            dtype: type of the weights: float32, bfloat16 or float16; None for bf16 on a GPU, else as stored.
            batch_size: number of answers generated at the same time.
            max_visual_tokens: vision tokens of a question.
            max_frames: most frames of a video.
            fps: frames to take per second.
            max_new_tokens: most tokens of an answer; None takes each task's own limit.
            max_failed_share: share of questions that may fail before the evaluation is refused.
            unknown: options that lmms-eval passes to every model; only those without a value are accepted.

        Raises:
            ConfigError: the folder is not a model, or an option is unknown.
        """
        super().__init__()
        given = sorted(name for name, value in unknown.items() if value is not None and name != "max_batch_size")
        if given:
            raise ConfigError(f"--model_args of vl3 has no {', '.join(given)}. See docs/evaluation.md for its options.")
        chat = Chat.load(checkpoint, device=device, dtype=_dtype(dtype))
        settings = as_published(
            chat.settings, fps=float(fps), max_frames=int(max_frames), visual_tokens=int(max_visual_tokens)
        )
        rows = int(batch_size) if str(batch_size).isdigit() else DEFAULT_ROWS
        self._model = chat.model
        self._engine = Engine(chat.model, chat.tokenizer, settings, max_rows=rows)
        self._max_new_tokens = int(max_new_tokens) if max_new_tokens is not None else None
        self._max_failed_share = float(max_failed_share)

    @property
    def engine(self) -> Engine:
        """What answers."""
        return self._engine

    @property
    def device(self) -> Any:
        """Where the model is, for lmms-eval's collectives."""
        return self._model.device

    def asks_of(self, requests: Sequence[Instance]) -> Iterator[TaskAsk | TaskAnswer]:
        """The question of each request, or why it cannot be asked; each document is read when its turn comes."""
        for request in requests:
            yield read_request(request, self.task_dict, self._max_new_tokens)

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers to lmms-eval's requests, in their order.

        Raises:
            DataError: more questions failed than `max_failed_share` allows; they are named.
        """
        once = {request_name(request): request for request in requests}  # lmms-eval repeats and pads requests
        replies = {reply.name: reply for reply in answer_asks(self._engine, self.asks_of(list(once.values())))}
        found = [replies[request_name(request)] for request in requests]
        failed = [reply for reply in found if reply.text is None]
        for reply in failed:
            _log.warning("%s failed: %s", reply.name, reply.failure)
        if len(failed) > self._max_failed_share * len(found):
            raise DataError(
                f"{len(failed)} of {len(found)} questions failed, over max_failed_share={self._max_failed_share:g}, "
                f"so that the scores would not be the model's. The first, {failed[0].name}: {failed[0].failure}"
            )
        return [
            GenerationResult(text=reply.text or "", token_counts=TokenCounts(output_tokens=reply.tokens))
            for reply in found
        ]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Refuse tasks that compare the likelihood of options: the paper's benchmarks generate."""
        raise ConfigError("vl3 answers by generation, and this task asks for likelihoods. Use the task that generates.")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:  # noqa: ARG002
        """Refuse conversations of several rounds."""
        raise ConfigError("vl3 answers one question at a time, and this task has several rounds. Leave it out.")


def read_request(request: Instance, documents: Any, max_new_tokens: int | None) -> TaskAsk | TaskAnswer:
    """The question of one of lmms-eval's requests, or its failure.

    Args:
        request: made by a chat task.
        documents: datasets by task and split.
        max_new_tokens: overrides the task's own limit.
    """
    _, to_messages, options, number, task, split = request.args
    name = request_name(request)
    try:
        messages = to_messages(documents[task][split][number])
        return read_messages(
            messages,
            name=name,
            max_new_tokens=max_new_tokens or int(options.get("max_new_tokens") or 128),
            # lmms-eval adds an empty line to every task's stops, which would end a chain of thought.
            stops=[stop for stop in options.get("until") or () if stop.strip()],
        )
    except DataError as error:
        return TaskAnswer(name=name, text=None, failure=str(error))
    except (SystemExit, *TASK_ERRORS) as error:
        reason = f"the task's code refused the document ({type(error).__name__}: {error})"
        return TaskAnswer(name=name, text=None, failure=reason)


def request_name(request: Instance) -> str:
    """Task and number of the document: `mme-000012`."""
    return f"{request.args[4]}-{request.args[3]:06d}"


def _dtype(name: str | None) -> Any:
    if name is None:
        return None
    if name not in _DTYPES:
        raise ConfigError(f"dtype={name!r} is not one of {', '.join(_DTYPES)}. Set one of them, or leave it out.")
    import torch

    return getattr(torch, name)
