"""Ask questions to a model in a folder.

>>> chat = Chat.load("checkpoints/video")                                            # doctest: +SKIP
>>> chat.ask("What is drawn on the note?", images=["cat.jpg"])                        # doctest: +SKIP
>>> chat.ask("What happens?", video="clip.mp4", start_seconds=2, end_seconds=8)       # doctest: +SKIP
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vl3.data.sample.prepare import PrepareSettings
from vl3.data.sample.tokenizer import MESSAGE_END, ChatTokenizer
from vl3.errors import ConfigError, DataError
from vl3.inference.batch import Decoding, Prompt
from vl3.inference.generate import answer_tokens, generate_answers
from vl3.inference.question import Question, prepare_question, trained_settings
from vl3.inference.sampling import GREEDY, Chooser, Sampling
from vl3.inference.watcher import StreamWatcher
from vl3.models.model import VideoLlama3
from vl3.models.weights import load_model

MAX_NEW_TOKENS = 512
"""Default for the maximum number of tokens of an answer."""


class Chat:
    """A model that answers questions about text, images and videos."""

    def __init__(self, model: VideoLlama3, tokenizer: ChatTokenizer, settings: PrepareSettings) -> None:
        """Use a loaded model; `settings` decide how media become tokens.

        Raises:
            ConfigError: the tokenizer belongs to another model.
        """
        _check_tokenizer(model, tokenizer)
        self.model, self.tokenizer, self.settings = model, tokenizer, settings

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        max_visual_tokens: int | None = None,
    ) -> "Chat":
        """Read a model folder.

        Args:
            folder: has config.json, safetensors and tokenizer.json; run.json, if present, gives the trained limits.
            device: such as "cuda"; None uses a GPU if there is one.
            dtype: type of the weights; None uses bf16 on a GPU and the stored type on CPU.
            max_visual_tokens: maximum vision tokens of a conversation; None for the value of the training.

        Raises:
            ConfigError: the folder is not a model, its files do not match, or there is no such device.
        """
        folder = Path(folder)
        place = _device(device)
        if dtype is None and place.type == "cuda":
            dtype = torch.bfloat16
        settings = trained_settings(folder)
        if max_visual_tokens is not None:
            data = replace(
                settings.data,
                visual_budget_tokens=max_visual_tokens,
                max_row_visual_tokens=max(max_visual_tokens, settings.data.max_row_visual_tokens),
            )
            settings = replace(settings, data=data)
        model = load_model(folder, dtype=dtype)
        return cls(model.to(place), ChatTokenizer.from_folder(folder), settings)

    def ask(self, text: str, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY, **media: Any) -> str:
        """The answer to one question; `media` are the fields of Question (images, video, start_seconds, fps, ...).

        Raises:
            DataError: a media file is missing or cannot be decoded, or the question is too long.
        """
        return self.ask_many([Question(text=text, **media)], max_new_tokens=max_new_tokens, sampling=sampling)[0]

    def ask_many(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
        batch_size: int = 64,
    ) -> list[str]:
        """Answers to questions of any length, in their order, computed in batches without padding.

        Raises:
            DataError: as for `ask`.
        """
        samples = [prepare_question(question, self.tokenizer, self.settings) for question in questions]
        return generate_answers(
            self.model,
            samples,
            self.tokenizer,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            batch_size=batch_size,
        )

    def conversation(self, *, system: str | None = None) -> "Conversation":
        """A new conversation of several turns, starting with a system message if given."""
        return Conversation(self, system)

    def watch(
        self,
        *,
        expected_frames: int | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        sampling: Sampling = GREEDY,
    ) -> StreamWatcher:
        """Watch a video whose frames arrive one by one; see StreamWatcher.

        Args:
            expected_frames: maximum number of frames; they share the vision tokens. None for the trained maximum.
            max_new_tokens: maximum tokens of an utterance.
            sampling: how tokens are chosen.
        """
        return StreamWatcher(
            self.model,
            self.tokenizer,
            self.settings,
            expected_frames=expected_frames,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
        )


class Conversation:
    """Several turns. The keys and values of all previous turns are kept, so each turn computes only its new tokens."""

    def __init__(self, chat: Chat, system: str | None = None) -> None:
        """Start a conversation that contains only the system message, if any."""
        self._chat, self._system = chat, system
        self._decoding: Decoding | None = None
        self._visual_tokens = 0

    def say(self, question: Question, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY) -> str:
        """The whole answer to the next message.

        Raises:
            DataError: a media file is missing or cannot be decoded, or the conversation has no room for the message.
        """
        return self._chat.tokenizer.decode(list(self._answer(question, max_new_tokens, sampling))).strip()

    def stream(
        self, question: Question, *, max_new_tokens: int = MAX_NEW_TOKENS, sampling: Sampling = GREEDY
    ) -> Iterator[str]:
        """The answer to the next message, piece by piece. Stopping early cuts the answer; the conversation continues.

        Raises:
            DataError: as for `say`.
        """
        ids, text, sent = list[int](), "", ""
        for token in self._answer(question, max_new_tokens, sampling):
            ids.append(token)
            text = self._chat.tokenizer.decode(ids).lstrip()
            if not text.endswith("\ufffd"):  # an incomplete character, which the next token completes
                yield text[len(sent) :]
                sent = text
        if text != sent:
            yield text[len(sent) :]

    def _answer(self, question: Question, max_new_tokens: int, sampling: Sampling) -> Iterator[int]:
        decoding = self._begin_turn(question)
        limit = min(max_new_tokens, self._room_tokens)
        yield from answer_tokens(decoding, self._chat.tokenizer, limit, Chooser(sampling))

    @property
    def _room_tokens(self) -> int:
        held = self._decoding.num_tokens if self._decoding is not None else 0
        return self._chat.settings.data.max_length_tokens - held

    @torch.inference_mode()
    def _begin_turn(self, question: Question) -> Decoding:
        """Run the message through the model; after it, the row ends where the answer starts."""
        chat, is_first = self._chat, self._decoding is None
        sample = prepare_question(
            question, chat.tokenizer, self._remaining_settings(), system=self._system if is_first else None
        )
        ids = sample.input_ids_T[: sample.answer_start]
        if not is_first:
            ids = np.concatenate([chat.tokenizer.encode(f"{MESSAGE_END}\n"), ids]).astype(np.int64)
        if len(ids) >= self._room_tokens:
            raise DataError(
                f"the message has {len(ids)} tokens but the conversation has room for {self._room_tokens} of "
                f"{chat.settings.data.max_length_tokens}. Start a new conversation or send a shorter message."
            )
        prompt = Prompt(ids_T=ids, media=sample)
        if self._decoding is None:
            self._decoding = Decoding(chat.model, [prompt], MAX_NEW_TOKENS)
        else:
            self._decoding.feed(prompt)
        self._visual_tokens += len(sample.keep_M)
        return self._decoding

    def _remaining_settings(self) -> PrepareSettings:
        """The settings with the vision tokens that previous turns have left, at least one."""
        settings = self._chat.settings
        left = max(1, settings.data.visual_budget_tokens - self._visual_tokens)
        return replace(settings, data=replace(settings.data, visual_budget_tokens=left))


def _check_tokenizer(model: VideoLlama3, tokenizer: ChatTokenizer) -> None:
    words, rows = tokenizer.vocab_size, model.config.text.vocab_size
    if words > rows or tokenizer.image_id != model.config.image_token_id:
        raise ConfigError(
            f"the tokenizer has {words} ids and <image> as {tokenizer.image_id}, but the model has {rows} rows and "
            f"<image> as {model.config.image_token_id}. Answers would be nonsense. Put the model's own tokenizer.json "
            "into its folder."
        )


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown. Use cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} needs a GPU, and none is usable here. Use cpu.")
    return device
