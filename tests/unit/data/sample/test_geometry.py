"""The released resize rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3.data.sample.geometry import ItemSize, fit_size, fit_sizes


@pytest.mark.parametrize(
    ("height", "width", "items", "max_tokens", "merge", "size", "tokens"),
    [
        (1080, 1920, 1, 16384, 1, (1078, 1918), 10549),
        (1080, 1920, 1, 10240, 1, (1050, 1876), 10050),
        (1080, 1920, 1, 10240, 2, (1092, 1932), 2691),
        (1080, 1920, 180, 10240, 2, (140, 280), 50),
        (1080, 1920, 180, 16384, 2, (196, 336), 84),
        (480, 640, 60, 10240, 2, (308, 420), 165),
        (480, 640, 180, 10240, 2, (168, 224), 48),
        (720, 1280, 30, 10240, 2, (364, 672), 312),
        (10, 1000, 1, 16384, 1, (14, 994), 71),
        (2, 2, 1, 16384, 1, (56, 56), 16),
    ],
)
def test_released_sizes(height, width, items, max_tokens, merge, size, tokens):
    found = fit_size(height, width, num_items=items, merge_size=merge, min_tokens=16, max_tokens=max_tokens)
    assert found == size
    assert found[0] * found[1] // (14 * merge) ** 2 == tokens


def test_python_rounding_is_to_even():
    # 35 / 14 = 2.5 rounds to 2, 49 / 14 = 3.5 rounds to 4
    assert fit_size(35, 49, num_items=1, merge_size=1, min_tokens=1, max_tokens=100) == (28, 56)


def test_minimum_is_enforced_even_above_the_budget():
    assert fit_size(100, 100, num_items=1000, merge_size=2, min_tokens=16, max_tokens=1000) == (112, 112)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 200), st.sampled_from([1, 2]), st.integers(100, 20000)
)
def test_sizes_fit_the_merge_and_the_budget_or_the_minimum(height, width, items, merge, max_tokens):
    found = fit_size(height, width, num_items=items, merge_size=merge, min_tokens=4, max_tokens=max_tokens)
    factor = 14 * merge
    assert found[0] % factor == 0
    assert found[1] % factor == 0
    assert min(found) > 0
    tokens = found[0] * found[1] // factor**2
    enlarged = fit_size(height, width, num_items=1000, merge_size=merge, min_tokens=4, max_tokens=1)
    assert tokens >= 4
    assert tokens <= max_tokens // items or found == enlarged


def test_items_of_one_merge_share_the_budget():
    items = [ItemSize(height_px=1080, width_px=1920, num_frames=1, merge_size=1) for _ in range(2)]
    expected = fit_size(1080, 1920, num_items=2, merge_size=1, min_tokens=16, max_tokens=10240)
    assert fit_sizes(items, min_tokens=16, max_tokens=10240) == [expected, expected]


def test_mixed_merges_shrink_by_one_scale_and_have_no_minimum():
    image = ItemSize(height_px=1080, width_px=1920, num_frames=1, merge_size=1)
    video = ItemSize(height_px=720, width_px=1280, num_frames=10, merge_size=2)
    small = ItemSize(height_px=20, width_px=20, num_frames=1, merge_size=1)
    # 78 * 138 + 10 * 26 * 46 = 22724 tokens for 10240: both are divided by 1.4897
    assert fit_sizes([image, video], min_tokens=16, max_tokens=10240) == [(714, 1288), (476, 840)]
    assert fit_sizes([small, video], min_tokens=16, max_tokens=20000)[0] == (14, 14)
