"""Small models of every form, and rows of images and text for them."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.models import text_config, vision_config
from vl3.data.loader.rows import PackedRow
from vl3.models.config import VideoLlama3Config

IMAGE_ID = 40


@pytest.fixture
def make_sizes() -> Callable[..., VideoLlama3Config]:
    """Sizes in which no two dimensions are equal, so that a wrong one shows."""

    def make(**changes: object) -> VideoLlama3Config:
        text = text_config(hidden_size=48, intermediate_size=80, num_hidden_layers=3, **changes)
        vision = vision_config(hidden_size=32, intermediate_size=56, num_hidden_layers=2)
        return VideoLlama3Config(vision=vision, text=text, image_token_id=IMAGE_ID)

    return make


@pytest.fixture
def make_row() -> Callable[..., PackedRow]:
    """A row of samples, each with images of 4 x 4 patches merged 2 x 2 and `text` tokens, half of them supervised."""

    def make(*texts: int, images: int = 1) -> PackedRow:
        rng = np.random.default_rng(0)
        lengths = [4 * images + text for text in texts]
        ids = [np.concatenate([np.full(4 * images, IMAGE_ID), rng.integers(0, 39, text)]) for text in texts]
        labels = [one.copy() for one in ids]
        for label, text in zip(labels, texts, strict=True):
            label[: len(label) - text // 2] = -100
        count = images * len(texts)
        return PackedRow(
            input_ids_T=np.concatenate(ids),
            labels_T=np.concatenate(labels),
            position_ids_T=np.concatenate([np.arange(length) for length in lengths]),
            cu_seqlens=np.cumsum([0, *lengths]),
            pixels_PC=rng.integers(0, 256, (16 * count, 588), dtype=np.uint8),
            grid_thw_I3=np.array([[1, 4, 4]] * count, dtype=np.int64).reshape(-1, 3),
            merge_sizes_I=np.full(count, 2, dtype=np.int64),
            keep_M=np.ones(4 * count, dtype=np.bool_),
            sample_ids=tuple(map(str, range(len(texts)))),
            visual_tokens=4 * count,
            visual_tokens_kept=4 * count,
        )

    return make
