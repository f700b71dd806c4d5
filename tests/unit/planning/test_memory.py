"""Memory of a stage by part: the rules of each ZeRO stage on numbers that can be checked by hand."""

import pytest

from vl3.planning.memory import stage_memory
from vl3.planning.parameters import TrainedParts, count_parameters
from vl3.planning.rows import largest_row
from vl3.planning.sharding import Sharding
from vl3.planning.sizes import PUBLISHED
from vl3.recipes.catalog import get_recipe

MODEL = PUBLISHED["vl3_2b"]
ALL = TrainedParts(vision=True, projector=True, language=True)
STAGE_1 = TrainedParts(vision=True, projector=True, language=False)
ROW = largest_row(get_recipe("vl3_2b"), "alignment")
TOTAL = count_parameters(MODEL).total


def sharding(zero_stage: int, *, ranks: int = 8, **changes: object) -> Sharding:
    fields: dict[str, object] = {"precision": "bf16", "recompute": "full"}
    return Sharding(zero_stage=zero_stage, ranks=ranks, **(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("zero_stage", "bytes_per_parameter"),
    [(0, 2 + 12), (1, 2 + 12 / 8 + 4), (2, 2 + 12 / 8)],
    ids=["ZeRO 0", "ZeRO 1 with whole fp32 sums", "ZeRO 2"],
)
def test_states_between_steps(zero_stage: int, bytes_per_parameter: float) -> None:
    assert stage_memory(MODEL, ALL, ROW, sharding(zero_stage)).states == pytest.approx(TOTAL * bytes_per_parameter)


def test_zero_3_shards_weights_but_for_the_small_ones() -> None:
    parts = stage_memory(MODEL, ALL, ROW, sharding(3)).moments["forward"]
    assert TOTAL * 2 / 8 < parts["weights"] < TOTAL * 2 / 8 * 1.02
    assert parts["optimizer"] == pytest.approx(TOTAL * 12 / 8)


def test_frozen_parts_need_weights_alone() -> None:
    memory = stage_memory(MODEL, STAGE_1, ROW, sharding(0))
    trained = count_parameters(MODEL).trainable(STAGE_1)
    assert memory.states == pytest.approx(TOTAL * 2 + trained * 12)
    assert memory.moments["backward"]["gradients"] <= trained * 2


def test_offload_moves_the_optimizer_to_the_host() -> None:
    memory = stage_memory(MODEL, ALL, ROW, sharding(2, offload_optimizer=True))
    assert memory.parts["optimizer"] == 0
    assert memory.offloaded == pytest.approx(TOTAL * 18 / 8 + 2 * 151_936 * 1536)
    assert memory.peak < stage_memory(MODEL, ALL, ROW, sharding(2)).peak


def test_rows_before_the_last_leave_gradients() -> None:
    one, two = (stage_memory(MODEL, ALL, ROW, sharding(2, rows_per_rank=rows)) for rows in (1, 2))
    held = two.moments["forward"]["gradients"] - one.moments["forward"]["gradients"]
    assert held == pytest.approx(TOTAL * 4 / 8)


def test_the_peak_is_the_moment_with_the_most() -> None:
    memory = stage_memory(MODEL, ALL, ROW, sharding(0, recompute="none"))
    sums = {moment: sum(parts.values()) for moment, parts in memory.moments.items()}
    assert memory.peak == max(sums.values()) == sums[memory.moment]
    assert list(memory.parts) == ["weights", "optimizer", "gradients", "buffers", "activations", "logits"]
