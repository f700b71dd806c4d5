"""Samples made from what is known of pictures and videos: their words, their order, and that each is a good line."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.data.derive.facts import PlacedText, captioned_video, phrased_picture, picture_regions, picture_texts
from vl3.data.derive.moments import moments
from vl3.data.derive.ocr import document_text, ocr_caption, ocr_tasks, scene_text
from vl3.data.derive.reading_order import document_lines, joined, scene_lines
from vl3.data.derive.regions import grounded_caption, region_captions
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.records import parse_record

STREET: dict[str, Any] = {
    "image": "street.jpg", "width": 200, "height": 100, "caption": "A street",
    "texts": [{"text": "GO", "box": [100, 50, 150, 60]}, {"text": "STOP", "box": [20, 10, 60, 20]}],
}  # fmt: skip
SHOP: dict[str, Any] = {**STREET, "image": "shop.jpg", "texts": [{"text": "OPEN", "box": [0, 0, 50, 50]}]}


def answers(lines: Any) -> list[str]:
    """The last answer of each line, which must be a line that vl3 reads."""
    return [parse_record(json.dumps(line), where="a:1", split="train").answer for line in lines]


def test_ocr_caption_has_the_words_of_the_paper() -> None:
    said = "A street. The texts in this image are STOP<box>[[100,100,300,200]]</box>, GO<box>[[500,500,750,600]]</box>."
    assert answers(ocr_caption(picture_texts(STREET, "a:1"))) == [said]


def test_scene_text_is_read_from_top_to_bottom() -> None:
    assert answers(scene_text(picture_texts(STREET, "a:1"))) == ["A street. STOP, GO"]


@pytest.mark.parametrize("seed", range(20))
def test_the_five_ocr_tasks_have_true_answers(seed: int) -> None:
    lines = list(ocr_tasks(picture_texts(STREET, "a:1"), picture_texts(SHOP, "a:0"), Random(seed)))
    said = dict(zip([line["source"] for line in lines], answers(lines), strict=True))
    asked = {line["source"]: line["conversations"][0]["value"] for line in lines}
    boxes = {"STOP": "[[100,100,300,200]]", "GO": "[[500,500,750,600]]"}
    assert len(said) == 5
    text = said["ocr_recognition"]
    assert boxes[text] in asked["ocr_recognition"]
    assert said["ocr_localisation"] == boxes[text]
    assert (said["ocr_existence"] == "No") == ('"OPEN"' in asked["ocr_existence"])
    images = next(line["image"] for line in lines if line["source"] == "ocr_which_image")
    assert images[("First", "Second").index(said["ocr_which_image"])] == "street.jpg"


def test_columns_of_a_document_are_read_one_after_the_other() -> None:
    def line(text: str, left: float, top: float, right: float) -> dict[str, Any]:
        return {"text": text, "box": [left, top, right, top + 10]}

    page = [line("right 2", 110, 45, 190), line("left 1", 10, 30, 90), line("right 1", 110, 30, 190)]
    page += [line("Title over both", 10, 5, 190), line("left 2", 10, 45, 90)]
    picture = picture_texts({"image": "p.png", "width": 200, "height": 100, "texts": page}, "a:1")
    assert answers(document_text(picture)) == ["Title over both\nleft 1\nleft 2\nright 1\nright 2"]


PLACES = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 80), st.integers(1, 30))


@given(st.lists(PLACES, min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_reading_order_does_not_depend_on_the_order_given_and_loses_nothing(places: Any, random: Any) -> None:
    texts = [
        PlacedText(box=(x, y, x + width, y + height), text=str(number))
        for number, (x, y, width, height) in enumerate(places)
    ]
    shuffled = random.sample(texts, len(texts))
    for order in (scene_lines, document_lines):
        lines = order(texts)
        assert order(shuffled) == lines
        assert sorted(text for line in lines for text in line) == sorted(texts)
        assert joined(lines, " ").split() == [text.text for line in lines for text in line]


def test_regions_and_phrases_are_named_by_their_boxes() -> None:
    size = {"image": "a.jpg", "width": 100, "height": 100}
    regions = picture_regions({**size, "regions": [{"caption": "A red car.", "box": [0, 0, 50, 50]}]}, "a:1")
    line = next(region_captions(regions))
    assert line["conversations"][0]["value"] == "<image>\nDescribe the region [[0,0,500,500]]."
    assert answers([line]) == ["A red car."]
    phrases = [{"span": [0, 5], "boxes": [[0, 0, 50, 50]]}, {"span": [2, 5], "boxes": [[1, 1, 2, 2]]}]
    grounded = phrased_picture({**size, "caption": "A man runs", "phrases": phrases}, "a:1")
    assert answers(grounded_caption(grounded)) == ["<ref>A man</ref>[[0,0,500,500]] runs"]


def test_a_caption_that_happens_twice_is_asked_for_once() -> None:
    captions = [
        {"start": start, "end": start + 1, "caption": text}
        for start, text in ((5.0, "He jumps."), (1.0, "he jumps"), (2.0, "He sits."))
    ]
    video = captioned_video({"video": "v.mp4", "captions": captions}, "a:1")
    assert answers(moments(video)) == ["1.0-2.0 s, 5.0-6.0 s", "2.0-3.0 s"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "a:7: width: 0 is not a number of pixels"),
        ({"texts": []}, "texts: \\[\\] is not a list"),
        ({"texts": [{"text": " ", "box": [0, 0, 1, 1]}]}, "texts\\[0\\].text: ' ' is not a text"),
        ({"texts": [{"text": "A", "box": [300, 0, 400, 9]}]}, "has no area within the 200x100 pixels"),
        ({"texts": [{"text": "A", "box": [0, 0, True, 9]}]}, "is not x0, y0, x1, y1 in pixels"),
    ],
)
def test_bad_facts_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SampleProblem, match=message):
        picture_texts({**STREET, **change}, "a:7")
