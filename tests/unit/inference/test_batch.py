"""Batches of similar length."""

from vl3.inference.batch import similar_batches


def test_neighbours_in_length_share_a_batch():
    assert list(similar_batches([30, 10, 31, 11, 12], 2, 1000)) == [[1, 3], [4, 0], [2]]


def test_tokens_bound_a_batch_but_never_shut_out_a_sample():
    assert list(similar_batches([10, 10, 10, 90], 64, 25)) == [[0, 1], [2], [3]]


def test_no_samples_make_no_batch():
    assert list(similar_batches([], 4, 100)) == []
