"""Packed rows: several samples in one sequence; attention does not cross from one sample to another.

Legend: T tokens, S samples, P patches, C values of a patch, I items, M merged tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vl3.conventions import IGNORED_LABEL, PATCH_SIZE_PX
from vl3.data.sample.prepare import PreparedSample
from vl3.data.sample.tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedRow:
    """One row of a training step. Positions restart at 0 for each sample; `cu_seqlens` (S+1) is where each starts."""

    input_ids_T: np.ndarray
    labels_T: np.ndarray
    position_ids_T: np.ndarray
    cu_seqlens: np.ndarray
    pixels_PC: np.ndarray
    grid_thw_I3: np.ndarray
    merge_sizes_I: np.ndarray
    keep_M: np.ndarray
    sample_ids: tuple[str, ...]
    visual_tokens: int
    """Vision tokens after merging, before DiffFP."""
    visual_tokens_kept: int
    """Vision tokens in the row, after DiffFP."""

    @property
    def supervised_tokens(self) -> int:
        """Tokens that count in the loss."""
        return int((self.labels_T != IGNORED_LABEL).sum())


def empty_row(tokenizer: ChatTokenizer) -> PackedRow:
    """A row of one unsupervised token, for a pack whose samples were all left out: each rank needs the same number."""
    return PackedRow(
        input_ids_T=np.array([tokenizer.end_of_text_id], dtype=np.int64),
        labels_T=np.array([IGNORED_LABEL], dtype=np.int64),
        position_ids_T=np.zeros(1, dtype=np.int64),
        cu_seqlens=np.array([0, 1], dtype=np.int64),
        pixels_PC=np.zeros((0, 3 * PATCH_SIZE_PX**2), dtype=np.uint8),
        grid_thw_I3=np.zeros((0, 3), dtype=np.int64),
        merge_sizes_I=np.zeros(0, dtype=np.int64),
        keep_M=np.zeros(0, dtype=np.bool_),
        sample_ids=(),
        visual_tokens=0,
        visual_tokens_kept=0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRows:
    """The rows of one rank in one step."""

    rows: list[PackedRow]
    read_bytes: int = 0
    """Bytes that were read from the datasets for them."""
    retries: int = 0
    """Requests to the datasets' store that had to be repeated."""


class Allocator(Protocol):
    """Makes an array whose content is not set, as numpy.empty does."""

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of a shape and type."""


def pack_row(samples: Sequence[PreparedSample], allocate: Allocator = np.empty) -> PackedRow:
    """Put samples into one row; `allocate` makes the array of the pixels, the only large one.

    The first label of each sample is ignored: no token of the sample predicts it.

    Two samples of 3 and 2 tokens, every token supervised:

        input_ids     a b c | d e        cu_seqlens  0 3 5
        position_ids  0 1 2 | 0 1
        labels        - b c | - e        (a dash is -100)
    """
    lengths = [len(sample.input_ids_T) for sample in samples]
    borders = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    labels_T = np.concatenate([sample.labels_T for sample in samples])
    labels_T[borders[:-1]] = IGNORED_LABEL
    keep_M = np.concatenate([sample.keep_M for sample in samples])
    return PackedRow(
        input_ids_T=np.concatenate([sample.input_ids_T for sample in samples]),
        labels_T=labels_T,
        position_ids_T=np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]),
        cu_seqlens=borders,
        pixels_PC=_concatenate([sample.pixels_PC for sample in samples], allocate),
        grid_thw_I3=np.concatenate([sample.grid_thw_I3 for sample in samples]),
        merge_sizes_I=np.concatenate([sample.merge_sizes_I for sample in samples]),
        keep_M=keep_M,
        sample_ids=tuple(sample.sample_id for sample in samples),
        visual_tokens=len(keep_M),
        visual_tokens_kept=int(keep_M.sum()),
    )


def _concatenate(parts: Sequence[np.ndarray], allocate: Allocator) -> np.ndarray:
    whole = allocate((sum(len(part) for part in parts), *parts[0].shape[1:]), parts[0].dtype)
    return np.concatenate(parts, out=whole)
