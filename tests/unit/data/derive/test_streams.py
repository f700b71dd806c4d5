"""Streams cut from long videos: never longer than they may be, never with a part of a caption, nothing uncounted."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vl3.data.derive.facts import CaptionedVideo, TimedCaption
from vl3.data.derive.streams import Bound, StreamBounds, cut_streams, read_bounds
from vl3.data.sample.records import parse_record

ALL = StreamBounds(
    max_seconds=Bound(value=120, reason=""),
    max_captions_a_minute=Bound(value=1e9, reason=""),
    min_captions_a_minute=Bound(value=0, reason=""),
)


def video(*intervals: tuple[float, float]) -> CaptionedVideo:
    captions = [
        TimedCaption(start_seconds=start, end_seconds=end, text=f"{start:g}-{end:g}") for start, end in intervals
    ]
    return CaptionedVideo(video="v.mp4", captions=tuple(sorted(captions)))


def test_clips_end_where_no_caption_goes_on() -> None:
    cut = cut_streams(video((0, 50), (60, 110), (100, 160), (165, 200)), ALL)
    assert [(line["start_time"], line["end_time"]) for line in cut.lines] == [(0, 50), (60, 160), (165, 200)]


def test_what_is_dropped_is_counted() -> None:
    bounds = read_bounds()
    assert cut_streams(video((0, 121)), bounds).too_long_captions == 1
    assert cut_streams(video((0, 70), (60, 130)), ALL).straddling_captions == 1
    assert cut_streams(video((0, 100)), bounds).too_sparse_clips == 1
    assert cut_streams(video(*((second, second + 1) for second in range(30))), bounds).too_dense_clips == 1


INTERVALS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 150)), min_size=1, max_size=30, unique=True)


@given(INTERVALS)
def test_no_clip_is_too_long_and_no_caption_is_cut(places: Any) -> None:
    found = video(*((start, start + length) for start, length in places))
    cut = cut_streams(found, ALL)
    said = 0
    for line in cut.lines:
        record = parse_record(json.dumps(line), where="a:1", split="train")
        assert line["end_time"] - line["start_time"] <= 120
        for event in record.events[1:]:
            start, end = map(float, event.text.split("-"))
            assert line["start_time"] <= start < end == event.time_seconds <= line["end_time"]
        said += len(record.events) - 1
    assert said + cut.too_long_captions + cut.straddling_captions == len(found.captions)
