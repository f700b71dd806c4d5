"""FLOPs by part against those that torch counts while the real model trains."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from vl3.config.stages import LearningRates, LoraConfig
from vl3.data.loader.rows import PackedRow
from vl3.models.config import VideoLlama3Config
from vl3.models.lora import add_adapters
from vl3.models.model import VideoLlama3
from vl3.planning.flops import Flops, PartFlops, row_flops
from vl3.planning.parameters import TrainedParts
from vl3.planning.row_shapes import shape_of_row
from vl3.planning.shapes import RowShape
from vl3.training.optimizer_groups import freeze_parts

STAGES = {
    "all": TrainedParts(vision=True, projector=True, language=True),
    "stage 1": TrainedParts(vision=True, projector=True, language=False),
    "projector": TrainedParts(vision=False, projector=True, language=False),
    "vision": TrainedParts(vision=True, projector=False, language=False),
    "language": TrainedParts(vision=False, projector=False, language=True),
    "lora": TrainedParts(vision=False, projector=False, language=False, lora_rank=4),
    "lora and all below": TrainedParts(vision=True, projector=True, language=False, lora_rank=4),
}


def counted(config: VideoLlama3Config, trained: TrainedParts, row: PackedRow, *, recompute: str) -> tuple[float, float]:
    """FLOPs of linear layers and of attention that torch executes. Its causal attention counts all pairs."""
    model = VideoLlama3(config).train()
    if trained.lora_rank:
        add_adapters(model, LoraConfig(rank=trained.lora_rank, dropout=0.0), seed=0)
    has_language = trained.language or trained.lora_rank > 0
    rates = LearningRates(
        vision=1.0 if trained.vision else None,
        projector=1.0 if trained.projector else None,
        language=1.0 if has_language else None,
    )
    freeze_parts(model.parts(), rates, adapters_only=trained.lora_rank > 0)
    model.set_recompute(recompute)
    aten = torch.ops.aten
    uncounted = {
        aten.addmm_: lambda total, a, b, *_, out_shape=None, **__: 2 * a[0] * a[1] * b[1],
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(
            q, k, v
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, out_shape=None, **__: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    names = ("input_ids_T", "position_ids_T", "cu_seqlens", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")
    with FlopCounterMode(display=False, custom_mapping=uncounted) as counter:
        model(**{name: getattr(row, name) for name in (*names, "labels_T")}).loss_sum.backward()
    found = counter.get_flop_counts()["Global"]
    of_attention = sum(count for op, count in found.items() if "scaled_dot_product" in str(op))
    return sum(found.values()) - of_attention, of_attention


@pytest.mark.parametrize(
    ("stage", "recompute", "tied"),
    [(stage, recompute, True) for stage in STAGES for recompute in ("none", "full")]
    + [("all", "selective", True), ("all", "none", False), ("stage 1", "full", False)],
)
def test_products_are_those_that_torch_executes(
    stage: str, recompute: Any, tied: bool, make_sizes: Callable[..., Any], make_row: Callable[..., PackedRow]
) -> None:
    config, row = make_sizes(tie_word_embeddings=tied), make_row(10, 6)
    planned = row_flops(config, STAGES[stage], [shape_of_row(row)], recompute=recompute)
    linear, attention = counted(config, STAGES[stage], row, recompute=recompute)
    is_attention = {name: name.endswith("_attention") for name in planned.parts}
    of_linear = sum(part.computed for name, part in planned.parts.items() if not is_attention[name])
    assert of_linear == linear
    # torch counts every pair; a causal decoder needs (n^2 + n) / 2 of n^2, here for samples of 14 and 10 tokens
    whole = planned.parts["decoder_attention"].computed * (14**2 + 10**2) / ((14**2 + 14 + 10**2 + 10) / 2)
    assert planned.parts["encoder_attention"].computed + whole == pytest.approx(attention)


def test_only_what_the_stage_needs_counts_as_needed(
    make_sizes: Callable[..., Any], make_row: Callable[..., PackedRow]
) -> None:
    row = [shape_of_row(make_row(10, 6))]
    plain = row_flops(make_sizes(), STAGES["all"], row)
    full = row_flops(make_sizes(), STAGES["all"], row, recompute="full")
    assert full.needed == plain.needed
    assert full.total.recomputed > plain.total.recomputed > 0
    selective = row_flops(make_sizes(), STAGES["all"], row, recompute="selective")
    assert selective == plain
    frozen = row_flops(make_sizes(), STAGES["stage 1"], row)
    assert frozen.parts["decoder"].backward == plain.parts["decoder"].backward / 2
    assert frozen.parts["encoder"] == plain.parts["encoder"]
    projector = row_flops(make_sizes(), STAGES["projector"], row)
    assert projector.parts["encoder"].backward == 0


def test_rows_add_up(make_sizes: Callable[..., Any], make_row: Callable[..., PackedRow]) -> None:
    rows = [shape_of_row(make_row(10, 6)), shape_of_row(make_row(20))]
    both = row_flops(make_sizes(), STAGES["all"], rows)
    alone = [row_flops(make_sizes(), STAGES["all"], [row]) for row in rows]
    assert both == alone[0] + alone[1]
    assert both.needed == sum(one.needed for one in alone)


def test_the_2b_model_takes_about_12_gflop_a_token_of_an_image() -> None:
    """Arithmetic by hand: 9.3 GFLOP a token in the decoder and its head, 2.5 in the encoder, attention on top."""
    from vl3.planning.sizes import PUBLISHED

    row = RowShape(
        length_tokens=1.0, length_pairs=0.0, patches=1.0, patch_pairs=0.0, projected_tokens=0.0, supervised_tokens=1.0
    )
    flops = row_flops(PUBLISHED["vl3_2b"], STAGES["all"], [row])
    language = flops.parts["decoder"].needed + flops.parts["head"].needed
    assert language / 1e9 == pytest.approx(9.3, rel=0.01)
    assert flops.parts["encoder"].needed / 1e9 == pytest.approx(2.5, rel=0.02)


def test_parts_of_flops_add_up() -> None:
    one = Flops(parts={"head": PartFlops(forward=1, backward=2, recomputed=4)})
    assert (one + one).parts["head"] == PartFlops(forward=2, backward=4, recomputed=8)
    assert one.total.computed == 7
    assert one.needed == 3
