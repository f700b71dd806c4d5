"""The page of samples: dropped tokens, supervised text, and hostile text."""

import re
from pathlib import Path

import numpy as np
import pytest

from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.report.samples import (
    FrameView,
    SampleView,
    TextPart,
    dropped_path,
    text_parts,
    visible_text,
    write_samples_page,
)
from vl3.toy.tokenizer import build_tokenizer

HOSTILE = "<script>window.owned = 1</script>\u202e\x1b[2J"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return ChatTokenizer.from_folder(folder)


def test_dropped_tokens_are_one_rectangle_a_run() -> None:
    keep_RC = np.array([[True, False, False], [True, True, True], [False, True, False]])
    assert dropped_path(keep_RC, 28) == "M28 0h56v28h-56zM0 56h28v28h-28zM56 56h28v28h-28z"
    assert dropped_path(np.ones((2, 2), dtype=bool), 28) == ""


def test_text_is_cut_where_supervision_and_vision_begin(tokenizer: ChatTokenizer) -> None:
    asked, answer = tokenizer.encode_text("red blue"), tokenizer.encode_text("red")
    ids_T = np.array([tokenizer.image_id] * 5 + asked + answer)
    labels_T = np.concatenate([np.full(5 + len(asked), -100), answer])
    assert list(text_parts(ids_T, labels_T, tokenizer)) == [
        TextPart(text="", supervised=False, vision_tokens=5),
        TextPart(text="red blue", supervised=False),
        TextPart(text="red", supervised=True),
    ]


def test_control_and_direction_characters_are_written_out() -> None:
    assert visible_text("a\u202eb\x1b\n\u05d0") == "a\\u202eb\\x1b\n\u05d0"


def test_page_escapes_everything_that_comes_from_data(tmp_path: Path) -> None:
    frame = FrameView(
        uri="data:image/png;base64,AA==",
        height_px=28,
        width_px=56,
        dropped="M28 0h28v28h-28z",
        kept_tokens=1,
        tokens=2,
        seconds=1.5,
    )
    view = SampleView(
        sample_id=HOSTILE,
        kind=HOSTILE,
        where=HOSTILE,
        split=HOSTILE,
        frames=(frame,),
        frames_left_out=3,
        parts=(TextPart(text=visible_text(HOSTILE), supervised=True),),
        tokens=9,
        supervised_tokens=8,
        vision_tokens=2,
        kept_tokens=1,
        places=((3, 1), (40, 0)),
    )
    write_samples_page([view], tmp_path / "page.html", dataset=HOSTILE, stage="video", difffp=True)
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    words = re.sub("<[^>]*>", "", page)
    assert "1.5 s · 56 x 28 px · 1 of 2 tokens" in words
    assert "3 · 1, 40 · 0" in words
    assert "3 frames are not shown." in words
    assert '<path class="dropped" d="M28 0h28v28h-28z"/>' in page
