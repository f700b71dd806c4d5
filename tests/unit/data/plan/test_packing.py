"""Packs stay within their limits, fill well and are dealt evenly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3.data.plan import packing
from vl3.data.plan.packing import PACK, CostModel, Packer, deal_packs, pack_table
from vl3.data.plan.samples import SIZE
from vl3.errors import ConfigError


def place(packer: Packer, *sizes: tuple[int, int]) -> list[int]:
    first, second = np.array(sizes, dtype=np.int32).T
    return packer.place(first, second).tolist()


def test_a_pack_is_closed_when_a_sample_fits_nowhere(monkeypatch):
    monkeypatch.setattr(packing, "OPEN_PACKS", 2)
    packer = Packer(100, 50)
    assert place(packer, (60, 0), (70, 0), (30, 0)) == [0, 1, 1]  # best fit: beside the 70
    assert packer.num_final == 0
    assert place(packer, (50, 0)) == [2]  # pack 1 was the fullest
    assert place(packer, (40, 0), (41, 0)) == [0, 2]
    assert (packer.num_packs, packer.num_final) == (3, 0)


def test_the_second_limit_counts_too():
    packer = Packer(1000, 50)
    assert place(packer, (60, 40), (60, 20), (60, 10), (1, 31)) == [0, 1, 0, 2]


def test_a_pack_that_nothing_fits_is_closed_at_last(monkeypatch):
    monkeypatch.setattr(packing, "OPEN_PACKS", 3)
    monkeypatch.setattr(packing, "MAX_AGE_PACKS", 10)
    packer = Packer(100, 100)
    place(packer, (60, 0), *[(45, 0)] * 40)
    assert packer.num_packs == 21
    assert packer.num_final > 0


def test_limits_may_be_as_large_as_a_configuration_allows():
    packer = Packer(10**9, 10**9)
    assert place(packer, (10**9 - 1, 10**9 - 1), (1, 1), (1, 1)) == [0, 0, 1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=400))
def test_no_pack_exceeds_a_limit_and_numbers_have_no_gap(sizes):
    numbers = np.array(place(Packer(30, 12), *sizes))
    for position, limit in enumerate((30, 12)):
        assert np.bincount(numbers, [size[position] for size in sizes]).max() <= limit
    assert set(numbers.tolist()) == set(range(numbers.max() + 1))


@pytest.mark.parametrize("median", [40, 120])
def test_rows_fill_well_with_real_lengths(median):
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(median), 0.7, 6000).astype(int), 8, 640)
    packer = Packer(640, 10_000)
    numbers = packer.place(lengths, np.zeros_like(lengths))
    fills = np.bincount(numbers, lengths)[: packer.num_final] / 640
    assert fills.max() <= 1
    assert fills.mean() >= 0.98


def test_the_packs_of_a_table_are_sums_of_their_samples():
    sizes = np.array([(10, 4, 16, 256.0), (20, 0, 0, 0.0), (5, 2, 8, 64.0)], dtype=SIZE)
    assert pack_table(np.array([0, 0, 1]), sizes).tolist() == [
        (0, 2, 30, 4, 16, 500.0, 256.0),
        (2, 1, 5, 2, 8, 25.0, 64.0),
    ]


def test_packs_are_dealt_by_cost_in_equal_number():
    costs = [9, 1, 8, 2, 7, 3, 6, 4]
    hands = [[costs[position] for position in hand] for hand in deal_packs(costs, 2)]
    assert hands == [[9, 6, 4, 1], [8, 7, 3, 2]]


def test_packs_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(ConfigError, match="packs_per_step=3 is not divisible by the world size 2"):
        deal_packs([1.0] * 3, 2)


def test_costs_count_decoder_encoder_and_attention():
    model = CostModel(
        decoder_parameters=1e6,
        decoder_layers=2,
        decoder_width=10,
        encoder_parameters=2e6,
        encoder_layers=3,
        encoder_width=20,
    )
    # a row of a sample with 6 frames of 96 patches and 90 tokens, and one of 10 tokens
    packs = np.array([(0, 2, 100, 144, 576, 90**2 + 10**2, 6 * 96**2)], dtype=PACK)
    expected = 100 * 6e6 + 6 * 2 * 10 * 8200 + 576 * 12e6 + 12 * 3 * 20 * 6 * 96**2
    assert model.costs(packs)[0] == pytest.approx(expected / 1e9)


def test_a_frozen_part_costs_less() -> None:
    packs = np.zeros(2, dtype=PACK)
    packs["length_tokens"], packs["patches"], packs["patch_pairs"] = [100, 10], [0, 400], [0, 1000]
    sizes = {"decoder_parameters": 1e6, "encoder_parameters": 1e6, "encoder_layers": 2, "encoder_width": 10}
    whole = CostModel(**sizes).costs(packs)
    first_stage = CostModel(**sizes, decoder_passes=4).costs(packs)
    frozen_encoder = CostModel(**sizes, encoder_passes=2).costs(packs)
    assert first_stage[0] == pytest.approx(whole[0] * 4 / 6)
    assert whole[1] == pytest.approx((6 * 10e6 + 6 * 400e6 + 12 * 1000 * 20) / 1e9)
    assert frozen_encoder[1] == pytest.approx((6 * 10e6 + 2 * 400e6 + 4 * 1000 * 20) / 1e9)
