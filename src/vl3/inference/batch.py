"""A batch of prompts of unequal length: one packed pass over all of them, then one token at a time.

Shapes: B samples · T packed text+vision tokens · P patches before merge · M vision tokens after merge · I visual items
· C channels*patch^2 · D text dim · W vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vl3.inference.cache import RaggedCache
from vl3.models.attention import Segments
from vl3.models.model import VideoLlama3

if TYPE_CHECKING:
    from vl3.data.sample.prepare import PreparedSample

BATCH_TOKENS = 16384
"""Maximum number of prompt tokens that are run together."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The part of one sample that the model is given; vision tokens beyond the last `<image>` are ignored."""

    ids_T: np.ndarray
    """Token ids, each `<image>` expanded to its kept tokens."""
    media: "PreparedSample"
    """The sample whose pixels, grids and mask belong to the ids."""


class Decoding:
    """The state of generating answers to a batch of prompts."""

    def __init__(self, model: VideoLlama3, prompts: Sequence[Prompt], spare_tokens: int) -> None:
        """Run all prompts as one packed row.

        Args:
            model: the model.
            prompts: the prompts, preferably of similar length.
            spare_tokens: expected maximum number of tokens that will be added to a row.

        Raises:
            DataError: a prompt has more `<image>` tokens than its media have.
        """
        self._model = model
        lengths = [len(prompt.ids_T) for prompt in prompts]
        self._cache = RaggedCache(lengths, spare_tokens, model.device)
        positions_T = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
        self.starts = (np.cumsum(lengths) - lengths).tolist()
        """First packed token of each prompt."""
        self.hidden_TD = model.decode(
            _embed(model, prompts),
            positions_T,
            segments=Segments.of_similar(lengths, model.device),
            cache=self._cache,
        )
        """Final hidden states of all prompts, packed."""
        self._cache.finish_prefill()
        self.last_BD = self.hidden_TD[torch.tensor(self.starts) + torch.tensor(lengths) - 1]
        """Hidden state of each row's last token, which predicts the next one."""

    def restart(self, rows: list[int], lengths: list[int]) -> None:
        """Continue with only these rows, each shortened to the given number of tokens."""
        self._cache.select(rows)
        self._cache.truncate(lengths)

    def select(self, rows: list[int]) -> None:
        """Continue with only these rows."""
        self._cache.select(rows)
        self.last_BD = self.last_BD[torch.tensor(rows, device=self.last_BD.device)]

    def add(self, ids: list[int]) -> None:
        """Add one token to each row."""
        self._extend(self._model.language_model.embed_tokens(torch.tensor(ids, device=self._model.device)).unsqueeze(1))

    def feed(self, prompt: Prompt) -> None:
        """Add a prompt, with its media, to the only row.

        Raises:
            DataError: the prompt has more `<image>` tokens than its media have.
        """
        self._extend(_embed(self._model, [prompt]).unsqueeze(0))

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the longest row."""
        return self._cache.longest_tokens

    def scores(self) -> Tensor:
        """Scores of the next token of each row (B, W)."""
        return self._model.logits(self.last_BD)

    def _extend(self, inputs_BTD: Tensor) -> None:
        cache = self._cache
        cache.begin(inputs_BTD.shape[1])
        hidden_BTD = self._model.decode(inputs_BTD, cache.places_BQ, cache=cache, key_mask_BQL=cache.key_mask_BQL)
        cache.advance()
        self.last_BD = hidden_BTD[:, -1]


def similar_batches(lengths: Sequence[int], batch_size: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indexes of samples of similar length, at most batch_size samples and batch_tokens tokens, at least one sample.

    Each sample counts as long as the longest. Lengths 5, 90, 6, 40 with batch_tokens=100 give [0, 2], [3] and [1].
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[index] > batch_tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _embed(model: VideoLlama3, prompts: Sequence[Prompt]) -> Tensor:
    """Decoder inputs (T, D) of all prompts; the encoder runs once over the media of the whole batch."""
    ids_T = np.concatenate([prompt.ids_T for prompt in prompts])
    media = [prompt.media for prompt in prompts]
    if not any(len(sample.grid_thw_I3) for sample in media):
        return model.place(ids_T, torch.empty(0, model.config.text.hidden_size))
    features_KD = model.encode_visual(
        np.concatenate([sample.pixels_PC for sample in media]),
        np.concatenate([sample.grid_thw_I3 for sample in media]),
        np.concatenate([sample.merge_sizes_I for sample in media]),
        np.concatenate([sample.keep_M for sample in media]),
    )
    used_K = _used_features(prompts, model.config.image_token_id)
    if not used_K.all():
        features_KD = features_KD[torch.from_numpy(used_K).to(features_KD.device)]
    return model.place(ids_T, features_KD)


def _used_features(prompts: Sequence[Prompt], image_token_id: int) -> np.ndarray:
    """Which kept vision tokens have an `<image>` in the prompts; media after a prompt's end have none.

    A prompt with 2 `<image>` tokens and 3 kept vision tokens, then one with 1 and 1: True True False True.
    """
    used = []
    for prompt in prompts:
        places = int((prompt.ids_T == image_token_id).sum())
        used.append(np.arange(int(prompt.media.keep_M.sum())) < places)
    return np.concatenate(used)
