"""Kept shares by threshold: they fall, start at what changes at all, and equal those of the mask."""

import dataclasses
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.support.samples import grey_frames, video_bytes
from vl3.config.data import DiffFPScale
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.video import decode_video
from vl3.errors import DataError
from vl3.recipes.catalog import get_recipe
from vl3.report.difffp_study import THRESHOLDS, kept_plot, kept_table, study_video


@pytest.fixture
def data():
    return dataclasses.replace(get_recipe("tiny").data, visual_budget_tokens=600, max_row_visual_tokens=600)


@pytest.fixture
def clip(tmp_path):
    """Six frames of 84 x 84 px, one a second, each four grey levels brighter than the one before."""
    path = tmp_path / "grey & bright.mp4"
    path.write_bytes(video_bytes(grey_frames(range(100, 124, 4), side_px=84), fps=1))
    return path


def test_shares_are_those_of_the_mask(clip, data):
    study = study_video(clip, data, 2)
    frames = decode_video(clip, fps=1.0, max_frames=16, where="clip").frames_FHWC
    assert (study.num_frames, study.tokens_of_frame) == (6, 9)
    for scale, thresholds in THRESHOLDS.items():
        for threshold, share in zip(thresholds, study.shares[scale], strict=True):
            keep = keep_mask(
                frames, patch_size=14, merge_size=2, threshold=threshold, min_tokens=1, scale=DiffFPScale(scale)
            )
            assert share == pytest.approx(keep.mean())
        assert np.all(np.diff(study.shares[scale]) <= 0)


def test_four_grey_levels_lie_between_thresholds_as_the_units_say(clip, data):
    """Four levels are 8 on the released scale and 0.069 on RLT's; a dropped frame keeps one of its nine tokens."""
    shares = study_video(clip, data, 2).shares
    dropped = pytest.approx((9 + 5) / 54)
    released = dict(zip(THRESHOLDS[DiffFPScale.RELEASED], shares[DiffFPScale.RELEASED], strict=True))
    rlt = dict(zip(THRESHOLDS[DiffFPScale.RLT], shares[DiffFPScale.RLT], strict=True))
    assert (released[5.0], released[10.0]) == (1.0, dropped)
    assert (rlt[0.05], rlt[0.1]) == (1.0, dropped)


def test_table_and_plot_name_every_video(clip, data):
    study = study_video(clip, data, 2)
    table = kept_table([study, dataclasses.replace(study, name="other.mp4")])
    assert "grey & bright.mp4 (6 x 9)" in table
    assert "other.mp4 (6 x 9)" in table
    assert len(table.splitlines()) == sum(len(thresholds) + 2 for thresholds in THRESHOLDS.values()) + 1
    root = ElementTree.fromstring(str(kept_plot([study, study])))
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points").split()) for line in lines] == [10, 10, 9, 9]


def test_a_file_that_is_not_there_or_no_video_is_refused(tmp_path, data):
    with pytest.raises(DataError, match=r"gone.mp4 is not a file"):
        study_video(tmp_path / "gone.mp4", data, 2)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="cannot be opened as a video"):
        study_video(tmp_path / "text.mp4", data, 2)
