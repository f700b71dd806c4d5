"""The whole model: AVT encoder, projector and Qwen2 decoder over packed rows (arXiv 2501.13106 sec. 3).

A packed row has several samples end to end; positions restart and attention ends at each. Vision tokens replace the
embeddings of the `<image>` ids; tokens that DiffFP dropped have neither an id nor a feature. Inputs stay on CPU (only
pixels may be on the device): the positions of images and supervised tokens are computed there, by numpy, so that the
CPU never waits for the GPU.

Shapes: T packed text+vision tokens · P patches before merge (all items concatenated) · M vision tokens after merge ·
K vision tokens kept · I visual items · S samples · C channels*patch^2 · D text dim · V vision dim · W vocabulary.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vl3.conventions import IGNORED_LABEL
from vl3.errors import DataError
from vl3.models.attention import Segments
from vl3.models.config import EncoderConfig, VideoLlama3Config
from vl3.models.decoder import Decoder, KeyValueCache, Reach, draw_weights
from vl3.models.encoder import VisionEncoder, check_grids, check_mask, kept_patches
from vl3.models.fixed_config import FixedVisionConfig
from vl3.models.fixed_encoder import FixedEncoder
from vl3.models.head_loss import head_loss_sum
from vl3.models.placing import copy_to
from vl3.models.projector import Projector

Array: TypeAlias = Tensor | np.ndarray


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss of one packed row; the caller divides it by the number of supervised tokens of the global batch."""

    loss_sum: Tensor
    """Sum of the cross entropy over the supervised tokens, fp32."""
    num_supervised: int
    """Number of supervised tokens of the row."""


class VideoLlama3(nn.Module):
    """Vision encoder, projector and decoder. `lm_head` is None if the head shares the embedding's weights."""

    def __init__(self, config: VideoLlama3Config) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = _encoder(config.vision)
        self.mm_projector = Projector(config.vision.hidden_size, config.text.hidden_size)
        self.language_model = Decoder(config.text)
        tied = config.text.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.text.hidden_size, config.text.vocab_size, bias=False)
        if self.lm_head is not None:
            draw_weights(self.lm_head)

    @classmethod
    def empty(cls, config: VideoLlama3Config) -> "VideoLlama3":
        """A model with parameters on the meta device, to be filled from a checkpoint without random initialisation."""
        with torch.device("meta"):
            return cls(config)

    def forward(
        self,
        *,
        input_ids_T: Array,
        position_ids_T: Array,
        cu_seqlens: Array,
        pixels_PC: Array,
        grid_thw_I3: Array,
        merge_sizes_I: Array,
        keep_M: Array,
        labels_T: Array,
    ) -> LossOutput:
        """Loss of one packed row.

        The token before a label predicts it: for the labels - b c - e (a dash is -100) the tokens 0, 1 and 3 predict
        b, c and e.

        Args:
            input_ids_T: token ids, one `<image>` for each kept vision token.
            position_ids_T: position of each token in its sample, from 0.
            cu_seqlens: first token of each sample, and the end (S + 1).
            pixels_PC: raw patches, uint8; all of them, or only those of the kept tokens.
            grid_thw_I3: frames, rows and columns of patches of each item.
            merge_sizes_I: merge size of each item.
            keep_M: which vision tokens of all items are kept.
            labels_T: the token's own id where it is supervised, else -100; not shifted by one.

        Raises:
            DataError: shapes, grids, ids and vision tokens do not match.
        """
        labels = np.asarray(labels_T)
        inputs_TD = self.embed(
            input_ids_T=input_ids_T,
            pixels_PC=pixels_PC,
            grid_thw_I3=grid_thw_I3,
            merge_sizes_I=merge_sizes_I,
            keep_M=keep_M,
        )
        _check_row(inputs_TD.shape[0], position_ids_T, cu_seqlens, labels)
        segments = Segments.of_similar(np.diff(np.asarray(cu_seqlens)).tolist(), self.device)
        hidden_TD = self.decode(inputs_TD, torch.as_tensor(position_ids_T), segments=segments)
        before = np.flatnonzero(labels[1:] != IGNORED_LABEL)
        targets = copy_to(labels[before + 1].astype(np.int64, copy=False), self.device)
        hidden_ND = hidden_TD.index_select(0, copy_to(before, self.device))
        return LossOutput(loss_sum=head_loss_sum(hidden_ND, self.head_weight, targets), num_supervised=len(before))

    def embed(
        self, *, input_ids_T: Array, pixels_PC: Array, grid_thw_I3: Array, merge_sizes_I: Array, keep_M: Array
    ) -> Tensor:
        """Decoder inputs (T, D): word embeddings, with vision tokens at the positions of `<image>`.

        Raises:
            DataError: the numbers of `<image>` ids and of kept vision tokens differ, or an id is unknown.
        """
        if len(grid_thw_I3):
            features_KD = self.encode_visual(pixels_PC, grid_thw_I3, merge_sizes_I, keep_M)
            return self.place(input_ids_T, features_KD)
        # A row without media still runs the encoder, on the smallest black picture, whose result is multiplied by 0:
        # the graph and the collectives must be the same on every rank.
        rows, columns = self.vision_encoder.smallest_grid
        dummy = np.zeros((rows * columns, self.config.vision.patch_dim), dtype=np.uint8)
        grid, merge = np.array([[1, rows, columns]]), np.ones(1, dtype=np.int64)
        unused = self.encode_visual(dummy, grid, merge, np.ones(rows * columns, bool))
        return self.place(input_ids_T, unused[:0]) + unused.sum() * 0

    def encode_visual(self, pixels_PC: Array, grid_thw_I3: Array, merge_sizes_I: Array, keep_M: Array) -> Tensor:
        """Kept vision tokens (K, D) of all items, in their order.

        The pixels are those of all patches (tokens are dropped after the encoder, as in the released code) or only
        those of the kept tokens (dropped before the encoder); their number shows which.

        Raises:
            DataError: grids, pixels and the mask do not match.
        """
        raw_PC, keep = copy_to(pixels_PC, self.device), np.asarray(keep_M)
        grids, merges = np.asarray(grid_thw_I3), np.asarray(merge_sizes_I)
        check_grids(grids, merges)
        check_mask(keep, int((grids.prod(1) // merges**2).sum()))
        if keep.all():
            features_KV = self.vision_encoder(raw_PC, grids, merges)
        elif len(raw_PC) == kept_patches(grids, merges, keep):
            features_KV = self.vision_encoder(raw_PC, grids, merges, keep)
        else:
            places = copy_to(np.flatnonzero(keep), self.device)
            features_KV = self.vision_encoder(raw_PC, grids, merges).index_select(0, places)
        return self.mm_projector(features_KV)

    def place(self, input_ids_T: Array, features_KD: Tensor) -> Tensor:
        """Word embeddings (T, D) with the features at the positions of `<image>`, in order.

        Raises:
            DataError: the numbers of `<image>` ids and of features differ, or an id is not in the vocabulary.
        """
        ids = np.asarray(input_ids_T)
        _check_ids(ids, self.config.text.vocab_size)
        places = np.flatnonzero(ids == self.config.image_token_id)
        if len(places) != len(features_KD):
            raise DataError(
                f"the text has {len(places)} <image> tokens but there are {len(features_KD)} kept vision tokens. Each "
                "would get the wrong part of the picture. Expand <image> with the same grid, merge size and mask."
            )
        embeds_TD = self.language_model.embed_tokens(copy_to(ids, self.device))
        if not len(places):
            return embeds_TD
        return embeds_TD.index_copy(0, copy_to(places, self.device), features_KD.to(embeds_TD.dtype))

    def decode(
        self,
        inputs_TD: Tensor,
        position_ids_T: Tensor,
        *,
        segments: Segments | None = None,
        cache: KeyValueCache | None = None,
        key_mask_BQL: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states of packed samples (T, D), which need `segments`, or of rows that grow (B, Q, D).

        Raises:
            DataError: nothing says which tokens belong together.
        """
        reach = Reach(segments=segments, cache=cache, key_mask_BQL=key_mask_BQL)
        return self.language_model(inputs_TD, copy_to(position_ids_T, self.device), reach)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Scores of the next token (N, W), in the model's dtype."""
        return functional.linear(hidden_ND, self.head_weight)

    def parts(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Named parameters of each trainable part; the head belongs to the language model."""
        language = [(f"language_model.{name}", p) for name, p in self.language_model.named_parameters()]
        if self.lm_head is not None:
            language += [(f"lm_head.{name}", p) for name, p in self.lm_head.named_parameters()]
        return {
            "vision": [(f"vision_encoder.{name}", p) for name, p in self.vision_encoder.named_parameters()],
            "projector": [(f"mm_projector.{name}", p) for name, p in self.mm_projector.named_parameters()],
            "language": language,
        }

    def set_recompute(self, kind: str) -> None:
        """What the blocks of encoder and decoder compute again in backward: none, selective or full."""
        self.vision_encoder.recompute = self.language_model.recompute = kind

    @property
    def head_weight(self) -> Tensor:
        """The head's weights (W, D), which are the embedding's if they are tied."""
        return (self.language_model.embed_tokens if self.lm_head is None else self.lm_head).weight

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.language_model.embed_tokens.weight.device


def _encoder(config: EncoderConfig) -> VisionEncoder | FixedEncoder:
    return FixedEncoder(config) if isinstance(config, FixedVisionConfig) else VisionEncoder(config)


def _check_ids(ids: np.ndarray, vocab_size: int) -> None:
    if not len(ids):
        return
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= vocab_size:
        raise DataError(
            f"token ids range from {lowest} to {highest} but the model's vocabulary has {vocab_size} rows. Use the "
            "tokenizer in the model's folder."
        )


def _check_row(num_tokens: int, position_ids_T: Array, cu_seqlens: Array, labels: np.ndarray) -> None:
    if len(position_ids_T) == len(labels) == num_tokens == int(cu_seqlens[-1]) and int(cu_seqlens[0]) == 0:
        return
    raise DataError(
        f"a packed row has {num_tokens} ids, {len(position_ids_T)} positions, {len(labels)} labels and samples from "
        f"{int(cu_seqlens[0])} to {int(cu_seqlens[-1])}. All must cover the same tokens. Build them with pack_row."
    )
