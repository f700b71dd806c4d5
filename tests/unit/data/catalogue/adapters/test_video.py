"""Dense captions, moments, narrations and dialogues over videos."""

import json

import pytest

from tests.unit.data.catalogue.conftest import read_lines, read_refused
from vl3.data.catalogue.entry import Entry, find_entry

WHEN = 'When does "{}" happen in the video? Please output the start and end timestamps in seconds.'


@pytest.mark.parametrize(
    ("entry", "files", "video"),
    [
        (
            "activitynet_captions",
            {
                "captions/train.json": {
                    "v_Q": {"duration": 82.7, "timestamps": [[0.83, 19.86]], "sentences": ["A girl. "]}
                }
            },
            "videos/v_Q.mp4",
        ),
        (
            "youcook2",
            {
                "youcookii_annotations_trainval.json": {
                    "database": {
                        "x": {"subset": "validation", "annotations": []},
                        "GL": {
                            "duration": 241.62,
                            "subset": "training",
                            "recipe_type": "113",
                            "annotations": [{"segment": [0.83, 19.86], "id": 0, "sentence": "A girl"}],
                        },
                    }
                }
            },
            "videos/GL.mkv",
        ),
        (
            "coin",
            {
                "COIN.json": {
                    "database": {
                        "Lt": {
                            "duration": 131.0,
                            "subset": "training",
                            "class": "Replace",
                            "annotation": [{"id": "212", "segment": [0.83, 19.86], "label": "A girl"}],
                        }
                    }
                }
            },
            "videos/Lt.webm",
        ),
        (
            "hirest",
            {
                "data/splits/all_data_train.json": {
                    "Make": {
                        "k.mp4": {
                            "relevant": True,
                            "clip": True,
                            "v_duration": 54.0,
                            "bounds": [0, 30],
                            "steps": [{"index": 0, "heading": "A girl", "absolute_bounds": [0.83, 19.86]}],
                        },
                        "no.mp4": {"relevant": True, "clip": False, "v_duration": 5, "bounds": [0, 0], "steps": []},
                    }
                }
            },
            "videos/k.mp4",
        ),
        (
            "vitt",
            {
                "ViTT-annotations.json": json.dumps(
                    {
                        "id": "Fm",
                        "annotations": [{"timestamp": 19860, "tag": "End"}, {"timestamp": 830, "tag": "A girl"}],
                    }
                )
            },
            "videos/Fm.mp4",
        ),
        ("charades_sta", {"charades_sta_train.txt": "AO 0.83 19.86##A girl.\n"}, "Charades_v1_480/AO.mp4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_moment(imported, entry, files, video):
    """Layouts: the pages that the entries of the catalogue name as documentation."""
    lines, _ = imported(entry, {**files, video: b"video"})
    assert lines == [
        {
            "video": video,
            "category": "temporal_grounding",
            "conversations": [
                {"from": "human", "value": WHEN.format("A girl")},
                {"from": "gpt", "value": "0.8-19.9 s"},
            ],
        }
    ]


def test_dense_captions_as_a_stream(imported):
    entry = Entry(
        name="stream", format="dense_video", options={**find_entry("activitynet_captions").options, "task": "stream"}
    )
    data = {"v_Q": {"duration": 9.0, "timestamps": [[0, 8.5], [1, 3]], "sentences": ["Then rain.", " Sun."]}}
    lines, card = imported(entry, {"captions/train.json": data, "videos/v_Q.mp4": b"video"})
    assert (lines[0]["start_time"], lines[0]["end_time"], card.categories) == (0.0, 8.5, {"streaming": 1})
    assert [(message["content"], message["time"]) for message in lines[0]["conversation"]] == [
        ("Describe what happens as you watch.", 0.0),
        ("Sun.", 3.0),
        ("Then rain.", 8.5),
    ]


def test_a_line_of_charades_that_is_none(imported, tmp_path):
    _, card = imported(
        "charades_sta",
        {"charades_sta_train.txt": "AO 0.0 2.0##a\nAO 9.0 x\nAO 5.0 2.0##b\n", "Charades_v1_480/AO.mp4": b"v"},
    )
    assert (card.samples, card.refused) == (1, 2)
    first, second = read_refused(tmp_path / "out")
    assert first["reason"] == "'AO 9.0 x' is not `video start end##sentence`."
    assert (second["kind"], second["where"]) == ("times", "charades_sta_train.txt:3")


def test_ego4d_narrations(imported, tmp_path):
    """Layout: ego4d-data.org/docs/data/annotations-schemas."""
    said = [
        {"timestamp_sec": 3.25, "timestamp_frame": 97, "narration_text": "#C C opens the door #unsure"},
        {"timestamp_sec": 1.0, "timestamp_frame": 30, "narration_text": "#O A man X waves"},
    ]
    passes = {"narration_pass_1": {"narrations": said, "summaries": []}, "narration_pass_2": {"narrations": []}}
    data = {"videos": {"uid-1": passes, "uid-2": {"status": "redacted"}}}
    files = {"v2/annotations/all_narrations_redacted.json": data, "v2/full_scale/uid-1.mp4": b"video"}
    lines, card = imported("ego4d_narration", files)
    assert [(message["content"], message["time"]) for message in lines[0]["conversation"][1:]] == [
        ("A man X waves", 1.0),
        ("C opens the door", 3.25),
    ]
    assert (card.samples, card.refused) == (1, 1)
    assert read_lines(tmp_path / "out")[0]["id"] == "ego4d_narration-1"


def test_livechat_ends_where_time_goes_back(imported):
    """Layout: showlab/videollm-online, data/ego4d/livechat.py."""
    messages = [
        {"role": "user", "content": "What now?", "time": 12.5},
        {"role": "assistant", "content": "Stir.", "time": 12.5},
        {"role": "user", "content": "And?", "time": 20.0},
        {"role": "assistant", "content": "Wrong.", "time": 15.0},
    ]
    name = "v2/annotations/goalstep_livechat_trainval_filtered_21k.json"
    files = {name: [{"video_uid": "u", "conversation": messages}], "v2/full_scale/u.mp4": b"video"}
    lines, _ = imported("ego4d_livechat", files)
    assert [message["content"] for message in lines[0]["conversation"]] == ["What now?", "Stir."]
    assert (lines[0]["start_time"], lines[0]["end_time"]) == (11.5, 13.5)
    assert "conversations" not in lines[0]
