"""Packed rows: borders, positions, labels; packing and cutting again gives the samples back."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3.conventions import IGNORED_LABEL
from vl3.data.loader.rows import empty_row, pack_row
from vl3.data.sample.prepare import PreparedSample


def sample_of(name: str, length: int, frames: int) -> PreparedSample:
    rng = np.random.default_rng(length * 31 + frames)
    ids = rng.integers(1, 90, length)
    keep = np.ones(frames * 4, dtype=bool)
    keep[4::2] = False
    return PreparedSample(
        sample_id=name,
        input_ids_T=ids,
        labels_T=np.where(rng.random(length) < 0.5, ids, IGNORED_LABEL),
        pixels_PC=rng.integers(0, 255, (frames * 4, 588), dtype=np.uint8),
        grid_thw_I3=np.array([[frames, 2, 2]] if frames else [], dtype=np.int64).reshape(-1, 3),
        merge_sizes_I=np.ones(int(frames > 0), dtype=np.int64),
        keep_M=keep,
        answer_start=0,
    )


def test_a_row_of_two_samples():
    row = pack_row([sample_of("a", 5, 2), sample_of("b", 3, 0)])
    assert row.cu_seqlens.tolist() == [0, 5, 8]
    assert row.position_ids_T.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert row.labels_T[[0, 5]].tolist() == [IGNORED_LABEL, IGNORED_LABEL]
    assert row.sample_ids == ("a", "b")
    assert (row.visual_tokens, row.visual_tokens_kept) == (8, 6)
    assert row.supervised_tokens == (row.labels_T >= 0).sum()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=8))
def test_packing_and_cutting_is_identity(shapes):
    samples = [sample_of(str(number), *shape) for number, shape in enumerate(shapes)]
    row = pack_row(samples)
    patches = tokens = 0
    for sample, start, end in zip(samples, row.cu_seqlens, row.cu_seqlens[1:], strict=False):
        assert np.array_equal(row.input_ids_T[start:end], sample.input_ids_T)
        assert np.array_equal(row.labels_T[start + 1 : end], sample.labels_T[1:])
        assert row.position_ids_T[start:end].tolist() == list(range(end - start))
        count = len(sample.pixels_PC)
        assert np.array_equal(row.pixels_PC[patches : patches + count], sample.pixels_PC)
        assert np.array_equal(row.keep_M[tokens : tokens + len(sample.keep_M)], sample.keep_M)
        patches, tokens = patches + count, tokens + len(sample.keep_M)
    assert patches == len(row.pixels_PC) == row.grid_thw_I3.prod(axis=1).sum()


def test_the_samples_are_left_as_they_were():
    sample = sample_of("a", 5, 1)
    before = sample.labels_T.copy()
    pack_row([sample])
    assert np.array_equal(sample.labels_T, before)


def test_an_empty_row_supervises_nothing(tokenizer):
    row = empty_row(tokenizer)
    assert row.input_ids_T.tolist() == [tokenizer.end_of_text_id]
    assert (row.supervised_tokens, row.visual_tokens, row.sample_ids) == (0, 0, ())
    assert row.pixels_PC.shape == (0, 588)
