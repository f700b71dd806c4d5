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
    cache.begin(1)
    new = torch.tensor([7.0, 8.0]).reshape(2, 1, 1, 1)
    keys, values = cache.update(new, new * 10, 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 7, 0], [3, 4, 5, 8]]
    assert values[1, 0, :, 0].tolist() == [30, 40, 50, 80]
    assert cache.key_mask_BQL.tolist() == [[[True, True, True, False]], [[True] * 4]]
    cache.advance()
    assert cache.lengths_B.tolist() == [3, 4]


def test_rows_can_be_chosen_and_cut():
    cache = filled()
    cache.select([1])
    cache.truncate([1])
    cache.begin(1)
    new = torch.tensor([9.0]).reshape(1, 1, 1, 1)
    keys, _ = cache.update(new, new, 0)
    assert keys[:, 0, :, 0].tolist() == [[3, 9]]
    assert cache.key_mask_BQL.tolist() == [[[True, True]]]


def test_several_tokens_at_once_attend_up_to_themselves_and_the_rows_grow():
    cache = filled()
    cache.begin(4)  # there is room for two
    new = torch.arange(10.0, 18.0).reshape(2, 1, 4, 1)
    keys, _ = cache.update(new, new, 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 10, 11, 12, 13, 0], [3, 4, 5, 14, 15, 16, 17]]
    assert cache.key_mask_BQL.sum(-1).tolist() == [[3, 4, 5, 6], [4, 5, 6, 7]]
    cache.advance()
    assert cache.lengths_B.tolist() == [6, 7]
    assert cache.longest_tokens == 7
