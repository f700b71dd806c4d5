"""A very small model, packed rows for it, a process group of one rank, and run configurations."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from vl3.config.run import RunConfig
from vl3.data.rows import PackedRow
from vl3.recipes.catalog import get_recipe

IMAGE_ID = 40


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """One rank in this process, so that DeepSpeed runs without torchrun."""
    from vl3.training.engine import start_process_group, stop_process_group

    with socket.socket() as probe, pytest.MonkeyPatch.context() as patch:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
        for name, value in (variables | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}).items():
            patch.setenv(name, value)
        start_process_group(local_rank=0, threads=1, seed=0)
        yield
        stop_process_group()


@pytest.fixture
def make_model() -> Callable[[], object]:
    def make() -> object:
        import torch

        from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
        from vl3.models.model import VideoLlama3

        torch.manual_seed(0)
        text = TextConfig(
            vocab_size=48,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            rms_norm_eps=1e-6,
            rope_theta=300.0,
            tie_word_embeddings=True,
        )
        vision = VisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
        return VideoLlama3(VideoLlama3Config(vision=vision, text=text, image_token_id=IMAGE_ID))

    return make


@pytest.fixture
def make_row() -> Callable[..., PackedRow]:
    """A row of samples with one image of 2 x 4 patches each; its content depends on the seed."""

    def make(seed: int, *, num_samples: int = 2, supervised: int = 2) -> PackedRow:
        rng = np.random.default_rng(seed)
        ids = [np.concatenate([rng.integers(0, 39, 2), np.full(8, IMAGE_ID), rng.integers(0, 39, 6)])] * num_samples
        labels = [np.concatenate([np.full(len(i) - supervised, -100), i[-supervised:]]) for i in ids]
        return PackedRow(
            input_ids_T=np.concatenate(ids),
            labels_T=np.concatenate(labels),
            position_ids_T=np.concatenate([np.arange(len(i)) for i in ids]),
            cu_seqlens=np.cumsum([0, *(len(i) for i in ids)]),
            pixels_PC=rng.integers(0, 256, (8 * num_samples, 588), dtype=np.uint8),
            grid_thw_I3=np.array([[1, 2, 4]] * num_samples, dtype=np.int64),
            merge_sizes_I=np.ones(num_samples, dtype=np.int64),
            keep_M=np.ones(8 * num_samples, dtype=bool),
            sample_ids=tuple(f"s{seed}-{i}" for i in range(num_samples)),
            categories=("scene_image",) * num_samples,
            visual_tokens=8 * num_samples,
            visual_tokens_kept=8 * num_samples,
        )

    return make


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    """The tiny recipe with changes of its engine and optimizer."""

    def make(*, zero_stage: int = 1, precision: str = "fp32", **optimizer: float) -> RunConfig:
        tiny = get_recipe("tiny")
        return replace(
            tiny,
            engine=replace(tiny.engine, zero_stage=zero_stage, precision=precision),
            optimizer=replace(tiny.optimizer, **optimizer),
        )

    return make
