"""What the planner says a row keeps, against what the real model allocates from the start of forward to its end."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.support.models import text_config, vision_config
from vl3.config.stages import LearningRates
from vl3.data.loader.rows import PackedRow
from vl3.models import head_loss
from vl3.models.config import VideoLlama3Config
from vl3.models.model import VideoLlama3
from vl3.planning import activations
from vl3.planning.activations import row_activations
from vl3.planning.parameters import TrainedParts
from vl3.planning.row_shapes import shape_of_row
from vl3.planning.sharding import Sharding
from vl3.training.optimizer_groups import freeze_parts

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def kept_bytes(config: VideoLlama3Config, rates: LearningRates, row: PackedRow, precision: str, recompute: str) -> int:
    """Bytes that forward allocates and does not release, by torch's own count."""
    model = VideoLlama3(config).to(TYPES[precision]).train()
    model.set_recompute(recompute)
    freeze_parts(model.parts(), rates)
    names = ("input_ids_T", "position_ids_T", "cu_seqlens", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")
    arrays = {name: getattr(row, name) for name in (*names, "labels_T")}
    model(**arrays)  # what is made once and kept, such as frequencies
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = model(**arrays).loss_sum
    assert loss.requires_grad
    found = profiler.profiler.kineto_results.events()
    return sum(event.nbytes() for event in found if event.name() == "[memory]")


@pytest.mark.parametrize(
    ("recompute", "precision", "language"),
    [("none", "bf16", 1.0), ("none", "fp32", None), ("selective", "fp32", 1.0), ("full", "bf16", 1.0)],
)
def test_a_row_keeps_what_the_model_keeps(
    recompute: Any, precision: str, language: float | None, make_row: Callable[..., PackedRow]
) -> None:
    text = text_config(hidden_size=128, intermediate_size=192, num_hidden_layers=4, vocab_size=512)
    vision = vision_config(hidden_size=64, intermediate_size=160, num_hidden_layers=3)
    config = VideoLlama3Config(vision=vision, text=text, image_token_id=40)
    row = make_row(30, 30, 30, 30, images=3)
    trained = TrainedParts(vision=True, projector=True, language=language is not None)
    sharding = Sharding(zero_stage=0, ranks=1, precision=precision, recompute=recompute, is_gpu=False)
    planned = row_activations(config, trained, shape_of_row(row), sharding)
    rates = LearningRates(vision=1.0, projector=1.0, language=language)
    measured = kept_bytes(config, rates, row, precision, recompute)
    assert planned.kept == pytest.approx(measured, rel=0.03)


def test_logits_are_in_memory_in_the_chunks_of_the_head() -> None:
    assert activations.chunk_tokens(32_768, is_gpu=False) == head_loss.chunk_tokens(torch.device("cpu"), 32_768) == 128
    assert activations.chunk_tokens(10**6, is_gpu=False) == head_loss.chunk_tokens(torch.device("cpu"), 10**6)
    assert activations.GPU_CHUNK_TOKENS == head_loss.GPU_CHUNK_TOKENS


def test_recomputation_keeps_less_and_works_with_more(make_sizes: Callable[..., Any]) -> None:
    from vl3.planning.rows import largest_row
    from vl3.planning.sizes import PUBLISHED
    from vl3.recipes.catalog import get_recipe

    row = largest_row(get_recipe("vl3_2b"), "video")
    trained = TrainedParts(vision=True, projector=True, language=True)
    kept, working = [], []
    for recompute in ("none", "selective", "full"):
        sharding = Sharding(zero_stage=2, ranks=16, precision="bf16", recompute=recompute)  # type: ignore[arg-type]
        found = row_activations(PUBLISHED["vl3_2b"], trained, row, sharding)
        kept.append(found.kept)
        working.append(found.decoder_working)
    assert kept == sorted(kept, reverse=True)
    assert working == sorted(working)
    assert kept[0] / kept[2] > 10
