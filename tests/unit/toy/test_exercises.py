"""The exercises of the language base: what is supervised is knowable, and maps agree with DiffFP."""

import random

import numpy as np
import pytest

from vl3.config.data import Category
from vl3.conventions import IGNORED_LABEL
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.toy.exercises import ExerciseBook, _changed, _on_grid
from vl3.toy.language_base import CHAT_CATEGORIES, PHASES
from vl3.toy.tokenizer import build_tokenizer
from vl3.toy.world import draw_scene


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return ExerciseBook(ChatTokenizer.from_folder(folder))


def _kinds() -> list[str]:
    return sorted({kind for phase in PHASES for kind in phase.kinds})


@pytest.mark.parametrize("kind", _kinds())
def test_targets_are_the_tokens_themselves(book, kind):
    for seed in range(5):
        exercise = book.draw(kind, random.Random(seed))
        pairs = list(zip(exercise.tokens_T, exercise.targets_T, strict=True))
        assert any(target != IGNORED_LABEL for _, target in pairs)
        assert all(target in (IGNORED_LABEL, token) for token, target in pairs)


def test_a_repeat_supervises_only_what_was_shown_before(book):
    exercise = book.draw("repeat", random.Random(0))

    first = exercise.targets_T.index(next(t for t in exercise.targets_T if t != IGNORED_LABEL))
    assert all(token in exercise.tokens_T[:first] for token in exercise.targets_T[first:])


def test_no_phase_shows_text_only_samples(book):
    assert Category.TEXT_ONLY not in CHAT_CATEGORIES
    assert not any("text_only" in kind for kind in _kinds())
    assert sum(phase.share for phase in PHASES) == pytest.approx(1.0)


def test_pruned_maps_drop_what_difffp_drops():
    """On pictures drawn without a codec, a cell's labels change exactly where its pixels do."""
    for seed in range(20):
        scene = draw_scene(Category.TEMPORAL_GROUNDING, random.Random(seed))
        side = min(scene.frames[0].labels_HW.shape) // 28 * 28
        pixels_FHWC = np.stack([frame.pixels_HWC[:side, :side] for frame in scene.frames])
        keep_FN = keep_mask(pixels_FHWC, patch_size=14, merge_size=2, threshold=0.1, min_tokens=1).reshape(6, -1)
        labels = [_on_grid(frame.labels_HW[:side, :side], 28) for frame in scene.frames]
        for second in range(1, 6):
            assert _changed(labels[second - 1], labels[second], 28).tolist() == keep_FN[second].tolist()
