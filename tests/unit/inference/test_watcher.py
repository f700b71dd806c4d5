"""Frames that arrive one by one get the decisions that `watch_streams` takes with all of them at hand."""

import dataclasses

import numpy as np
import pytest
import torch

from vl3.config.data import Category
from vl3.data.sample.clips import Clip
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import prepare_sample
from vl3.data.sample.records import Record, StreamEvent
from vl3.errors import DataError
from vl3.inference.batch import Decoding
from vl3.inference.question import Question, open_frames
from vl3.inference.streaming import StreamResult, find_decisions, watch_streams
from vl3.inference.watcher import StreamWatcher

STREAMS = [
    ("Say when circle changes", 0),
    ("When moves it?", 1),
    ("Say red", 2),
    ("What is seen first?", 3),
    ("moves", 4),
    ("Repeat bars and letters", 1),
]
"""Question, and the second at which the stream begins."""


@pytest.fixture(scope="module")
def make_stream(clip, tokenizer):
    def make(question, start, asked_at, settings):
        events = (
            StreamEvent(role="user", text=question, time_seconds=asked_at),
            StreamEvent(role="assistant", text="red", time_seconds=99.0),
        )
        record = Record(
            sample_id=question,
            split="train",
            category=Category.STREAMING,
            source="default",
            media=(Clip(path="clip.mp4", start_seconds=float(start)),),
            turns=(),
            events=events,
            chance=None,
            where="test",
        )
        return prepare_sample(record, {"clip.mp4": clip}, tokenizer, settings, keep_mask)

    return make


@pytest.fixture(scope="module", params=[False, True], ids=["after the encoder", "before the encoder"])
def settings(request, tiny_settings):
    """The threshold is above the codec's noise, so that resting parts are dropped."""
    data = dataclasses.replace(tiny_settings.data, prune_before_encoder=request.param, difffp_threshold=20.0)
    return dataclasses.replace(tiny_settings, data=data)


@pytest.fixture(scope="module", params=[False, True], ids=["asked before", "asked at the first frame"])
def asked_late(request):
    return request.param


@pytest.fixture(scope="module")
def samples(make_stream, settings, asked_late):
    return [make_stream(question, start, start if asked_late else -1.0, settings) for question, start in STREAMS]


@pytest.fixture(scope="module")
def watching(model, samples, tokenizer, make_decisive):
    watches = [find_decisions(sample, tokenizer) for sample in samples]
    with torch.no_grad():
        return make_decisive(
            torch.cat([Decoding(model, [watch.prompt], 1).hidden_TD[list(watch.ends)] for watch in watches])
        )


@pytest.fixture
def frames(clip, tiny_settings):
    with open_frames(Question(text="", video=clip), tiny_settings) as (_, frames):
        return list(frames)


def test_decisions_and_words_equal_those_with_all_frames_at_hand(
    watching, samples, settings, tokenizer, frames, asked_late
):
    assert not all(sample.keep_M.all() for sample in samples), "DiffFP should drop something"
    wanted = watch_streams(watching, samples, tokenizer, max_new_tokens=6)
    assert len({result.frame_index for result in wanted}) > 2, "the model should speak at different frames"
    for (question, start), result in zip(STREAMS, wanted, strict=True):
        watcher = StreamWatcher(watching, tokenizer, settings, expected_frames=8 - start, max_new_tokens=6)
        if not asked_late:
            watcher.say(question)
        found = StreamResult(frame_index=None, text="")
        for index, (seconds, frame) in enumerate(frames[start:]):
            said = question if asked_late and index == 0 else None
            utterance = watcher.feed(frame, seconds - start, said=said)
            if utterance is not None:
                found = StreamResult(frame_index=index, text=utterance)
                break
        assert found == result


def test_it_goes_on_watching_after_it_spoke_and_hears_what_is_said(watching, settings, tokenizer, frames, asked_late):
    spoken = 0
    for question, start in STREAMS:
        watcher = StreamWatcher(watching, tokenizer, settings, expected_frames=8 - start, max_new_tokens=3)
        watcher.say(question)
        for seconds, frame in frames[start:]:
            if watcher.feed(frame, seconds - start) is not None:
                spoken += 1
                watcher.say("Say red")
        assert watcher.num_frames == 8 - start
    assert spoken or asked_late


def test_more_frames_than_expected_are_refused(model, settings, tokenizer, frames):
    watcher = StreamWatcher(model, tokenizer, settings, expected_frames=2)
    for seconds, frame in frames[:2]:
        watcher.feed(frame, seconds)
    with pytest.raises(DataError, match="the stream already has 2 frames"):
        watcher.feed(frames[2][1], 2.0)


def test_a_stream_without_room_is_refused(model, settings, tokenizer, frames):
    data = dataclasses.replace(settings.data, max_length_tokens=60, visual_budget_tokens=48)
    watcher = StreamWatcher(
        model, tokenizer, dataclasses.replace(settings, data=data), expected_frames=8, max_new_tokens=2
    )
    watcher.feed(frames[0][1], 0.0)
    with pytest.raises(DataError, match=r"the stream has \d+ tokens and \d+ more do not fit into 60"):
        watcher.say("Say when circle changes " * 15)


def test_a_frame_that_is_no_picture_is_refused(model, settings, tokenizer):
    with pytest.raises(DataError, match=r"a frame has shape \(4, 4\) and type float64; it must be uint8"):
        StreamWatcher(model, tokenizer, settings).feed(np.zeros((4, 4)), 0.0)
