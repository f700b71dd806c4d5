"""The generated world: answers are true of the pictures, chance is honest, draws are pure."""

import random

import numpy as np
import pytest

from vl3.config.data import Category
from vl3.toy.canvas import CELL_NAMES, COLOURS, cells
from vl3.toy.world import draw_scene


def _scene(category: Category, index: int = 0, *, pixels: bool = True):
    return draw_scene(category, random.Random(f"test/{category}/{index}"), pixels=pixels)


@pytest.mark.parametrize("category", list(Category))
def test_a_scene_is_a_pure_function_of_its_generator(category):
    first, second = _scene(category), _scene(category)

    assert first.questions == second.questions
    assert all(np.array_equal(a.pixels_HWC, b.pixels_HWC) for a, b in zip(first.frames, second.frames, strict=True))


@pytest.mark.parametrize("category", list(Category))
def test_the_map_alone_equals_the_map_beside_the_pixels(category):
    with_pixels, map_only = _scene(category), _scene(category, pixels=False)

    assert with_pixels.questions == map_only.questions
    for drawn, named in zip(with_pixels.frames, map_only.frames, strict=True):
        assert np.array_equal(drawn.labels_HW, named.labels_HW)
        assert named.pixels_HWC.size == 0


@pytest.mark.parametrize("category", list(Category))
def test_chance_is_at_most_three_tenths(category):
    scenes = [_scene(category, index) for index in range(50)]

    assert all(0 < scene.questions[0].chance <= 0.3 for scene in scenes)


@pytest.mark.parametrize("category", [c for c in Category if c is not Category.TEXT_ONLY])
def test_sides_are_even_for_video_encoders(category):
    for index in range(20):
        for frame in _scene(category, index).frames:
            assert frame.pixels_HWC.shape[0] % 2 == frame.pixels_HWC.shape[1] % 2 == 0


def test_the_tallest_bar_is_the_one_with_the_most_pixels():
    for index in range(30):
        scene = _scene(Category.CHART, index)
        labels = scene.frames[0].labels_HW
        heights = {c: int((labels == CELL_NAMES.index(c + "bar")).any(1).sum()) for c in COLOURS}
        assert scene.questions[0].answer == max(heights, key=heights.get)


def test_direction_follows_the_centre_of_the_object():
    for index in range(30):
        scene = _scene(Category.GENERAL_VIDEO, index)
        centres = [np.argwhere(frame.labels_HW > 0).mean(0) for frame in scene.frames]
        down, right = centres[-1] - centres[0]
        moved = {"right": right, "left": -right, "down": down, "up": -down}
        assert scene.questions[0].answer == max(moved, key=moved.get)


def test_a_streaming_scene_ends_at_the_change():
    for index in range(30):
        scene = _scene(Category.STREAMING, index)
        colours = [CELL_NAMES[frame.labels_HW.max()] for frame in scene.frames]
        assert len(set(colours[:-1])) == 1
        assert colours[-1] != colours[0]
        assert colours[-1].startswith(scene.questions[0].answer)


def test_grounding_names_the_seconds_in_which_the_object_is_seen():
    for index in range(30):
        scene = _scene(Category.TEMPORAL_GROUNDING, index)
        seen = [second for second, frame in enumerate(scene.frames) if frame.labels_HW.any()]
        assert scene.questions[0].answer == f"{seen[0]}.0-{seen[-1]}.0 s"


def test_cells_name_what_covers_most_of_a_cell():
    labels = np.zeros((28, 42), dtype=np.uint8)
    labels[:14, :14] = 5  # all of the first cell
    labels[:7, 14:28] = 7  # half of the second
    labels[14:16, :14] = 9  # a seventh of the fourth
    labels[27, 41] = 3  # one pixel of the last: too little to be named

    assert cells(labels, 14).tolist() == [5, 7, 0, 9, 0, 0]
