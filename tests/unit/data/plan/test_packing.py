"""Packs stay within their limits, fill well and are dealt evenly."""

import numpy as np
import pytest

from tests.support.plans import SETTINGS, make_index
from vl3.data.plan import packing
from vl3.data.plan.packing import CostModel, Pack, Packer, deal_packs
from vl3.errors import ConfigError


def test_a_pack_is_closed_when_a_sample_fits_nowhere(monkeypatch):
    monkeypatch.setattr(packing, "OPEN_PACKS", 2)
    packer = Packer(max_length_tokens=100, max_visual_tokens=50)
    assert packer.add(0, 0, 60, 0) is None
    assert packer.add(1, 0, 70, 0) is None
    assert packer.add(2, 1, 30, 0) is None  # best fit: beside the 70
    assert packer.add(3, 0, 50, 0) == [(1, 0), (2, 1)]


def test_vision_tokens_have_a_limit_of_their_own(monkeypatch):
    monkeypatch.setattr(packing, "OPEN_PACKS", 1)
    packer = Packer(max_length_tokens=1000, max_visual_tokens=50)
    assert packer.add(0, 0, 60, 40) is None
    assert packer.add(1, 0, 60, 20) == [(0, 0)]


@pytest.mark.parametrize("median", [40, 120])
def test_rows_fill_well_with_real_lengths(median):
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(median), 0.7, 6000).astype(int), 8, 640)
    packer = Packer(max_length_tokens=640, max_visual_tokens=10_000)
    closed = [pack for row, length in enumerate(lengths) if (pack := packer.add(row, 0, int(length), 0))]
    fills = [sum(lengths[row] for row, _ in pack) / 640 for pack in closed]
    assert max(fills) <= 1
    assert np.mean(fills) >= 0.95
    placed = [row for pack in closed for row, _ in pack]
    assert len(set(placed)) == len(placed)


def pack_of(cost: float) -> Pack:
    return Pack(rows=(int(cost),), length_tokens=1, visual_tokens=0, cost=cost)


def test_packs_are_dealt_by_cost_in_equal_number():
    packs = [pack_of(cost) for cost in (9, 1, 8, 2, 7, 3, 6, 4)]
    hands = [deal_packs(packs, rank, 2) for rank in range(2)]
    assert [[pack.cost for pack in hand] for hand in hands] == [[9, 6, 4, 1], [8, 7, 3, 2]]
    assert sum(pack.cost for pack in hands[0]) == sum(pack.cost for pack in hands[1])


def test_packs_that_cannot_be_dealt_evenly_are_refused():
    with pytest.raises(ConfigError, match="packs_per_step=3 is not divisible by the world size 2"):
        deal_packs([pack_of(1)] * 3, 0, 2)


def test_costs_count_decoder_encoder_and_attention():
    index = make_index(10)
    model = CostModel(
        decoder_parameters=1e6,
        decoder_layers=2,
        decoder_width=10,
        encoder_parameters=2e6,
        encoder_layers=3,
        encoder_width=20,
    )
    costs = model.sample_costs(index, SETTINGS)
    length = index.length_tokens(SETTINGS)[3]
    patches, per_frame = 4 * index.row(3)["video_tokens_m2"], 4 * index.row(3)["video_tokens_m2"] / 6
    expected = length * (6e6 + 6 * 2 * 10 * length) + patches * (12e6 + 12 * 3 * 20 * per_frame)
    assert costs[3] == pytest.approx(expected / 1e9)
    text = index.length_tokens(SETTINGS)[4]
    assert costs[4] == pytest.approx(text * (6e6 + 120 * text) / 1e9)
