"""Keys and values of rows of unequal length."""

import torch

from vl3.inference.cache import RaggedCache


def filled():
    cache = RaggedCache([2, 3], spare_tokens=2, device=torch.device("cpu"))
    packed = torch.arange(5.0).reshape(1, 1, 5, 1) + 1
    returned, _ = cache.update(packed, packed * 10, 0)
    assert returned is packed
    cache.finish_prefill()
    return cache


def test_new_tokens_stand_right_after_each_row():
    cache = filled()
    new = torch.tensor([7.0, 8.0]).reshape(2, 1, 1, 1)
    keys, values = cache.update(new, new * 10, 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 7, 0], [3, 4, 5, 8]]
    assert values[1, 0, :, 0].tolist() == [30, 40, 50, 80]
    assert cache.key_mask_BL.tolist() == [[True, True, True, False], [True] * 4]
    cache.advance()
    assert cache.lengths_B.tolist() == [3, 4]


def test_rows_can_be_chosen_and_cut():
    cache = filled()
    cache.select([1])
    cache.truncate([1])
    new = torch.tensor([9.0]).reshape(1, 1, 1, 1)
    keys, _ = cache.update(new, new, 0)
    assert keys[:, 0, :, 0].tolist() == [[3, 9]]
    assert cache.key_mask_BL.tolist() == [[True, True]]
